"""Users at work while servers come to harm, and what became of the session of each.

Every user keeps cookies as a browser does, has one request under way at a time, and never sends one twice: what fails
here, failed. Beside the browser stands a model of what the session must hold. A request that is no read and fails may
have been executed or not; the next answer mostly tells. It may also be that its change is still on its way then, in the
socket of a server that answers first and reads on later: so it may show for a moment yet, once, and never go again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bench.browser import Browser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

__all__ = ["Asked", "Crowd", "User", "answered_s", "at_work", "close_all"]

Model = dict[str, Any]
Change = Callable[[Model], None]

PAUSE_S: Final = 0.3
"""Average pause of a user between two requests, in seconds; at most twice as long."""
LATE_S: Final = 5.0
"""A change whose request failed shows within so long, or never."""
OPEN_MAX: Final = 8
"""So many requests of one user may fail in that time."""
TOLD_LAST: Final = 6
"""So many requests are told of when an answer is wrong."""


class Asked(NamedTuple):
    """One request, as its user saw it."""

    began_s: float
    ended_s: float
    method: str
    status: int
    """0 where the connection broke."""
    server: str
    """Who answered, if a server of the demo did."""

    @property
    def is_good(self) -> bool:
        return self.status == 200

    @property
    def seconds(self) -> float:
        return self.ended_s - self.began_s


@dataclass(slots=True)
class Doubt:
    """A change whose request failed: it may have been executed, or may yet be."""

    change: Change
    until_s: float
    was_missing: bool = False
    """An answer that came later lacked it."""


@dataclass(slots=True)
class User:
    """One user, and what became of their session."""

    browser: Browser
    rng: Random
    model: Model = field(default_factory=dict)
    """What the session must hold."""
    doubts: list[Doubt] = field(default_factory=list)
    """What it may hold besides."""
    key: str = ""
    home: str = ""
    """The server that last said it is the session's primary."""
    asked: list[Asked] = field(default_factory=list)
    sessions_lost: int = 0
    changes_lost: int = 0
    """Answers that lack something that was acknowledged."""
    executed_twice: int = 0
    """Answers that count more than was asked for."""
    stale: int = 0
    """Answers by a server that could not find the newest state."""
    late: int = 0
    """Changes whose request failed, and that showed only after an answer without them."""
    wrongs: list[str] = field(default_factory=list)
    """What was wrong, in words."""

    async def step(self) -> None:
        """Send one request, and compare the answer with the model."""
        await self._ask(*self._next())

    async def look(self) -> bool:
        """Read the session; returns whether it was told."""
        return await self._ask("GET", "/api/session", lambda _: None)

    async def count(self) -> bool:
        """Change the session; returns whether that was acknowledged."""
        return await self._ask(
            "POST", "/api/count?name=count", lambda model: model.update(count=model.get("count", 0) + 1)
        )

    async def _ask(self, method: str, path: str, change: Change) -> bool:
        began_s = time.monotonic()
        status, told = await self.browser.ask(method, path)
        ended_s = time.monotonic()
        is_told = status == 200 and isinstance(told, dict)
        server = told["server"] if is_told else ""
        self.asked.append(Asked(began_s, ended_s, method, status if is_told or status != 200 else 0, server))
        if is_told:
            self._judge(told, change)
        elif method != "GET":
            self.doubts.append(Doubt(change, ended_s + LATE_S))
            assert len(self.doubts) <= OPEN_MAX, "somebody answers sooner or later"
        return is_told

    def _next(self) -> tuple[str, str, Change]:
        """The first request begins a session; then a mix of reads and three kinds of writes."""
        kind = self.rng.choice(("read", "read", "count", "increment", "set")) if self.key else "count"
        if kind == "read":
            return "GET", "/api/session", lambda _: None
        if kind == "set":
            value = f"{self.rng.getrandbits(64):016x}"
            return "POST", f"/api/set?name=last&value={value}", lambda model: model.update(last=value)
        return "POST", f"/api/{kind}?name={kind}", lambda model: model.update({kind: model.get(kind, 0) + 1})

    def _judge(self, told: dict[str, Any], change: Change) -> None:
        """An answer says how things are."""
        fields, key = told["fields"], told["key"]
        if told["role"] == "primary":
            self.home = told["server"]
        self.stale += bool(told["stale"])
        self.doubts = [doubt for doubt in self.doubts if self.asked[-1].began_s < doubt.until_s]
        if self.key and key != self.key:
            self.sessions_lost += 1
            self._note(f"{told['server']} knows no session {self.key[:8]}")
        elif (seen := self._explained(fields, change)) is None:
            change(self.model)
            self._note(f"{told['server']} tells {fields} instead of {self.model}, {len(self.doubts)} in doubt")
            has_more = any(fields.get(name, 0) > most for name, most in self._most().items())
            self.executed_twice += has_more
            self.changes_lost += not has_more
        else:
            self.late += sum(doubt.was_missing for doubt in seen)
            self.doubts = [doubt for doubt in self.doubts if doubt not in seen]
            for doubt in self.doubts:
                doubt.was_missing = True
        self.key, self.model = key, dict(fields)

    def _explained(self, fields: Model, change: Change) -> tuple[Doubt, ...] | None:
        """The fewest changes in doubt with which the session would hold this, in whatever order; None if none would do."""
        for number in range(len(self.doubts) + 1):
            for some in combinations(self.doubts, number):
                for at in range(number + 1):
                    model = dict(self.model)
                    for each in [*some[:at], None, *some[at:]]:
                        (change if each is None else each.change)(model)
                    if model == fields:
                        return some
        return None

    def _most(self) -> Model:
        """The most that may have been counted under each name."""
        model = dict(self.model)
        for doubt in self.doubts:
            doubt.change(model)
        return {name: model.get(name, 0) for name in ("count", "increment")}

    def _note(self, wrong: str) -> None:
        """Keep in words what was wrong, and what had gone before."""
        now_s = self.asked[-1].ended_s
        last = (f"{one.method} {one.status} {one.server} {now_s - one.ended_s:.2f}" for one in self.asked[-TOLD_LAST:])
        self.wrongs.append(f"{wrong}; its last requests, and how many seconds ago: {', '.join(last)}")


class Crowd:
    """All users of a demo."""

    def __init__(self, users: list[User]) -> None:
        self.users = users
        self._is_over = False

    async def work(self, user: User) -> None:
        """One request after the other, with pauses, until it is over."""
        while not self._is_over:
            await user.step()
            await asyncio.sleep(user.rng.uniform(0, 2 * PAUSE_S))

    def go_home(self) -> None:
        """Finish what is under way."""
        self._is_over = True

    async def until_answered(self, users: Iterable[User], since_s: float) -> None:
        """Wait until each of these has had a good answer to a request sent after that moment."""
        for user in users:
            while answered_s(user, since_s) is None:  # noqa: ASYNC110 - nobody says when all have theirs
                await asyncio.sleep(0.01)

    async def look_at(self, ports: Iterable[int]) -> None:
        """Everybody reads their session once more from each of these servers, past the balancer."""
        for port in ports:
            for user in self.users:
                user.browser.close()
                user.browser.port = port
            await asyncio.gather(*(user.look() for user in self.users))
        await close_all(self.users)


def answered_s(user: User, since_s: float) -> float | None:
    """When the first good answer to a request sent after that moment came; None while none has."""
    found = None
    for asked in reversed(user.asked):
        if asked.began_s < since_s:
            break
        if asked.is_good:
            found = asked.ended_s
    return found


async def close_all(users: Iterable[User]) -> None:
    """Everybody hangs up; nothing of it is left on the loop when this returns."""
    for user in users:
        user.browser.close()
    await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def at_work(port: int, count: int) -> AsyncIterator[Crowd]:
    """So many users at work from here on; all have a session at the start, and nothing under way in the end."""
    crowd = Crowd([User(Browser(port), Random(number)) for number in range(count)])
    await asyncio.gather(*(user.step() for user in crowd.users))
    working = [asyncio.create_task(crowd.work(user)) for user in crowd.users]
    try:
        yield crowd
        crowd.go_home()
        await asyncio.gather(*working)
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        await close_all(crowd.users)
