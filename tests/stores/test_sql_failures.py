"""Whatever does not work is one `StoreError`, within the timeout, in one line without a password; and it heals by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from sessile.delta import Outcome
from sessile.errors import StoreError
from sessile.stores.base import FetchStatus
from sessile.stores.sql import LETTING_GO_S, SqlStore
from tests.stores.postgres import PASSWORD, Postgres, own_postgres, unused_port
from tests.stores.rig import fresh_key, new, ran, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from sessile.stores.sql_engine import Connections
    from tests.stores.mariadb import MariaDb

TIMEOUT_S = 1.0
SLACK_S = 10.0
"""A busy machine's; the timeout itself is a tenth of it."""


def store_at(url: str, timeout_s: float = 20.0, *, create: bool | None = None) -> SqlStore:
    return SqlStore(url, timeout_s=timeout_s, tombstone_keep_ms=600_000, rotation_grace_ms=60_000, create=create)


@contextlib.asynccontextmanager
async def opened(store: SqlStore) -> AsyncIterator[SqlStore]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@contextlib.contextmanager
def fails(told: str, within_s: float = TIMEOUT_S + LETTING_GO_S + SLACK_S) -> Iterator[None]:
    """A StoreError that says this, in time, and shows nothing it must not."""
    began_s = time.monotonic()
    with pytest.raises(StoreError, match=told) as failed:
        yield
    assert time.monotonic() - began_s < within_s
    said = str(failed.value)
    assert "\n" not in said and PASSWORD not in said and "INSERT" not in said
    assert failed.value.__suppress_context__ or failed.value.__context__ is None, "the driver's words may show more"


async def everything_fails(store: SqlStore, told: str) -> None:
    """Each call that talks to the database does."""
    key, record = fresh_key(), new(a=b"1")
    for call in (
        lambda: store.fetch(key, None),
        lambda: store.apply(write(record, key, 5, a=b"2")[1], "one"),
        lambda: store.merge(key, record, "one"),
        lambda: store.touch({key: 0}),
        lambda: store.expire(10),
    ):
        with fails(told):
            await call()


# -- SQLite ------------------------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    """Its folder is missing, or it is no database; once that is mended, the same store opens."""

    async def body() -> None:
        path = tmp_path / "folder" / "x.db"
        store = store_at(f"sqlite:///{path}")
        with fails("unable to open database file"):
            await store.open()
        await everything_fails(store, "is not open")
        path.parent.mkdir()
        path.write_bytes(b"no database" * 1_000)
        with fails("not a database"):
            await store.open()
        path.unlink()
        async with opened(store):
            assert (await store.fetch(fresh_key(), None)).status is FetchStatus.NONE

    ran(body)


@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_missing_table(is_wanted: bool, tmp_path: Path) -> None:  # noqa: FBT001  # both ways
    """Is made, or, where that is not wanted, said to be missing, with what to do."""

    async def body() -> None:
        store = store_at(f"sqlite:///{tmp_path / 'x.db'}", create=is_wanted)
        if not is_wanted:
            with fails("no table sessile_sessions, .*`sessile schema sqlite://` prints it"):
                await store.open()
            return
        async with opened(store), opened(store_at(f"sqlite:///{tmp_path / 'x.db'}", create=False)):
            pass

    ran(body)


def test_a_table_of_another_version(tmp_path: Path) -> None:
    """It has other columns: that is said at the start, and not at the first write."""
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.execute("CREATE TABLE sessile_sessions (session_key BLOB PRIMARY KEY, record BLOB)")
    connection.close()

    async def body() -> None:
        with fails("no table sessile_sessions, or not this version's"):
            await store_at(f"sqlite:///{tmp_path / 'x.db'}", create=False).open()

    ran(body)


def test_a_database_locked_by_somebody_else(tmp_path: Path) -> None:
    """Readers do not notice; a writer waits for a while and then says so. Afterwards all is well."""

    async def body() -> None:
        async with opened(store_at(f"sqlite:///{tmp_path / 'x.db'}", TIMEOUT_S)) as store:
            key, record = fresh_key(), new(a=b"1")
            await store.merge(key, record, "one")
            other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            assert (await store.fetch(key, None)).status is FetchStatus.RECORD
            with fails("database is locked|did not answer"):
                await store.merge(fresh_key(), record, "one")
            other.execute("ROLLBACK")
            other.close()
            assert (await store.apply(write(record, key, 5, a=b"2")[1], "one")).outcome is Outcome.APPLIED

    ran(body)


def test_writers_of_one_process_do_not_fight(tmp_path: Path) -> None:
    """As many at once as like, each well within the timeout, since they queue."""

    async def body() -> None:
        async with opened(store_at(f"sqlite:///{tmp_path / 'x.db'}")) as store:
            key, record = fresh_key(), new(a=b"1")
            await store.merge(key, record, "one")
            deltas = [write(record, key, writer, {"n": 1})[1] for writer in range(100, 140)]
            await asyncio.gather(*(store.apply(delta, "one") for delta in deltas))
            _, held = await store.fetch(key, None)
            assert held is not None and held.fields["n"].added == 40

    ran(body)


def test_a_full_disk(tmp_path: Path) -> None:
    """Is told as such; what is there can be read."""

    async def body() -> None:
        store = store_at(f"sqlite:///{tmp_path / 'x.db'}")
        make = store._target.make

        def smaller(timeout_s: float) -> Connections:
            from sqlalchemy import event

            connections = make(timeout_s)

            @event.listens_for(connections.engine.sync_engine, "connect")
            def bound(connection: object, _: object) -> None:
                cursor = connection.cursor()  # type: ignore[attr-defined]
                cursor.execute("PRAGMA max_page_count = 40")
                cursor.close()

            return connections

        store._target = store._target._replace(make=smaller)
        async with opened(store):
            key = fresh_key()
            await store.merge(key, new(a=b"1"), "one")
            with fails("database or disk is full"):
                for _ in range(10):
                    await store.merge(fresh_key(), new(a=b"x" * 40_000), "one")
            assert (await store.fetch(key, None)).status is FetchStatus.RECORD

    ran(body)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_file_that_may_only_be_read(tmp_path: Path) -> None:
    """Is told as such."""

    async def body() -> None:
        async with opened(store_at(f"sqlite:///{tmp_path / 'x.db'}")):
            pass
        (tmp_path / "x.db").chmod(0o400)
        async with opened(store_at(f"sqlite:///{tmp_path / 'x.db'}", create=False)) as store:
            with fails("readonly database"):
                await store.merge(fresh_key(), new(a=b"1"), "one")

    ran(body)


def test_a_store_may_be_opened_again(tmp_path: Path) -> None:
    """Once more while it is open, after it was closed, and on another loop when the first has gone."""
    store = store_at(f"sqlite:///{tmp_path / 'x.db'}")
    key, record = fresh_key(), new(a=b"1")

    async def first() -> None:
        await store.open()
        await store.open()
        await store.merge(key, record, "one")
        await store.close()
        await store.close()
        await store.open()
        assert (await store.fetch(key, None)).status is FetchStatus.RECORD
        await store.close()

    async def later() -> None:
        async with opened(store):
            assert (await store.fetch(key, record.version)).status is FetchStatus.CURRENT

    ran(first)
    ran(later)


WRITER = """
import asyncio, sys
from sessile.record import Record
from sessile.stores.sql import SqlStore

async def main():
    store = SqlStore(sys.argv[1], timeout_s=20, tombstone_keep_ms=600_000, rotation_grace_ms=60_000)
    await store.open()
    for number in range(1_000_000):
        key = number.to_bytes(16, "big")
        record = Record.create(now_ms=0, idle_ms=600_000, deadline_ms=900_000).write(1, {"a": b"1"}, now_ms=0)[0]
        await store.merge(key, record, "one")
        print(number, flush=True)

asyncio.run(main())
"""


def test_a_process_that_is_killed_loses_nothing_it_was_told(tmp_path: Path) -> None:
    """What was acknowledged is in the file, and the file is whole."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    with subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 50:
                process.kill()
                break
        last = max([50, *(int(line) for line in process.stdout if line.endswith("\n"))])

    async def body() -> None:
        async with opened(store_at(url)) as store:
            found = [(await store.fetch(number.to_bytes(16, "big"), None)).status for number in range(last + 1)]
            assert set(found) == {FetchStatus.RECORD}

    ran(body)


def test_a_forked_child_has_connections_of_its_own(tmp_path: Path) -> None:
    """It uses none of its parent's, and closes none but by its own half."""

    async def body() -> None:
        store = store_at(f"sqlite:///{tmp_path / 'x.db'}")
        await store.open()
        key, record = fresh_key(), new(a=b"1")
        await store.merge(key, record, "one")
        parents = store._connections
        store._after_fork()
        assert parents is not None
        with fails("is not open"):
            await store.fetch(key, None)
        async with opened(store):
            assert (await store.fetch(key, None)).status is FetchStatus.RECORD
        async with parents.engine.connect() as connection:
            assert (await connection.exec_driver_sql("SELECT count(*) FROM sessile_sessions")).scalar() == 1
        await parents.engine.dispose()

    ran(body)


# -- servers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["postgresql://ann:{}@127.0.0.1:{}/x", "mysql://ann:{}@127.0.0.1:{}/x"])
def test_nobody_listens(url: str) -> None:
    """A refusal is told at once."""

    async def body() -> None:
        with fails("127.0.0.1"):
            await store_at(url.format(PASSWORD, unused_port()), TIMEOUT_S).open()

    ran(body)


@pytest.mark.parametrize("url", ["postgresql://ann:{}@127.0.0.1:{}/x", "mysql://ann:{}@127.0.0.1:{}/x"])
def test_somebody_listens_and_says_nothing(url: str) -> None:
    """Silence is given up, each time within the timeout."""

    async def body() -> None:
        callers: list[asyncio.StreamWriter] = []

        async def swallow(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            callers.append(writer)

        listener = await asyncio.start_server(swallow, "127.0.0.1", 0)
        store = store_at(url.format(PASSWORD, listener.sockets[0].getsockname()[1]), TIMEOUT_S)
        with fails("not answer"):
            await store.open()
        with fails("not answer"):
            await store.open()
        listener.close()
        for writer in callers:
            writer.close()
            await writer.wait_closed()

    ran(body)


@pytest.fixture(scope="module")
def victim() -> Iterator[Postgres]:
    """A server that may be harmed, as long as the same one runs afterwards."""
    with own_postgres() as server:
        yield server


@pytest.mark.needs("postgres")
def test_a_wrong_password(victim: Postgres) -> None:
    """Is refused, and not shown."""

    async def body() -> None:
        with fails("password authentication failed"):
            await store_at(victim.url().replace(PASSWORD, "wrong")).open()

    ran(body)


@pytest.mark.needs("postgres")
def test_a_table_that_must_be_made_by_hand(victim: Postgres) -> None:
    """On a server, `open` makes none unless it is told to; many servers may be told to at the same time."""

    async def body() -> None:
        with fails("no table sessile_sessions, .*`sessile schema postgresql://` prints it"):
            await store_at(victim.url()).open()
        stores = [store_at(victim.url(), create=True) for _ in range(5)]
        await asyncio.gather(*(store.open() for store in stores))
        await asyncio.gather(*(store.close() for store in stores))

    ran(body)


@pytest.mark.needs("postgres")
def test_a_server_that_hangs(victim: Postgres) -> None:
    """Every call ends within the timeout, however many there are; once it goes on, so does the store."""

    async def body() -> None:
        async with opened(store_at(victim.url(), create=True)) as store:
            key, record = fresh_key(), new(a=b"1")
            await store.merge(key, record, "one")
            await asyncio.gather(*(store.fetch(key, None) for _ in range(20)))
            store._timeout_s = TIMEOUT_S
            victim.signal(signal.SIGSTOP)
            try:
                began_s = time.monotonic()
                answers = await asyncio.gather(*(store.fetch(key, None) for _ in range(30)), return_exceptions=True)
                assert all(isinstance(answer, StoreError) for answer in answers)
                await everything_fails(store, "did not answer within 1 s")
                assert time.monotonic() - began_s < 6 * (TIMEOUT_S + LETTING_GO_S) + SLACK_S
            finally:
                victim.signal(signal.SIGCONT)
            store._timeout_s = 20
            assert (await store.apply(write(record, key, 5, a=b"2")[1], "one")).outcome is Outcome.APPLIED

    ran(body)


@pytest.mark.needs("postgres")
def test_a_server_that_was_started_anew() -> None:
    """Nobody notices, though every connection is dead: what was said to one is said again on a fresh one."""

    async def body(server: Postgres) -> None:
        async with opened(store_at(server.url(), create=True)) as store:
            key, record = fresh_key(), new(a=b"1")
            await store.merge(key, record, "one")
            await asyncio.gather(*(store.fetch(key, None) for _ in range(20)))
            server.stop()
            server.start()
            found = await asyncio.gather(*(store.fetch(key, None) for _ in range(20)))
            assert {status for status, _ in found} == {FetchStatus.RECORD}
            server.stop()
            await everything_fails(store, "127.0.0.1")
            server.start()
            assert (await store.apply(write(record, key, 5, a=b"2")[1], "one")).outcome is Outcome.APPLIED

    with own_postgres() as server:
        ran(lambda: body(server))


def read_only(server: Postgres, value: str) -> None:
    """Let a server take no writes, or take them again; returns when it does."""
    server.query(
        "SET default_transaction_read_only = off",
        f"ALTER SYSTEM SET default_transaction_read_only = {value}",
        "SELECT pg_reload_conf()",
    )
    deadline_s = time.monotonic() + SLACK_S
    while server.query("SHOW default_transaction_read_only") != value:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.mark.needs("postgres")
def test_a_server_that_takes_no_writes(victim: Postgres) -> None:
    """It is refused when a connection is made; and one that turns read-only loses those that it had."""

    async def body() -> None:
        async with opened(store_at(victim.url(), create=True)) as store:
            key, record = fresh_key(), new(a=b"1")
            await store.merge(key, record, "one")
            read_only(victim, "on")
            try:
                with fails("read-only"):
                    for _ in range(1_000):  # a process of it may take a moment to hear of its new configuration
                        await store.merge(fresh_key(), record, "one")
                await everything_fails(store, "read-only")
            finally:
                read_only(victim, "off")
            assert (await store.apply(write(record, key, 5, a=b"2")[1], "one")).outcome is Outcome.APPLIED

    ran(body)


@pytest.mark.slow
@pytest.mark.needs("mariadbd")
def test_a_mariadb_that_turns_read_only_or_loses_its_connections(mariadb: MariaDb) -> None:
    """The first is told; the second is not noticed."""

    async def body() -> None:
        with fails("Access denied"):
            await store_at(mariadb.url.replace(PASSWORD, "wrong")).open()
        async with opened(store_at(mariadb.url, create=True)) as store:
            key, record = fresh_key(), new(a=b"1")
            await store.merge(key, record, "one")
            mariadb.run("SET GLOBAL read_only = 1")
            try:
                with fails("read-only"):
                    await store.merge(fresh_key(), record, "one")
            finally:
                mariadb.run("SET GLOBAL read_only = 0")
            assert (await store.fetch(key, None)).status is FetchStatus.RECORD
            mariadb.run("KILL USER ann")
            assert (await store.apply(write(record, key, 5, a=b"2")[1], "one")).outcome is Outcome.APPLIED

    ran(body)
