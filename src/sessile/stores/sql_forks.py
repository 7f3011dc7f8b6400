"""What becomes of a pool's connections in a fork.

Connections to a server are cut off in the child, as everywhere (`sessile.forks`). SQLite has locks on a file instead. The kernel
does not pass them on to a child, but a fork copies the counts of them in the library's memory. A child that opens the file with
inherited handles still open counts locks that it does not hold. Its changes could go to a log that the parent deletes as the last
known user of the file (sqlite.org/howtocorrupt.html, §2.6). So SQLite's threads are stopped between two calls while the fork
takes place, and the child closes its inherited handles before it opens anything: then the counts are right. The parent keeps its
locks.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from sessile.forks import call_after_fork, cut_off, cut_off_transport, keep_forever

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["Inheritance"]

STOPPED_S_MAX: Final = 5.0
"""A stopped thread continues after this time at the latest, whatever became of the fork."""


class Inheritance:
    """The connections of a pool, which a forked child inherits and drops.

    Args:
        engine: the engine that owns the pool; this object lives as long as it does.
        timeout_s: the longest that a statement takes, and so the longest that a fork waits for one.
    """

    def __init__(self, engine: AsyncEngine, timeout_s: float) -> None:
        from sqlalchemy import event  # noqa: PLC0415  # an extra

        self._engine = engine
        self._timeout_s = timeout_s
        self._connections: dict[int, Any] = {}
        """The driver's connections, by the `id` of the object that stands for each in the pool."""
        self._in_use: set[int] = set()
        self._stopped: set[int] = set()
        """The connections whose thread is stopped for the fork under way."""
        pool = engine.sync_engine
        event.listen(pool, "connect", self._made)
        event.listen(pool, "close", self._closed)
        event.listen(pool, "close_detached", self._closed)
        event.listen(pool, "checkout", self._taken)
        event.listen(pool, "checkin", self._returned)
        call_after_fork(self._after_fork, before=self._before_fork)

    def _made(self, connection: Any, _: object) -> None:
        self._connections[id(connection)] = connection.driver_connection

    def _closed(self, connection: Any, *_: object) -> None:
        self._connections.pop(id(connection), None)
        self._in_use.discard(id(connection))

    def _taken(self, connection: Any, *_: object) -> None:
        self._in_use.add(id(connection))

    def _returned(self, connection: Any, _: object) -> None:
        self._in_use.discard(id(connection))

    def _before_fork(self) -> Callable[[], None]:
        """Stop SQLite's threads between two calls."""
        go_on = threading.Event()
        stopping: list[tuple[int, threading.Event]] = []
        for number, driver in list(self._connections.items()):
            if hasattr(driver, "_tx"):
                stopping.append((number, threading.Event()))
                driver._tx.put_nowait((None, _stop(stopping[-1][1], go_on)))  # noqa: SLF001  # as SQLAlchemy does
        until = time.monotonic() + self._timeout_s
        self._stopped = {number for number, stopped in stopping if stopped.wait(max(until - time.monotonic(), 0))}
        return go_on.set

    def _after_fork(self) -> None:
        """Cut off connections to servers, close SQLite's handles, and keep everything else from being finalised."""
        for number, driver in self._connections.items():
            if hasattr(driver, "_tx"):
                if number in self._stopped or number not in self._in_use:
                    handle, driver._connection = driver._connection, None  # noqa: SLF001  # its own close() asks its thread
                    if handle is not None:
                        handle.close()
            elif hasattr(driver, "pgconn"):
                if not driver.closed:
                    cut_off(driver.pgconn.socket)
            elif (writer := getattr(driver, "_writer", None)) is not None and not writer.transport.is_closing():
                cut_off_transport(writer.transport)
        if self._connections:
            keep_forever(self._engine, self._connections)
        self._connections, self._in_use, self._stopped = {}, set(), set()


def _stop(stopped: threading.Event, go_on: threading.Event) -> Callable[[], None]:
    def stop() -> None:
        stopped.set()
        go_on.wait(STOPPED_S_MAX)

    return stop
