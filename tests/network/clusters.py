"""Engines of one process that are members of a cluster, each on a port of its own: real sockets, one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

from sessile.engine import Engine
from sessile.network.cluster import Cluster
from tests.fakes import SECRET, FakeBrowser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sessile.session import Session

__all__ = ["Tab", "cluster_of", "engines_of", "free_ports", "ran", "until"]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def engines_of(count: int, strategy: str = "all-to-all", *, tls: str = "off", **settings: Any) -> list[Engine]:
    """So many members that know of each other, none started."""
    ports = free_ports(count)
    members = [f"127.0.0.1:{port}" for port in ports]
    url = f"{strategy}://"
    keywords: dict[str, Any] = {"secret": SECRET, "tls": tls, "members": members, "sweeps": False, **settings}
    return [Engine(url=url, me=me, **keywords) for me in members]


@contextlib.asynccontextmanager
async def cluster_of(count: int, strategy: str = "all-to-all", **settings: Any) -> AsyncIterator[list[Engine]]:
    """So many members, joined; all are stopped when this is left."""
    engines = engines_of(count, strategy, **settings)
    try:
        await asyncio.gather(*(backend_of(engine).start() for engine in engines))
        yield engines
    finally:
        await asyncio.gather(*(kill(engine) for engine in engines))


def backend_of(engine: Engine) -> Cluster:
    assert isinstance(engine.backend, Cluster)
    return engine.backend


async def kill(engine: Engine) -> None:
    """End without a word to anybody, as a process that is killed does."""
    backend = backend_of(engine)
    runtime, backend._runtime, backend.loop = backend._runtime, None, None
    if runtime is not None:
        if backend._discovering is not None:
            backend._discovering.cancel()
        await runtime.close()


class Tab(FakeBrowser):
    """A browser on a running loop."""

    async def ask(self, engine: Engine, handler: Callable[[Session], Any]) -> Any:
        """One request at this member: what its handler returns."""
        headers = (self.header,) if self.cookies else ()
        session = engine.open(headers, is_https=self.is_https)
        await engine.prepare(session)
        result = handler(session)
        steps = engine.commit(session)
        if steps:
            await engine.settle(steps)
        self.keep(engine.cookies(session))
        return result

    async def look(self, engine: Engine) -> dict[str, Any]:  # type: ignore[override]  # it waits
        """What this member shows."""
        shown: dict[str, Any] = await self.ask(engine, dict)
        return shown


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait until it holds; fails when it does not in time."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def ran(test: Any) -> None:
    """Run a test's coroutine, bounded."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(bounded())
