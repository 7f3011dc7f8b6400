"""A process that forks while it has a database open: nothing that was confirmed is lost, and no connection is shared."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from sessile.stores.base import FetchStatus
from sessile.stores.sql import SqlStore
from tests.forked import DEADLINE_S, Child, bypassing_python, in_a_child
from tests.network.clusters import until
from tests.stores.rig import fresh_key, new, ran

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sessile.token import SessionKey
    from tests.stores.postgres import Postgres


def store_at(url: str, *, timeout_s: float = 5.0) -> SqlStore:
    return SqlStore(url, create=True, timeout_s=timeout_s, tombstone_keep_ms=600_000, rotation_grace_ms=10_000)


async def written(store: SqlStore, *keys: SessionKey) -> None:
    for key in keys:
        await store.merge(key, new(a=b"1"), "one")


@pytest.mark.parametrize("fork", [os.fork, bypassing_python], ids=["by Python", "in C"])
def test_what_a_child_was_confirmed_is_there_when_its_parent_has_left(tmp_path: Path, fork: Callable[[], int]) -> None:
    """The parent, as the last one that it knows of, would delete the log that the child goes on to write to."""
    file = tmp_path / "x.db"
    keys = [fresh_key() for _ in range(4)]

    async def test() -> None:
        store = store_at(f"sqlite:///{file}")
        await store.open()
        await written(store, keys[0])
        waiting, go_on = os.pipe()

        async def child() -> str:
            await store.open()
            await written(store, keys[1])
            os.write(telling, b"x")
            os.read(waiting, 1)
            await written(store, keys[2])
            return "wrote"

        told, telling = os.pipe()
        one = Child(lambda: asyncio.run(child()), fork)
        try:
            await asyncio.to_thread(os.read, told, 1)
            await written(store, keys[3])
            await store.close()
            os.write(go_on, b"x")
            assert await asyncio.to_thread(one.said) == "'wrote'"
        finally:
            one.end()
            for end in (waiting, go_on, told, telling):
                os.close(end)

    ran(test)
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT count(*) FROM sessile_sessions").fetchone() == (4,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_fork_amid_statements_waits_for_the_one_that_runs(tmp_path: Path) -> None:
    """Each child works at once, whatever its parent was doing, and the parent's statements go on."""

    async def child(store: SqlStore, key: SessionKey) -> str:
        await store.open()
        await written(store, fresh_key())
        fetched = await store.fetch(key, None)
        await store.close()
        return fetched.status.name

    async def test() -> None:
        store = store_at(f"sqlite:///{tmp_path / 'x.db'}")
        await store.open()
        key = fresh_key()
        await written(store, key)
        is_over = False

        async def work() -> int:
            times = 0
            while not is_over:
                await written(store, fresh_key())
                assert (await store.fetch(key, None)).status is FetchStatus.RECORD
                times += 1
            return times

        working = [asyncio.create_task(work()) for _ in range(4)]
        for _ in range(5):
            assert await asyncio.to_thread(in_a_child, lambda: asyncio.run(child(store, key))) == "'RECORD'"
        is_over = True
        assert all(await asyncio.gather(*working))
        await store.close()

    ran(test)


def test_no_thread_of_sqlite_works_while_a_fork_is_under_way(tmp_path: Path) -> None:
    """They are stopped between two calls, and go on afterwards."""

    async def test() -> None:
        store = store_at(f"sqlite:///{tmp_path / 'x.db'}")
        await store.open()
        assert store._connections is not None
        inheritance = store._connections.inheritance
        go_on = inheritance._before_fork()
        assert inheritance._stopped == set(inheritance._connections) != set()
        fetching = asyncio.create_task(store.fetch(fresh_key(), None))
        assert not (await asyncio.wait({fetching}, timeout=0.05))[0]
        go_on()
        assert (await fetching).status is FetchStatus.NONE
        await store.close()

    ran(test)


def test_what_is_inside_a_statement_is_left_alone(tmp_path: Path) -> None:
    """A connection whose thread could not be stopped in time is in use by nobody who could be asked: it is never closed."""

    async def test() -> None:
        store = store_at(f"sqlite:///{tmp_path / 'x.db'}", timeout_s=0.05)
        await store.open()
        assert store._connections is not None
        inheritance = store._connections.inheritance
        (number,) = inheritance._connections
        busy = threading.Event()
        driver = inheritance._connections[number]
        driver._tx.put_nowait((None, lambda: busy.wait(DEADLINE_S)))
        inheritance._in_use.add(number)
        said = await asyncio.to_thread(in_a_child, lambda: (inheritance._connections, driver._connection is None))
        busy.set()
        inheritance._in_use.discard(number)
        assert said == "({}, False)"
        await store.close()

    ran(test)


@pytest.mark.needs("postgres")
def test_a_server_has_the_childs_connections_beside_the_parents(postgres: Postgres) -> None:
    """Each its own, and those of the parent are closed when it closes them."""

    def count() -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sessile'"
        return int(postgres.query(query).strip())

    async def child(store: SqlStore, key: SessionKey) -> str:
        await store.open()
        return (await store.fetch(key, None)).status.name

    async def test() -> None:
        store = store_at(postgres.url())
        await store.open()
        key = fresh_key()
        await written(store, key)
        before = count()
        one = Child(lambda: asyncio.run(child(store, key)))
        try:
            assert await asyncio.to_thread(one.said) == "'RECORD'"
            assert (await store.fetch(key, None)).status is FetchStatus.RECORD
            assert count() == before + 1
            await store.close()
            await until(lambda: count() == 1)
        finally:
            one.end()

    ran(test)
