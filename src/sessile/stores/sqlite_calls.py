"""SQLite in one call of its thread for each statement.

aiosqlite makes one call to open a cursor, one to execute, one to fetch and one to close. Each hands over to another thread and
back, and in a process whose threads compute, each waits for the interpreter's lock.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Self

import aiosqlite

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

__all__ = ["connect"]

_Rows = list[tuple[Any, ...]]


def connect(path: str, *, timeout_s: float) -> _Connection:
    """A connection that is made when it is awaited.

    Args:
        path: of the file.
        timeout_s: how long SQLite waits for another connection's lock.
    """
    # A forked child closes what it inherited, in a thread of its own.
    connection = _Connection(lambda: sqlite3.connect(path, timeout=timeout_s, check_same_thread=False), 64)
    connection._thread.daemon = True  # noqa: SLF001  # as SQLAlchemy does
    return connection


class _Cursor:
    """A cursor that has all its rows, and is closed, when its statement was executed."""

    arraysize = 1

    def __init__(self, connection: _Connection) -> None:
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self._connection = connection
        self._rows: _Rows = []

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Self:
        made = await self._connection.once(sql, parameters)
        self.description, self.rowcount, self.lastrowid, self._rows = made
        return self

    async def fetchall(self) -> _Rows:
        return self._rows

    async def close(self) -> None:
        self._rows = []


class _Connection(aiosqlite.Connection):
    """What SQLAlchemy uses of a connection, with these cursors."""

    _stopped: asyncio.Future[Any] | None = None

    def cursor(self) -> Any:
        return _Cursor(self)

    def stop(self) -> asyncio.Future[Any] | None:
        self._stopped = super().stop()
        return self._stopped

    async def give_up(self) -> None:
        """Close it, whether it was made or not, and wait for its thread: the loop may be closed the next moment."""
        if self._stopped is None:
            self.stop()
        if self._stopped is not None:
            await self._stopped

    async def once(self, sql: str, parameters: Sequence[Any]) -> tuple[Any, int, int | None, _Rows]:
        """The description of a statement's result, how many rows it changed, its last row's number, and its rows."""
        execute: Any = self._execute  # it has no types
        made: tuple[Any, int, int | None, _Rows] = await execute(_made, self._conn, sql, parameters)
        return made


def _made(connection: sqlite3.Connection, sql: str, parameters: Sequence[Any]) -> tuple[Any, int, int | None, _Rows]:
    cursor = connection.execute(sql, parameters)
    try:
        rows = cursor.fetchall() if cursor.description else []
        return cursor.description, cursor.rowcount, cursor.lastrowid, rows
    finally:
        cursor.close()
