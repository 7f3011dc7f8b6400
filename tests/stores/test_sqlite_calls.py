"""A statement to SQLite is one call of its thread."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import aiosqlite
import pytest

from sessile.delta import Outcome
from sessile.record import ENDED
from sessile.stores.sql import SqlStore
from sessile.stores.sqlite_calls import connect
from tests.record_model import B
from tests.stores.rig import fresh_key, new, ran, write

if TYPE_CHECKING:
    from pathlib import Path


def test_a_trip_is_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Birth, question, change and end: each hands over to another thread once, since each time may wait for the interpreter."""
    calls = []
    execute: Any = aiosqlite.Connection._execute

    async def counted(self: aiosqlite.Connection, call: Any, *arguments: Any) -> Any:
        calls.append(call)
        return await execute(self, call, *arguments)

    async def test() -> None:
        store = SqlStore(
            f"sqlite:///{tmp_path / 'x.db'}", timeout_s=20.0, tombstone_keep_ms=600_000, rotation_grace_ms=10_000
        )
        await store.open()
        monkeypatch.setattr(aiosqlite.Connection, "_execute", counted)
        key, base = fresh_key(), new(a=b"1")
        made = []
        _, delta = write(base, key, B, b=b"2")
        for trip in (
            store.merge(key, base, "one"),
            store.fetch(key, None),
            store.apply(delta, "one"),
            store.fetch(key, {}),
            store.touch({key: 0}),
        ):
            await trip
            made.append(len(calls))
            calls.clear()
        assert made == [1] * 5
        assert (await store.merge(key, base.end(ENDED, 0), "one")).outcome is Outcome.APPLIED
        await store.close()

    ran(test)


def test_what_fails_leaves_the_connection_as_it_was(tmp_path: Path) -> None:
    """The error is SQLite's own, and the next statement is executed."""

    async def test() -> None:
        async with connect(str(tmp_path / "x.db"), timeout_s=1.0) as connection:
            cursor: Any = connection.cursor()
            with pytest.raises(sqlite3.OperationalError, match="no such table"):
                await cursor.execute("SELECT * FROM missing")
            await cursor.execute("CREATE TABLE t (a)")
            await cursor.execute("INSERT INTO t VALUES (?), (?)", (1, 2))
            assert (cursor.rowcount, cursor.lastrowid, cursor.description) == (2, 2, None)
            await cursor.execute("SELECT a FROM t ORDER BY a")
            assert [row[0] for row in cursor.description] == ["a"] and await cursor.fetchall() == [(1,), (2,)]
            await cursor.close()
            assert await cursor.fetchall() == []

    ran(test)
