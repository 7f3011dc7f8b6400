"""The strategies and stores of the shows about ended sessions; the stores are real.

Each strategy is a name, its settings and, if it has one, its store. A store has a URL and can be stopped with `stop` until `go_on`;
meanwhile it takes no change. A `Relay` stands between one server and a store and can be cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self

from bench.browser import HOST
from bench.show import CannotShow
from sessile.stores.sql_schema import schema_sql
from tests.conftest import SEARCHED
from tests.stores.postgres import Postgres
from tests.stores.redis_server import REDIS, Server, where_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["STRATEGIES", "Redis", "Relay", "Store", "Strategy", "opened"]

CHUNK_BYTES: Final = 65_536


class Store(Protocol):
    """A store that runs."""

    url: str
    port: int
    """0 for a file."""

    def stop(self) -> None:
        """Take no change from now on."""
        ...

    def go_on(self) -> None:
        """Answer again, with all data."""
        ...


class Redis:
    """A Redis that keeps its data on disk; `stop` kills it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = server.url
        self.port = server.port

    def stop(self) -> None:
        self.server.kill()

    def go_on(self) -> None:
        self.server.again()


class Frozen(Redis):
    """A Redis that `stop` suspends (SIGSTOP): its sockets stay open."""

    def stop(self) -> None:
        self.server.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.server.process.send_signal(signal.SIGCONT)


class Sql:
    """A PostgreSQL, killed as by a power cut."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self.url = server.url()
        self.port = server.port

    def stop(self) -> None:
        self._server.kill()

    def go_on(self) -> None:
        self._server.start()


class File:
    """An SQLite file. While it is stopped, another connection holds the write lock; reads go on, since its journal is a WAL."""

    port = 0

    def __init__(self, folder: str) -> None:
        self._path = f"{folder}/sessions.db"
        self.url = f"sqlite:///{self._path}"
        self._holder: sqlite3.Connection | None = None

    def stop(self) -> None:
        self._holder = sqlite3.connect(self._path, isolation_level=None)
        self._holder.execute("PRAGMA busy_timeout = 5000")
        self._holder.execute("BEGIN EXCLUSIVE")

    def go_on(self) -> None:
        assert self._holder is not None, "it was stopped"
        self._holder.execute("ROLLBACK")
        self._holder.close()
        self._holder = None


@contextlib.contextmanager
def _redis(kind: type[Redis] = Redis, *options: str) -> Iterator[Redis]:
    if where_is(REDIS) is None:
        raise CannotShow(f"{REDIS} is not installed; try: sh scripts/apt.sh {REDIS}")
    with contextlib.ExitStack() as stack:
        server = Server(REDIS, "--appendonly", "yes", "--appendfsync", "no", *options)
        stack.callback(server.end)
        stack.callback(server.process.send_signal, signal.SIGCONT)
        server.wait()
        yield kind(server)


@contextlib.contextmanager
def _postgres() -> Iterator[Sql]:
    if shutil.which("postgres", path=SEARCHED) is None:
        raise CannotShow("postgres is not installed; try: sh scripts/apt.sh postgres")
    with tempfile.TemporaryDirectory(prefix="sessile-ends-") as folder:
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder) / "server")
        server.start()
        try:
            server.query(schema_sql("postgresql://"))
            yield Sql(server)
        finally:
            server.stop()


@contextlib.contextmanager
def _sqlite() -> Iterator[File]:
    with tempfile.TemporaryDirectory(prefix="sessile-ends-") as folder:
        yield File(folder)


@contextlib.contextmanager
def _no_store() -> Iterator[None]:
    yield None


@dataclass(frozen=True)
class Strategy:
    """One strategy, or one store with a way to use it."""

    name: str
    scheme: str
    """The URL, where there is no store."""
    store: Callable[[], contextlib.AbstractContextManager[Store | None]] = _no_store
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def is_cluster(self) -> bool:
        return self.scheme in {"all-to-all", "primary-backup"}

    @property
    def is_store(self) -> bool:
        return self.store is not _no_store


def _on_redis(name: str, cache: str, kind: type[Redis] = Redis, *options: str) -> Strategy:
    return Strategy(name, "redis", lambda: _redis(kind, *options), {"cache": cache})


STRATEGIES: Final = {
    each.name: each
    for each in (
        Strategy("sticky", "sticky"),
        Strategy("all-to-all", "all-to-all"),
        Strategy("primary-backup", "primary-backup"),
        _on_redis("redis leased", "leased"),
        _on_redis("redis checked", "checked"),
        _on_redis("redis off", "off"),
        _on_redis("redis frozen", "leased", Frozen),
        _on_redis("redis small", "leased", Redis, "--maxmemory-policy", "volatile-ttl"),
        _on_redis("redis small checked", "checked", Redis, "--maxmemory-policy", "volatile-ttl"),
        Strategy("sqlite", "sqlite", _sqlite),
        Strategy("postgresql", "postgresql", _postgres),
    )
}


@contextlib.contextmanager
def opened(strategy: Strategy) -> Iterator[tuple[str, Store | None]]:
    """The store of a strategy, running, and its URL."""
    with strategy.store() as store:
        yield f"{strategy.scheme}://" if store is None else store.url, store


class Relay:
    """Stands between one server and a store. Everything passes until it is cut; then nothing does, and connections stay open."""

    def __init__(self, behind: int) -> None:
        self.port = 0
        """Where it is reached."""
        self._behind = behind
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._admit, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None, "entered"
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        self._is_open.clear()

    def heal(self) -> None:
        """Pass on what was held back, late, as TCP does."""
        self._is_open.set()

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "streams are served by tasks"
        self._tasks.add(task)
        far_writer: asyncio.StreamWriter | None = None
        try:
            await self._is_open.wait()
            far_reader, far_writer = await asyncio.open_connection(HOST, self._behind)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pass_on(reader, far_writer))
                ways.create_task(self._pass_on(far_reader, writer))
        except (OSError, asyncio.CancelledError, ExceptionGroup):
            pass  # one side hung up, or all is over
        finally:
            writer.transport.abort()
            if far_writer is not None:
                far_writer.transport.abort()
            self._tasks.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._is_open.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionError("hung up")
