from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.dialects.postgresql import psycopg as postgresql

from sessile.delta import Outcome
from sessile.errors import StoreError
from sessile.record import REPLACED, ROTATED
from sessile.stores.base import FetchStatus
from sessile.stores.sql import SqlStore
from sessile.stores.sql_schema import schema_sql
from sessile.stores.sql_statements import TOUCHES_MAX, Statements
from tests.stores.rig import LIFE_MS, SLOP_MS, fresh_key, new, ran, write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.stores.postgres import Postgres

TABLE = "sessile_sessions"


class Bench:
    """A store on a file, and the file seen without it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = SqlStore(f"sqlite:///{path}", timeout_s=20, tombstone_keep_ms=600_000, rotation_grace_ms=60_000)

    def sql(self, statement: str, *values: Any) -> list[Any]:
        connection = sqlite3.connect(self.path)
        with connection:
            found = connection.execute(statement, values).fetchall()
        connection.close()
        return found

    def run(self, body: Callable[[], Awaitable[None]]) -> None:
        async def opened() -> None:
            await self.store.open()
            try:
                await body()
            finally:
                await self.store.close()

        ran(opened)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "sessions.db")


DRIVERS: list[Any] = [sqlite, postgresql, mysql]


@pytest.mark.parametrize("dialect", [driver.dialect() for driver in DRIVERS], ids=lambda it: it.name)
def test_every_dialect_can_say_everything(dialect: Any) -> None:
    """Each statement compiles, and those that change a content name the revision it was made on."""
    say = Statements(dialect.name, TABLE)
    for name in ("check", "fetch", "insert", "write", "join", "end", "strip"):
        text = str(getattr(say, name).compile(dialect=dialect))
        if name in {"write", "join", "end", "strip"}:
            assert "known_revision" in text or text.count("revision") == 2
    others: list[Any] = [say.touch({b"k" * 16: 1})[0], say.rotated(5), say.put_off(5), say.remove(5)]
    for statement in others:
        assert TABLE in str(statement.compile(dialect=dialect))
    assert ("SKIP LOCKED" in str(say.remove(5).compile(dialect=dialect))) is (dialect.name == "postgresql")


def test_touches_have_few_sizes() -> None:
    """However many sessions are touched, the database sees only a few statements."""
    say = Statements("postgresql", TABLE)
    texts = {str(say.touch({b"%16d" % at: at for at in range(n)})[0]) for n in range(1, TOUCHES_MAX + 1)}
    assert len(texts) == 4


def test_times_are_on_the_database_s_clock(bench: Bench) -> None:
    """In milliseconds since 1970, whole ones."""

    async def body() -> None:
        await bench.store.merge(fresh_key(), new(a=b"1"), "one")
        ((touched_ms, deadline_ms),) = bench.sql(f"SELECT touched_ms, deadline_ms FROM {TABLE}")
        assert isinstance(touched_ms, int) and isinstance(deadline_ms, int)
        assert abs(touched_ms - time.time() * 1000) < SLOP_MS
        assert deadline_ms - touched_ms == 1_000_000

    bench.run(body)


def test_requests_leave_the_index_on_times_alone(bench: Bench) -> None:
    """Writes, touches and merges of a live session move its last use, and not when it is looked at."""
    key, record = fresh_key(), new(a=b"1").shift(-10_000)
    columns = f"SELECT due_ms, touched_ms FROM {TABLE}"

    async def body() -> None:
        await bench.store.merge(key, record, "one")
        ((due_ms, touched_ms),) = bench.sql(columns)
        after, delta = write(record, key, 5, a=b"2")
        await bench.store.apply(delta, "one")
        await bench.store.touch({key: 0})
        await bench.store.merge(key, write(after, key, 6, a=b"3")[0].touch(0), "one")
        assert bench.sql(columns)[0][0] == due_ms
        assert bench.sql(columns)[0][1] > touched_ms + 9_000

    bench.run(body)


def test_a_touch_is_no_news(bench: Bench) -> None:
    """Neither revision nor digest changes, so what is remembered stays true."""
    key, record = fresh_key(), new(a=b"1").shift(-10_000)
    columns = f"SELECT revision, digest FROM {TABLE}"

    async def body() -> None:
        await bench.store.merge(key, record, "one")
        before = bench.sql(columns)
        await bench.store.touch({key: 0})
        assert bench.sql(columns) == before
        assert (await bench.store.fetch(key, record.version)).status is FetchStatus.CURRENT

    bench.run(body)


def test_what_is_over_is_removed_in_batches(bench: Bench) -> None:
    """No more at once than was asked for; what was used meanwhile gets another turn, and what lives stays."""

    async def body() -> None:
        over, used, lives = ([fresh_key() for _ in range(n)] for n in (25, 3, 2))
        for key in (*over, *used):
            await bench.store.merge(key, new(a=b"1").shift(-50_000), "one")
        for key in lives:
            await bench.store.merge(key, new(a=b"1"), "one")
        await bench.store.touch(dict.fromkeys(used, 0))
        bench.sql(f"UPDATE {TABLE} SET due_ms = due_ms - 40000")
        bench.sql(
            f"UPDATE {TABLE} SET touched_ms = touched_ms - 40000 WHERE session_key IN ({','.join('?' * 25)})", *over
        )
        assert [await bench.store.expire(10) for _ in range(4)] == [10, 10, 5, 0]
        assert {key for (key,) in bench.sql(f"SELECT session_key FROM {TABLE}")} == {*used, *lives}
        now_ms = time.time() * 1000
        assert all(due_ms > now_ms for (due_ms,) in bench.sql(f"SELECT due_ms FROM {TABLE}"))

    bench.run(body)


def test_a_rotated_session_loses_its_fields_in_the_table_too(bench: Bench) -> None:
    """Once its grace is over; its tombstone stays until well after its deadline, and one that cannot be read as long."""

    async def body() -> None:
        keys = [fresh_key() for _ in range(2)]
        for key in keys:
            await bench.store.merge(key, new(a=b"of the user").end(ROTATED, 0), "one")
        bench.sql(f"UPDATE {TABLE} SET record = x'00' WHERE session_key = ?", keys[1])
        assert await bench.store.expire(10) == 0
        assert b"of the user" in bench.sql(f"SELECT record FROM {TABLE} WHERE session_key = ?", keys[0])[0][0]
        bench.sql(f"UPDATE {TABLE} SET due_ms = due_ms - 60000, ended_ms = ended_ms - 60000")
        assert await bench.store.expire(10) == 0
        assert [state for (state,) in bench.sql(f"SELECT state FROM {TABLE}")] == [REPLACED, REPLACED]
        assert b"of the user" not in bench.sql(f"SELECT record FROM {TABLE} WHERE session_key = ?", keys[0])[0][0]
        assert await bench.store.expire(10) == 0
        bench.sql(f"UPDATE {TABLE} SET due_ms = due_ms - 600000")
        assert await bench.store.expire(10) == 0
        bench.sql(f"UPDATE {TABLE} SET due_ms = due_ms - ?", LIFE_MS)
        assert await bench.store.expire(10) == 2

    bench.run(body)


def test_a_row_removed_and_made_anew_is_not_the_old_one(bench: Bench) -> None:
    """What is remembered of the one does not overwrite the other."""
    key, record = fresh_key(), new(a=b"1")

    async def body() -> None:
        await bench.store.merge(key, record, "one")
        bench.sql(f"DELETE FROM {TABLE}")
        other = new(b=b"of another life")
        elsewhere = SqlStore(f"sqlite:///{bench.path}", timeout_s=20, tombstone_keep_ms=1, rotation_grace_ms=1)
        await elsewhere.open()
        await elsewhere.merge(key, other, "one")
        await elsewhere.close()
        _, delta = write(record, key, 7, a=b"2")
        assert (await bench.store.apply(delta, "one")).outcome is Outcome.APPLIED
        _, held = await bench.store.fetch(key, None)
        assert held is not None and set(held.fields) == {"a", "b"}

    bench.run(body)


def test_a_write_does_not_revive_what_is_over(bench: Bench) -> None:
    """A row that ran out of time and was not removed yet is gone for a write, though it is remembered with its revision."""
    key, record = fresh_key(), new(a=b"1")
    _, delta = write(record, key, 5, a=b"2")

    async def body() -> None:
        await bench.store.merge(key, record, "one")
        assert key in bench.store._lately
        bench.sql(f"UPDATE {TABLE} SET touched_ms = touched_ms - 70000")
        assert (await bench.store.apply(delta, "one")).outcome is Outcome.NEED
        assert (await bench.store.fetch(key, None)).status is FetchStatus.NONE
        await bench.store.touch({key: 0})
        assert (await bench.store.fetch(key, None)).status is FetchStatus.NONE

    bench.run(body)


def test_a_row_of_another_session_is_refused(bench: Bench) -> None:
    """A connection that gives another session's row is closed and counted, and the question is asked again."""
    ann, bob = fresh_key(), fresh_key()

    async def body() -> None:
        for key, name in ((ann, b"ann"), (bob, b"bob")):
            await bench.store.merge(key, new(name=name), "one")
        engine = bench.store._engine()
        shifted = [1]

        @sa.event.listens_for(engine, "before_cursor_execute", retval=True)
        def shift(*said: Any) -> tuple[Any, Any]:
            _, _, statement, parameters, _, _ = said
            if shifted and statement.startswith("SELECT"):
                shifted.pop()
                parameters = tuple(ann if value == bob else value for value in parameters)
            return statement, parameters

        _, found = await bench.store.fetch(bob, None)
        assert found is not None and found.fields["name"].value == b"bob"
        assert bench.store.counts["misdirected"] == 1 and not shifted
        shifted[:] = [1] * 3
        with pytest.raises(StoreError, match="another question"):
            await bench.store.fetch(bob, None)
        assert bench.store.counts["misdirected"] == 4

    bench.run(body)


@pytest.mark.needs("postgres")
def test_servers_remove_at_the_same_time(postgres: Postgres) -> None:
    """Two that work at once remove each row once, and neither waits for a row that is being written."""
    url, cluster = postgres.url(), "sweepers"
    postgres.query(schema_sql(url, cluster))

    async def body() -> None:
        stores = [
            SqlStore(url, cluster=cluster, timeout_s=20, tombstone_keep_ms=600_000, rotation_grace_ms=1_000)
            for _ in range(2)
        ]
        for store in stores:
            await store.open()
        keys = [fresh_key() for _ in range(60)]
        await asyncio.gather(*(stores[0].merge(key, new(a=b"1").shift(-70_000), "one") for key in keys))
        removed = [await asyncio.gather(*(store.expire(10) for store in stores)) for _ in range(6)]
        assert sum(map(sum, removed)) == 60
        for store in stores:
            await store.close()

    ran(body)
    assert postgres.query("SELECT count(*) FROM sessile_sessions_sweepers") == "0"
