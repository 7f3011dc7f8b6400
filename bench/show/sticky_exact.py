"""`sticky-exact`: many users on real servers behind the balancer, each with a session that must be exact.

The demo is started by its public command, with affinity, where a server is also killed under load, and without. Each user keeps cookies as a browser does, has one request under way at a time, and keeps a
model of what the session must hold; every answer is compared with it. The clients never send a request twice: what
fails here, failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bench.show import CannotShow, Figure, Progress, Shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

SUMMARY = "200 users stay on their server and count exactly; a killed server costs its own users their session, and no one else."

USERS: Final = 200
REQUESTS: Final = 50
SERVERS: Final = 4
BEFORE_KILL: Final = 10
"""So many answers every user has before a server is killed, and again afterwards."""
REQUESTS_MAX: Final = 5_000
ANSWER_S: Final = 30.0
START_S: Final = 90.0
STOP_S: Final = 30.0
HOST: Final = "127.0.0.1"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_COOKIE: Final = re.compile(rb"\r\nset-cookie: *([^=;\r]+)=([^;\r]*)([^\r]*)", re.IGNORECASE)
_EXPIRED: Final = re.compile(rb"max-age=0|01[ -]jan[ -]1970", re.IGNORECASE)


class Client:
    """One browser: a connection that is kept alive, and cookies. Never repeats a request."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cookies: dict[bytes, bytes] = {}
        self._link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, *headers: str) -> tuple[int, Any]:
        """The status and the JSON of the answer; status 0 when the connection broke or nothing came in time."""
        cookies = b"; ".join(b"%b=%b" % pair for pair in self._cookies.items())
        lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}:{self._port}", "Content-Length: 0", *headers]
        head = "\r\n".join(lines).encode() + (b"\r\nCookie: " + cookies if cookies else b"") + b"\r\n\r\n"
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._exchange(head)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self.close()
            return 0, None

    def close(self) -> None:
        if self._link is not None:
            self._link[1].transport.abort()
            self._link = None

    async def _exchange(self, request: bytes) -> tuple[int, Any]:
        if self._link is None:
            self._link = await asyncio.open_connection(HOST, self._port)
        reader, writer = self._link
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        body = await _body(reader, head)
        for name, value, attributes in _COOKIE.findall(head):
            if _EXPIRED.search(attributes):
                self._cookies.pop(name, None)
            else:
                self._cookies[name] = value
        if _CLOSE.search(head):
            self.close()
        try:
            return int(head[9:12]), json.loads(body)
        except ValueError:
            return int(head[9:12]), None


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """RFC 9112 §6: by chunks, by length, or none."""
    if _CHUNKED.search(head):
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return body
    length = _LENGTH.search(head)
    return await reader.readexactly(int(length.group(1))) if length else b""


@dataclass(slots=True)
class User:
    """One user, and what became of their session."""

    client: Client
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
        status, told = await self.client.ask(method, path)
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
    return [User(Client(port), random.Random(number)) for number in range(USERS)]


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


@contextlib.asynccontextmanager
async def demo(routing: str) -> AsyncIterator[int]:
    """The demo, started by its public command; gives the port of its balancer."""
    port = free_pair()
    options = ("--servers", str(SERVERS), "--port", str(port), "--routing", routing, "--json")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sessile", "demo", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        if not line:
            raise CannotShow(f"the demo did not start; try: sessile {' '.join(options)}")
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def free_pair() -> int:
    """A port that is free, and so is the one after it, which the dashboard takes."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind((HOST, 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                second.bind((HOST, port + 1))
                return port


async def kill_by_control(port: int, name: str) -> None:
    """SIGKILL for one server, by the control API."""
    control = Client(port + 1)
    status, told = await control.ask("POST", f"/api/servers/{name}/kill", "X-Sessile: 1")
    control.close()
    if status != 200:
        raise CannotShow(f"{name} could not be killed: {told}")


def close_all(users: list[User]) -> None:
    """Everybody goes home."""
    for user in users:
        user.client.close()


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
    async with demo("sticky") as port:
        users = make_users(port)
        await play(users)
        close_all(users)
        figures += judge_sticky(users)
        progress("sticky routing again: a server is killed under load")
        users = make_users(port)
        kill = await play_and_kill(users, lambda name: kill_by_control(port, name))
        close_all(users)
        figures_of_kill = judge_kill(users, kill)
    progress("the same without affinity: round robin")
    async with demo("round-robin") as port:
        users = make_users(port)
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
