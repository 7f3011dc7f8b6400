"""Real sockets for the balancer's tests: scripted origins, a worker between, and a client that speaks bytes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, ParamSpec

import pytest
import uvloop

from sessile.balancer import client
from sessile.balancer.settings import BalancerSettings, ServerAddress
from sessile.balancer.worker import Worker

DEADLINE_S = 20.0
P = ParamSpec("P")
with_stand_ins = pytest.mark.skipif(
    not str(client.__file__).endswith(".py"), reason="compiled classes take no stand-ins for each other"
)
Handler = Callable[["Origin", bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test to its end on the loop the balancer runs on; none takes longer than the deadline."""
    return within(DEADLINE_S * 3)(test)


def within(seconds: float) -> Callable[[Callable[P, Coroutine[Any, Any, None]]], Callable[P, None]]:
    """`on_loop` for a test that may take longer."""

    def wrap(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
        @functools.wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            async def bounded() -> None:
                async with asyncio.timeout(seconds):
                    await test(*args, **kwargs)

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(bounded())

        return run

    return wrap


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, with a deadline; the message says what did not come."""
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"still not: {what}"
        await asyncio.sleep(0.005)


async def say_name(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The plain answer: who served it."""
    body = origin.name.encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


@dataclass
class Origin:
    """A server that does what its handler says, and remembers the heads it got."""

    name: str = "s1"
    handler: Handler = say_name
    health: bytes | None = b"200 OK"
    """The status it answers checks with; None: it takes them and says nothing."""
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> Origin:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Be gone as a killed process is: the port is closed, connections are reset."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._requests(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_counted = False
        while not writer.transport.is_closing():
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET /healthz "):
                if self.health is None:
                    await asyncio.Event().wait()
                writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % (self.health or b""))
                await writer.drain()
                writer.close()
                return
            if not is_counted:
                is_counted = True
                self.connections += 1
            self.heads.append(head)
            await self.handler(self, head, reader, writer)


@dataclass
class Answer:
    """A response as the client saw it."""

    status: int
    head: bytes
    body: bytes

    def fields(self, name: str) -> list[str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [line.partition(":")[2].strip() for line in lines if line.partition(":")[0].lower() == name.lower()]


class Browser:
    """A client connection that sends the bytes it is told and reads responses by their framing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def answer(self, *, is_head: bool = False) -> Answer:
        head = await self.head()
        status = int(head[9:12])
        answer = Answer(status, head, b"")
        if is_head or status < 200 or status in {204, 304}:
            return answer
        if answer.fields("transfer-encoding") == ["chunked"]:
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                answer.body += await self.reader.readexactly(size)
                assert await self.reader.readexactly(2) == b"\r\n"
            assert await self.reader.readexactly(2) == b"\r\n"
        elif length := answer.fields("content-length"):
            answer.body = await self.reader.readexactly(int(length[0]))
        else:
            answer.body = await self.reader.read()
        return answer

    async def ask(self, target: str = "/", *, method: str = "GET", fields: str = "", body: bytes = b"") -> Answer:
        """One request on this connection; `fields` are lines that end in CRLF."""
        if body:
            fields += f"Content-Length: {len(body)}\r\n"
        self.send(f"{method} {target} HTTP/1.1\r\nHost: example.com\r\n{fields}\r\n".encode() + body)
        return await self.answer(is_head=method == "HEAD")

    def close(self) -> None:
        self.writer.transport.abort()

    def reset(self) -> None:
        """Leave as a killed browser does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


@dataclass
class Balanced:
    """A running worker and its port."""

    worker: Worker
    port: int
    log: list[tuple[str, dict[str, object]]]
    _open: list[Browser] = field(default_factory=list)

    async def browser(self) -> Browser:
        browser = Browser(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20))
        self._open.append(browser)
        return browser

    async def ask(self, target: str = "/", *, method: str = "GET", fields: str = "", body: bytes = b"") -> Answer:
        """One request on a connection of its own."""
        browser = await self.browser()
        try:
            return await browser.ask(target, method=method, fields=fields, body=body)
        finally:
            browser.close()

    async def talk(self, data: bytes) -> bytes:
        """Send bytes, return all that comes back until the balancer closes."""
        browser = await self.browser()
        browser.send(data)
        try:
            return await browser.reader.read()
        finally:
            browser.close()

    def states(self) -> dict[str, str]:
        return {name: server.health.state.value for name, server in self.worker.servers.by_name.items()}

    def close(self) -> None:
        for browser in self._open:
            browser.close()


@asynccontextmanager
async def balanced(*origins: Origin, **settings: Any) -> AsyncIterator[Balanced]:
    """A worker in front of these origins, started and stopped; settings as for BalancerSettings."""
    for origin in origins:
        if not origin.port:
            await origin.start()
    servers = tuple(ServerAddress(origin.name, "127.0.0.1", origin.port) for origin in origins)
    log: list[tuple[str, dict[str, object]]] = []
    given: dict[str, Any] = {"secrets": ("test secret",), "grace_s": 0.2, "servers": servers, **settings}
    worker = Worker(BalancerSettings(**given), lambda event, fields: log.append((event, fields)), Random(1))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        await worker.start(sock)
        running = Balanced(worker, sock.getsockname()[1], log)
        try:
            yield running
        finally:
            running.close()
            await worker.stop()
            for origin in origins:
                await origin.stop()


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
