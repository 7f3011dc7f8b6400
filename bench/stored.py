"""Servers on a store that comes to harm: users at them, what the store holds in the end, and what redis-py alone loses.

Every user stays with one server, which so holds a copy of the session. Servers run without a balancer: what fails here
failed at the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bench.browser import HOST, Browser
from bench.crowd import Crowd, User
from bench.show import CannotShow, Figure
from bench.unharmed import all_asked, exactly, longest, sessions_unharmed
from sessile.changes import shown
from sessile.lab import vitals
from sessile.lab.child import Child, run_module
from sessile.lab.probe import ask
from sessile.lab.server import ServerPlan
from sessile.record import LIVE
from sessile.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence


__all__ = [
    "ANSWER_S_MAX",
    "NOTES",
    "Adder",
    "Plain",
    "Servers",
    "at_home",
    "in_store",
    "judge_served",
    "judge_store",
    "servers_on",
    "within",
]

START_S: Final = 60.0
SETTLE_S: Final = 60.0
LOOK_AGAIN_S: Final = 0.1
ANSWER_S_MAX: Final = 3.0
"""Whatever a store does, a server waits a second for it at most; the rest is for a machine that is busy."""
PLAIN_WRITERS: Final = 4
PLAIN_PAUSE_S: Final = 0.01
PLAIN_TIMEOUT_S: Final = 1.0
READ_AT_ONCE: Final = 16
ADDER_PAUSE_S: Final = 0.05
NOTES: Final = [
    "each user stays with one server, which holds a copy; one request under way, pauses of 0.3 s, nothing sent twice",
    "reads, counts (read-modify-write), increments and assignments, by chance; every answer is compared with a model",
    "who goes from server to server during a failover may be shown an older state for a moment, marked stale: not judged here",
    "in the end every session is read at every server, and from the store itself by its own client",
    "servers have the default settings: degraded=serve, outage=serve, store_timeout=1s, ack_timeout=1s",
]


class Servers:
    """Server processes that share a store, each at a port of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ports: list[int] = []
        self._token = secrets.token_urlsafe(16)
        self._secret = secrets.token_urlsafe(32)
        self._children: list[Child] = []

    async def start(self) -> None:
        """Start one more; returns once it is ready."""
        listener = socket.socket()
        listener.bind((HOST, 0))
        port = listener.getsockname()[1]
        plan = ServerPlan(
            name=f"s{len(self.ports) + 1}",
            descriptor=listener.fileno(),
            parent_pid=os.getpid(),
            url=self.url,
            secret=self._secret,
            cookie_name="sid",
            token=self._token,
            strategy="store",
            routing="sticky",
            dashboard="",
        )
        with listener:
            child = await run_module(
                "sessile.lab.server",
                first_line=msgspec.json.encode(plan),
                descriptors=[listener.fileno()],
                on_error=lambda _: None,
            )
        self._children.append(child)
        deadline_s = time.monotonic() + START_S
        while (await self._status(port)).get("phase") != "ready":
            if not child.is_alive or time.monotonic() > deadline_s:
                raise CannotShow(f"server {plan.name} did not start: {child.last_words() or child.how_it_ended()}")
            await asyncio.sleep(LOOK_AGAIN_S)
        self.ports.append(port)

    async def figures(self) -> list[dict[str, Any]]:
        """What every server tells of itself."""
        return [await self._status(port) for port in self.ports]

    async def until_settled(self) -> bool:
        """Wait until every server has its store, and nothing that waits for it; False if that does not come."""
        return await within(SETTLE_S, self._is_settled)

    async def _is_settled(self) -> bool:
        stores = [told.get("cluster", {}) for told in await self.figures()]
        return all(
            store.get("state") == "ready" and store["channel"] == "up" and not store["queued"] + store["pushes"]
            for store in stores
        )

    async def kill_last(self) -> None:
        """SIGKILL for the one that was started last; it is none of these any more."""
        self.ports.pop()
        await self._children.pop().kill()

    async def stop(self) -> None:
        await asyncio.gather(*(child.kill() for child in self._children))

    async def _status(self, port: int) -> dict[str, Any]:
        told = await ask(port, vitals.STATUS_PATH, headers={vitals.TOKEN_HEADER: self._token})
        return told.data if told is not None and told.status == 200 else {}


async def within(seconds: float, condition: Callable[[], Any]) -> bool:
    """Wait until something is so, twice in a row; False if not in time."""
    deadline_s = time.monotonic() + seconds
    seen = 0
    while seen < 2:
        seen = seen + 1 if await condition() else 0
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(LOOK_AGAIN_S)
    return True


@contextlib.asynccontextmanager
async def servers_on(url: str, count: int) -> AsyncIterator[Servers]:
    """So many servers on this store; they have ended when this is left."""
    servers = Servers(url)
    try:
        for _ in range(count):
            await servers.start()
        yield servers
    finally:
        await servers.stop()


@contextlib.asynccontextmanager
async def at_home(ports: list[int], count: int) -> AsyncIterator[Crowd]:
    """So many users at work, each at one of these ports; all have a session at the start, and nothing under way in the end."""
    crowd = Crowd([User(Browser(ports[number % len(ports)]), Random(number)) for number in range(count)])
    await asyncio.gather(*(user.step() for user in crowd.users))
    if not all(user.key for user in crowd.users):
        raise CannotShow("a server refused a new session before anything was done to the store")
    working = [asyncio.create_task(crowd.work(user)) for user in crowd.users]
    try:
        yield crowd
        crowd.go_home()
        await asyncio.gather(*working)
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        for user in crowd.users:
            user.browser.close()


@dataclass
class Adder:
    """A user who only adds, as fast as answers come, until the server dies that alone holds a copy.

    Args:
        browser: at that server.
    """

    browser: Browser
    acknowledged: int = 0
    refused: int = 0
    seen: int = -1
    """What another server shows afterwards."""

    async def add(self) -> bool:
        """Add one; whether that was acknowledged."""
        status, _ = await self.browser.ask("POST", "/api/increment?name=n")
        self.acknowledged += status == 200
        self.refused += status != 200
        return status == 200

    async def work(self) -> None:
        is_answered = True
        while is_answered:
            is_answered = await self.add()
            await asyncio.sleep(ADDER_PAUSE_S)

    async def look(self, port: int) -> None:
        """See what is left of it elsewhere."""
        self.browser.close()
        self.browser.port = port
        status, told = await self.browser.ask("GET", "/api/session")
        self.seen = told["fields"].get("n", 0) if status == 200 else 0
        self.browser.close()

    @property
    def lost(self) -> int:
        """Acknowledged changes that are not there."""
        return max(self.acknowledged - self.seen, 0)

    @property
    def has_more(self) -> bool:
        """Whether there is more than was ever asked for."""
        return self.seen > self.acknowledged + self.refused


# -- what the store holds ----------------------------------------------------------------------------------------------


async def in_store(url: str, keys: Iterable[str]) -> dict[str, dict[str, Any] | None]:
    """Key → what the store's own client reads there; None for what it has not, or what is over."""
    from sessile.connect import store_of  # needs a driver that not everybody has

    store = store_of(Settings.load(url=url, secret=secrets.token_urlsafe(32)))
    await store.open()
    coming, found = iter(list(keys)), {}

    async def read() -> None:
        for key in coming:
            record = (await store.fetch(bytes.fromhex(key), None)).record
            found[key] = shown(record) if record is not None and record.state == LIVE else None

    try:
        await asyncio.gather(*(read() for _ in range(READ_AT_ONCE)))
    finally:
        await store.close()
    return found


def judge_store(users: list[User], held: dict[str, dict[str, Any] | None]) -> Figure:
    """Every session is there, and holds what its user was last told."""
    return exactly("sessions that the store lacks, or holds otherwise", sum(held.get(u.key) != u.model for u in users))


def judge_served(users: list[User]) -> list[Figure]:
    """Whoever has a copy at a live server notices nothing."""
    gets, posts = all_asked(users, "GET"), all_asked(users, "POST")
    slowest = longest("time to an answer", (one.seconds for one in [*gets, *posts]))
    return [
        Figure("requests answered", sum(one.is_good for one in [*gets, *posts])),
        exactly("repeatable requests (GET) that failed", sum(not one.is_good for one in gets)),
        exactly("POST that failed", sum(not one.is_good for one in posts)),
        *sessions_unharmed(users),
        Figure(slowest.name, slowest.value, "s", f"<= {ANSWER_S_MAX:g}", slowest.value <= ANSWER_S_MAX),
    ]


# -- redis-py alone ----------------------------------------------------------------------------------------------------


@dataclass
class Plain:
    """Writers with a client of redis-py and nothing else: a SET of its own for each write.

    Args:
        client: asyncio, with short timeouts.
        others: clients that this one uses, to be closed with it.
    """

    client: Any
    others: Sequence[Any] = ()
    acknowledged: list[str] = field(default_factory=list)
    refused: int = 0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _is_over: bool = False

    def begin(self) -> None:
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(PLAIN_WRITERS)]

    async def end(self) -> int:
        """Finish what is under way; how many acknowledged writes are not there now."""
        self._is_over = True  # its client may swallow that a task is cancelled
        await asyncio.gather(*self._tasks)
        await self.client.aclose()  # with new connections, it asks who is the primary
        lost = 0
        for key in self.acknowledged:
            lost += await self.client.get(key) is None
        for client in (self.client, *self.others):
            await client.aclose()
        return lost

    async def _write(self, number: int) -> None:
        from redis.exceptions import RedisError

        at = 0
        while not self._is_over:
            at += 1
            key = f"plain:{number}:{at}"
            try:
                async with asyncio.timeout(PLAIN_TIMEOUT_S):
                    is_taken = await self.client.set(key, "x")
            except (
                RedisError,
                OSError,
                TimeoutError,
                AttributeError,
            ):  # the last where its link is lost as it connects
                self.refused += 1
            else:
                if is_taken:
                    self.acknowledged.append(key)
            await asyncio.sleep(PLAIN_PAUSE_S)
