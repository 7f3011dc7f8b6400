"""What a request costs at the database, and what is remembered to keep it low."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from sessile.delta import Delta, Outcome
from sessile.record import ENDED, Record, merge
from sessile.stores import sql
from sessile.stores.base import FetchStatus
from sessile.stores.sql import SqlStore
from tests.record_model import Network, networks
from tests.stores.rig import fresh_key, new, ran, same, write
from tests.stores.trips import Trips

if TYPE_CHECKING:
    from pathlib import Path

    from sessile.token import SessionKey
    from tests.stores.mariadb import MariaDb
    from tests.stores.postgres import Postgres

WARM_UP = 8
"""After a few times the driver prepares a statement, which is a trip of its own, once for each connection."""


def store_at(url: str) -> SqlStore:
    return SqlStore(url, timeout_s=20, tombstone_keep_ms=600_000, rotation_grace_ms=60_000, create=True)


async def life(store: SqlStore, trips: Trips) -> dict[str, int]:
    """The trips of each step in the life of a session."""
    key, record = fresh_key(), new(a=b"1")
    told: dict[str, int] = {}
    trips.take()
    await store.merge(key, record, "one")
    told["birth"] = trips.take()
    after, delta = write(record, key, 5, a=b"2")
    assert (await store.apply(delta, "one")).outcome is Outcome.APPLIED
    told["a change"] = trips.take()
    assert (await store.fetch(key, after.version)).status is FetchStatus.CURRENT
    told["an open at a holder"] = trips.take()
    assert (await store.fetch(key, record.version)).status is FetchStatus.RECORD
    told["an open elsewhere"] = trips.take()
    store._lately.clear()
    last, delta = write(after, key, 5, a=b"3")
    assert (await store.apply(delta, "one")).outcome is Outcome.APPLIED
    told["a change to an unknown row"] = trips.take()
    assert (await store.apply(delta, "one")).outcome is Outcome.KNOWN
    told["a repeated change"] = trips.take()
    await store.touch({key: 0, **{fresh_key(): 0 for _ in range(99)}})
    told["a hundred touches"] = trips.take()
    assert (await store.merge(key, last.end(ENDED, 0), "one")).rest is None
    told["an end"] = trips.take()
    return told


EXPECTED = {
    "birth": 1,
    "a change": 1,
    "an open at a holder": 1,
    "an open elsewhere": 1,
    "a change to an unknown row": 2,
    "a repeated change": 1,
    "a hundred touches": 1,
    "an end": 1,
}


async def steady(url: str, port: int) -> dict[str, int]:
    """The trips once the connection is warm."""
    async with Trips(port) as trips:
        store = store_at(url.replace(f":{port}", f":{trips.port}"))
        await store.open()
        for _ in range(WARM_UP):
            told = await life(store, trips)
        await store.close()
    return told


@pytest.mark.needs("postgres")
def test_postgresql_is_asked_once(postgres: Postgres) -> None:
    """For whatever a request does; twice only for a change to what this process has not seen."""

    async def body() -> None:
        assert await steady(postgres.url(), postgres.port) == EXPECTED

    ran(body)


@pytest.mark.slow
@pytest.mark.needs("mariadbd")
def test_mariadb_is_asked_once(mariadb: MariaDb) -> None:
    """The same."""

    async def body() -> None:
        assert await steady(mariadb.url, mariadb.port) == EXPECTED

    ran(body)


@pytest.mark.needs("postgres")
def test_who_has_the_newest_is_sent_no_record(postgres: Postgres) -> None:
    """However large the session is."""

    async def body() -> None:
        async with Trips(postgres.port) as trips:
            store = store_at(postgres.url().replace(f":{postgres.port}", f":{trips.port}"))
            await store.open()
            key, record = fresh_key(), new(a=b"x" * 100_000)
            await store.merge(key, record, "one")
            before = trips.received
            assert (await store.fetch(key, record.version)).status is FetchStatus.CURRENT
            assert trips.received - before < 2_000
            await store.close()

    ran(body)


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In number, and large sessions are not remembered at all."""
    monkeypatch.setattr(sql, "LATELY_MAX", 10)

    async def body() -> None:
        store = store_at(f"sqlite:///{tmp_path / 'x.db'}")
        await store.open()
        large = fresh_key()
        await store.merge(large, new(a=b"x" * 10_000), "one")
        assert not store._lately
        for _ in range(25):
            await store.merge(fresh_key(), new(a=b"1"), "one")
            assert len(store._lately) <= 10
        assert (await store.apply(write(new(a=b"x" * 10_000), large, 5, a=b"2")[1], "one")).outcome is Outcome.APPLIED
        await store.close()

    ran(body)


async def pushed(store: SqlStore, key: SessionKey, change: Delta | Record, whole: Record) -> None:
    """As a server pushes: the whole record where the change alone will not do."""
    if isinstance(change, Record):
        await store.merge(key, change, "one")
    elif (await store.apply(change, "one")).outcome is Outcome.NEED:
        await store.merge(key, whole, "one")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=25)
@given(networks())
def test_writers_at_once_come_to_what_python_s_merge_does(tmp_path: Path, network: Network) -> None:
    """Every write and copy of a history, pushed by two servers at the same time, ends as the merge of all copies."""
    shifts = [-network.now_ms - replica.ahead_ms for replica in network.replicas]
    copies = [
        None if replica.record is None else replica.record.shift(by)
        for replica, by in zip(network.replicas, shifts, strict=True)
    ]

    async def body() -> None:
        key = fresh_key()
        stores = [store_at(f"sqlite:///{tmp_path / 'x.db'}") for _ in range(2)]
        for store in stores:
            await store.open()
        changes: list[tuple[Delta | Record, Record]] = [(copy, copy) for copy in copies if copy is not None]
        for post in network.posts:
            whole = copies[post.sender]
            assert whole is not None
            changes.append((msgspec.structs.replace(Delta.parse(post.data), key=key), whole))
        await asyncio.gather(
            *(pushed(stores[at % 2], key, change, whole) for at, (change, whole) in enumerate(changes))
        )
        _, held = await stores[0].fetch(key, None)
        assert same(held, functools.reduce(merge, [copy for copy in copies if copy is not None]))
        for store in stores:
            await store.close()

    ran(body)
