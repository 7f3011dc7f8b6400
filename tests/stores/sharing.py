"""Servers of one process that share a store in memory, on one clock."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from sessile.engine import Engine
from sessile.stores.shared import Shared
from tests.fakes import SECRET, FakeClock
from tests.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sessile.session import Session

__all__ = ["Later", "Servers", "count", "ran", "servers_of"]


class Servers:
    """Some servers that share a store in memory, on one clock."""

    def __init__(self, count: int, **settings: Any) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock, has_channel=settings.pop("has_channel", True))
        self.engines = [self._engine(settings) for _ in range(count)]

    def _engine(self, settings: dict[str, Any]) -> Engine:
        keywords: dict[str, Any] = {"url": "redis://memory", "secret": SECRET, **settings}
        engine = Engine(backend=Later(), clock_ms=self.clock, sweeps=False, **keywords)
        engine.backend = Shared(engine, self.store)
        return engine

    def backend(self, number: int) -> Shared:
        backend = self.engines[number].backend
        assert isinstance(backend, Shared)
        return backend


class Later(Shared):
    """Stands in while the engine is made."""

    def __init__(self) -> None:
        pass


@contextlib.asynccontextmanager
async def servers_of(count: int, **settings: Any) -> AsyncIterator[Servers]:
    servers = Servers(count, **settings)
    for number in range(count):
        await servers.backend(number).start()
    await asyncio.sleep(0)
    servers.store.trips()
    try:
        yield servers
    finally:
        servers.store.fails = ""
        servers.store.gate = None
        for number in range(count):
            await servers.backend(number).stop()


def count(session: Session) -> int:
    session["n"] = session.get("n", 0) + 1
    value: int = session["n"]
    return value


def ran(test: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test

    asyncio.run(bounded())
