"""Servers of a cluster as processes, started one by one: without a balancer, each asked at a port of its own.

What the shows about clusters have in common: where servers run, how they are asked, and that none is left behind. A server
may be put into a network namespace; the port at which browsers reach it stays on this machine's loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bench.browser import HOST, Browser
from bench.show import CannotShow
from sessile.lab.child import Child
from sessile.lab.server import ServerPlan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

__all__ = ["STRATEGIES", "Cluster", "Member", "cluster", "node_ports", "quantile"]

ROOT: Final = Path(__file__).resolve().parent.parent
START_S: Final = 30.0
FILL_AT_ONCE: Final = 6_000
"""So many sessions are made before the others get a turn to say that they live."""
STRATEGIES: Final = ("all-to-all", "primary-backup")


class Member:
    """One server under way."""

    def __init__(self, name: str, address: str, port: int) -> None:
        self.name = name
        self.address = address
        """Where the other servers reach it."""
        self.port = port
        """Where browsers do."""
        self.imported = 0.0
        """When its process had imported everything, on this machine's monotonic clock."""
        self.child: Child | None = None

    @property
    def pid(self) -> int:
        assert self.child is not None, "asked of a server that was started"
        return self.child.pid

    async def ask(self, path: str, method: str = "GET") -> dict[str, Any]:
        """Ask what only the people who show it may know."""
        browser = Browser(self.port)
        status, told = await browser.ask(method, path)
        browser.close()
        if status != 200 or not isinstance(told, dict):
            raise CannotShow(f"{self.name} answered {path} with {status}: {told}; {self.last_words()}")
        return told

    def last_words(self) -> str:
        return "" if self.child is None else self.child.last_words() or self.child.how_it_ended()


class Cluster:
    """Servers that know of each other.

    Args:
        strategy: theirs.
        addresses: where their nodes are, `host:port`; each server is told of those that run, and of itself.
        namespaces: the network namespaces in which they run, as many, or none.
    """

    def __init__(self, strategy: str, addresses: Sequence[str], namespaces: Sequence[str] = ()) -> None:
        self.strategy = strategy
        self.secret = secrets.token_urlsafe(32)
        self.members: list[Member] = []
        """Those that run, in the order in which they were started."""
        self._started = 0
        self._addresses = addresses
        self._namespaces = namespaces
        self._said: list[str] = []

    @property
    def next_address(self) -> str:
        """Where the server that is started next will be reached by the others."""
        return self._addresses[self._started]

    async def start(self) -> Member:
        """Start the next server; returns when it has imported everything, and before it answers."""
        number = self._started
        self._started += 1
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, 0))
        member = Member(f"s{number + 1}", self._addresses[number], listener.getsockname()[1])
        self.members.append(member)
        imported = asyncio.Event()

        def hear(line: str) -> None:
            word, _, rest = line.partition(" ")
            if word == "imported":
                member.imported = float(rest)
                imported.set()

        with listener:
            prefix = ("ip", "netns", "exec", self._namespaces[number]) if self._namespaces else ()
            process = await asyncio.create_subprocess_exec(
                *(*prefix, sys.executable, "-m", "bench.member"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(listener.fileno(),),
                start_new_session=True,
                cwd=ROOT,
            )
            member.child = Child(process, self._said.append, hear)
            assert process.stdin is not None, "asked for above"
            process.stdin.write(msgspec.json.encode(self._plan(member, listener.fileno())) + b"\n")
            await process.stdin.drain()
        done, _ = await asyncio.wait(
            [asyncio.create_task(imported.wait()), asyncio.create_task(member.child.ended())],
            timeout=START_S, return_when=asyncio.FIRST_COMPLETED,
        )  # fmt: skip
        if not done or not imported.is_set():
            raise CannotShow(f"server {member.name} did not start: {member.last_words()}")
        return member

    async def ready(self, member: Member) -> None:
        """Wait until it answers; nothing is asked of it that could change anything."""
        browser = Browser(member.port)
        async with asyncio.timeout(START_S):
            while (status := (await browser.ask("GET", "/bench/size"))[0]) != 200:
                if status or not (member.child and member.child.is_alive):
                    raise CannotShow(f"server {member.name} does not answer: {member.last_words()}")
                await asyncio.sleep(0.002)
        browser.close()

    async def fill(self, count: int, sample: int) -> list[tuple[Member, dict[bytes, bytes]]]:
        """So many sessions, made at all servers alike; returns the cookies of some, and where these were made."""
        found = []
        for at in range(0, count, FILL_AT_ONCE):
            now = min(FILL_AT_ONCE, count - at)
            for member, share, part in zip(
                self.members, _shares(now, len(self.members)), _shares(sample, len(self.members)), strict=True
            ):
                path = f"/bench/fill?count={share}&sample={0 if at else part}"
                told = await member.ask(path, "POST")
                found += [(member, _jar(cookies)) for cookies in told["cookies"]]
        return found

    async def kill(self, member: Member) -> None:
        """End one without a word."""
        assert member.child is not None, "only what was started is killed"
        await member.child.kill()
        self.members.remove(member)

    async def stop(self) -> None:
        """End every process at once."""
        await asyncio.gather(*(member.child.kill() for member in self.members if member.child is not None))

    def _plan(self, member: Member, descriptor: int) -> ServerPlan:
        known = ",".join(each.address for each in self.members)
        return ServerPlan(
            name=member.name,
            descriptor=descriptor,
            parent_pid=os.getpid(),
            url=f"{self.strategy}://?members={known}&me={member.address}",
            secret=self.secret,
            cookie_name="sid",
            token="",
            strategy=self.strategy,
            routing="round-robin",
            dashboard="",
        )


@contextlib.asynccontextmanager
async def cluster(
    strategy: str, count: int, addresses: Sequence[str] = (), namespaces: Sequence[str] = ()
) -> AsyncIterator[Cluster]:
    """So many servers that all answer and know each other; there may be more addresses, for servers to come."""
    made = Cluster(strategy, addresses or [f"{HOST}:{port}" for port in node_ports(count)], namespaces)
    try:
        for _ in range(count):
            await made.ready(await made.start())
        yield made
    finally:
        await made.stop()


def _jar(cookies: list[str]) -> dict[bytes, bytes]:
    """`NAME=VALUE` each, as a browser keeps them."""
    return {name: value for name, _, value in (cookie.encode().partition(b"=") for cookie in cookies)}


def _shares(count: int, among: int) -> list[int]:
    """A number dealt out."""
    return [count // among + (place < count % among) for place in range(among)]


def node_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which this part of them lies; 0 where there are none."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)] if values else 0.0
