"""`sticky-exact`: many users on real servers behind the balancer, each with a session that must be exact.

The demo is started by its public command, with affinity, where a server is also killed under load, and without. Each user keeps cookies as a browser does, has one request under way at a time, and keeps a
model of what the session must hold; every answer is compared with it. The clients never send a request twice: what
fails here, failed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bench.browser import Browser
from bench.running import demo
from bench.show import Figure, Progress, Shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SUMMARY = "200 users stay on their server and count exactly; a killed server costs its own users their session, and no one else."

USERS: Final = 200
REQUESTS: Final = 50
SERVERS: Final = 4
BEFORE_KILL: Final = 10
"""So many answers every user has before a server is killed, and again afterwards."""
REQUESTS_MAX: Final = 5_000


@dataclass(slots=True)
class User:
    """One user, and what became of their session."""

    browser: Browser
    rng: random.Random
    model: dict[str, Any] = field(default_factory=dict)
    """What the session must hold."""
    key: str = ""
    server: str = ""
    servers: set[str] = field(default_factory=set)
    answers: int = 0
    wrong: int = 0
    """Answers that told something else than the model."""
    losses: int = 0
    """Answers from a server that did not know the session this user has."""
    failed: Counter[str] = field(default_factory=Counter)
    """Requests without a good answer, by method."""
    slowest_get_s: float = 0.0

    async def step(self) -> None:
        """Send one request, and compare the answer with the model."""
        method, path, change = self._next()
        began = time.monotonic()
        status, told = await self.browser.ask(method, path)
        if status != 200 or told is None:
            self.failed[method] += 1
            return
        if method == "GET":
            self.slowest_get_s = max(self.slowest_get_s, time.monotonic() - began)
        self._judge(told, change)

    def _next(self) -> tuple[str, str, Callable[[dict[str, Any]], None]]:
        """The first request begins a session; then a mix of reads and three kinds of writes."""
        kind = self.rng.choice(("read", "read", "count", "increment", "set")) if self.key else "count"
        if kind == "read":
            return "GET", "/api/session", lambda _: None
        if kind == "set":
            value = f"{self.rng.getrandbits(64):016x}"
            return "POST", f"/api/set?name=last&value={value}", lambda model: model.update(last=value)
        return "POST", f"/api/{kind}?name={kind}", lambda model: model.update({kind: model.get(kind, 0) + 1})

    def _judge(self, told: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> None:
        self.answers += 1
        self.server = told["server"]
        self.servers.add(self.server)
        if self.key and told["key"] != self.key:
            self.losses += 1
            self.model.clear()
        self.key = told["key"]
        change(self.model)
        self.wrong += told["fields"] != self.model


def make_users(port: int) -> list[User]:
    """Users who have not been here before; each draws the same requests in every run."""
    return [User(Browser(port), random.Random(number)) for number in range(USERS)]


async def play(users: list[User]) -> None:
    """All users at once, each one request after the other."""

    async def one(user: User) -> None:
        for _ in range(REQUESTS):
            await user.step()

    await asyncio.gather(*map(one, users))


@dataclass(frozen=True, slots=True)
class Kill:
    """What a killed server did to users."""

    victim: str
    its_users: frozenset[int]
    """Those whose session it held at that moment."""


async def play_and_kill(users: list[User], kill: Callable[[str], Awaitable[None]]) -> Kill:
    """All users at once; in the middle of it, the server with the most users is killed."""
    killed = asyncio.Event()

    async def one(user: User) -> None:
        since = 0
        for number in range(REQUESTS_MAX):
            await user.step()
            since += killed.is_set()
            if number >= REQUESTS - 1 and since >= BEFORE_KILL:
                return

    async def strike() -> Kill:
        while min(user.answers for user in users) < BEFORE_KILL:  # noqa: ASYNC110 - nobody says when all have theirs
            await asyncio.sleep(0.01)
        victim = Counter(user.server for user in users).most_common(1)[0][0]
        its_users = frozenset(at for at, user in enumerate(users) if user.server == victim)
        await kill(victim)
        killed.set()
        return Kill(victim, its_users)

    async with asyncio.TaskGroup() as group:
        striking = group.create_task(strike())
        for user in users:
            group.create_task(one(user))
    return striking.result()


def close_all(users: list[User]) -> None:
    """Everybody goes home."""
    for user in users:
        user.browser.close()


def exactly(name: str, value: float, wanted: int) -> Figure:
    """A figure that is promised to the last digit."""
    return Figure(name, value, "", f"= {wanted}", value == wanted)


def judge_sticky(users: list[User]) -> list[Figure]:
    """Every user on one server, everything exact."""
    return [
        exactly("sticky: requests answered", sum(user.answers for user in users), len(users) * REQUESTS),
        exactly("sticky: users who met more than one server", sum(len(user.servers) > 1 for user in users), 0),
        exactly("sticky: users whose session was lost", sum(user.losses > 0 for user in users), 0),
        exactly("sticky: answers that were not exact", sum(user.wrong for user in users), 0),
        exactly("sticky: servers that had users", len(set().union(*(user.servers for user in users))), SERVERS),
    ]


def judge_round_robin(users: list[User]) -> list[Figure]:
    """The problem that is being solved: it must be seen, or nothing was shown."""
    lost = sum(user.losses > 0 for user in users)
    return [
        Figure("round-robin: users who lost their session", lost, "", "> 0", lost > 0),
        Figure("round-robin: times a session was not found", sum(user.losses for user in users)),
    ]


def judge_kill(users: list[User], kill: Kill) -> list[Figure]:
    """A dead server's users begin anew, once, elsewhere; for everybody else nothing happened."""
    its = [users[at] for at in kill.its_users]
    others = [user for at, user in enumerate(users) if at not in kill.its_users]
    return [
        exactly(
            "kill: its users who lost their session once, of " + str(len(its)),
            sum(u.losses == 1 for u in its),
            len(its),
        ),
        exactly("kill: its users who went to one other server", sum(len(u.servers) == 2 for u in its), len(its)),
        exactly("kill: other users who lost theirs", sum(u.losses > 0 or len(u.servers) > 1 for u in others), 0),
        exactly("kill: other users' requests that failed", sum(u.failed.total() for u in others), 0),
        exactly("kill: answers that were not exact", sum(user.wrong for user in users), 0),
        exactly("kill: repeatable requests that failed", sum(user.failed["GET"] for user in users), 0),
        Figure("kill: other requests that failed", sum(user.failed["POST"] for user in users)),
        Figure("kill: slowest repeatable request", max(user.slowest_get_s for user in users) * 1000, "ms"),
    ]


async def show(progress: Progress) -> Shown:
    """One run after the other, on fresh processes where the routing changes."""
    figures: list[Figure] = []
    progress(f"sticky routing: {USERS} users, {REQUESTS} requests each, {SERVERS} servers")
    async with demo(routing="sticky", servers=SERVERS) as running:
        users = make_users(running.port)
        await play(users)
        close_all(users)
        figures += judge_sticky(users)
        progress("sticky routing again: a server is killed under load")
        users = make_users(running.port)
        kill = await play_and_kill(users, running.kill)
        close_all(users)
        figures_of_kill = judge_kill(users, kill)
    progress("the same without affinity: round robin")
    async with demo(routing="round-robin", servers=SERVERS) as running:
        users = make_users(running.port)
        await play(users)
        close_all(users)
        figures += judge_round_robin(users)
    notes = [
        f"{SERVERS} server processes with a memory of their own, and the balancer: started by `sessile demo`",
        "requests are reads, counts (read-modify-write), increments and assignments; every answer is compared with a model",
        f"killed with SIGKILL while all users had requests under way: {kill.victim}; clients never send anything twice",
        "a request that is no read may have been executed when its server died, so the balancer may not repeat it",
    ]
    return Shown("sticky-exact", [*figures, *figures_of_kill], notes)


def run(progress: Progress) -> Shown:
    """Start the demos, use them, and judge what was answered."""
    return asyncio.run(show(progress))
