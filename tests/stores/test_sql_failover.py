"""A PostgreSQL primary killed under load and its standby promoted: what was acknowledged is kept as the database says."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessile.delta import Outcome
from sessile.errors import StoreError
from sessile.stores.base import FetchStatus
from sessile.stores.sql import SqlStore
from tests.network.clusters import until
from tests.stores.postgres import Postgres
from tests.stores.rig import fresh_key, new, ran, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessile.record import Record
    from sessile.token import SessionKey

WITHIN_S = 30.0
TIMEOUT_S = 1.0
WRITERS = 4

pytestmark = [pytest.mark.slow, pytest.mark.needs("postgres")]


class Pair:
    """A primary and its standby."""

    def __init__(self, folder: Path) -> None:
        self.primary = Postgres(folder / "one")
        self.primary.start()
        self.standby = Postgres(folder / "two", primary=self.primary)
        self.standby.start()
        self.until_streaming()

    def until_streaming(self) -> None:
        """Wait until the standby has all there is."""
        is_there = "SELECT count(*) FROM pg_stat_replication WHERE flush_lsn = pg_current_wal_flush_lsn()"
        deadline_s = time.monotonic() + WITHIN_S
        while self.primary.query(is_there) != "1":
            assert time.monotonic() < deadline_s
            time.sleep(0.05)

    def synchronous(self) -> None:
        """A commit waits for the standby from now on."""
        self.primary.query("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        deadline_s = time.monotonic() + WITHIN_S
        while self.primary.query("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") != "1":
            assert time.monotonic() < deadline_s
            time.sleep(0.05)

    def fail_over(self) -> None:
        """The primary is gone, and somebody promotes the standby."""
        self.primary.kill()
        self.standby.promote()


@pytest.fixture
def pair() -> Iterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="sessile-postgres-") as folder, contextlib.ExitStack() as stack:
        Path(folder).chmod(0o755)
        made = Pair.__new__(Pair)
        stack.callback(lambda: [server.stop() for server in vars(made).values()])
        made.__init__(Path(folder))  # type: ignore[misc]
        yield made


def store_of(pair: Pair, timeout_s: float = TIMEOUT_S) -> SqlStore:
    url = pair.primary.url(pair.standby)
    return SqlStore(url, timeout_s=timeout_s, tombstone_keep_ms=600_000, rotation_grace_ms=60_000, create=True)


async def until_it_works(store: SqlStore) -> float:
    """How long it took until the store took a write again."""
    began_s = time.monotonic()
    async with asyncio.timeout(WITHIN_S):
        while True:
            with contextlib.suppress(StoreError):
                await store.merge(fresh_key(), new(a=b"1"), "one")
                return time.monotonic() - began_s


async def born(store: SqlStore, number: int) -> list[tuple[SessionKey, Record]]:
    """So many sessions, as far as the store confirmed them."""
    made = []
    for _ in range(number):
        key, record = fresh_key(), new(a=b"1")
        with contextlib.suppress(StoreError):
            await store.merge(key, record, "one")
            made.append((key, record))
    return made


async def kept(store: SqlStore, sessions: list[tuple[SessionKey, Record]]) -> int:
    return sum([(await store.fetch(key, None)).status is FetchStatus.RECORD for key, _ in sessions])


def test_a_synchronous_standby_has_every_acknowledged_change(pair: Pair) -> None:
    """Killed under load: no write that was confirmed is lost, and the store goes on with the other host by itself."""
    acknowledged = dict.fromkeys(range(WRITERS), 0)

    async def writes(store: SqlStore, writer: int, key: SessionKey, record: Record) -> None:
        while True:
            record, delta = write(record, key, 100 + writer, {"n": 1})
            while True:
                with contextlib.suppress(StoreError):
                    if (await store.apply(delta, "one")).outcome is Outcome.NEED:
                        await store.merge(key, record, "one")
                    break
            acknowledged[writer] += 1

    async def body() -> None:
        store = store_of(pair)
        await store.open()
        pair.synchronous()
        sessions = [(fresh_key(), new(a=b"1")) for _ in range(WRITERS)]
        for key, record in sessions:
            await store.merge(key, record, "one")
        tasks = [asyncio.create_task(writes(store, at, key, record)) for at, (key, record) in enumerate(sessions)]
        await until(lambda: min(acknowledged.values()) >= 20, WITHIN_S)
        await asyncio.to_thread(pair.fail_over)
        before = dict(acknowledged)
        await until(lambda: all(acknowledged[at] > before[at] + 5 for at in acknowledged), WITHIN_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for at, (key, _) in enumerate(sessions):
            _, held = await store.fetch(key, None)
            assert held is not None and acknowledged[at] <= held.fields["n"].added <= acknowledged[at] + 1
        await store.close()

    ran(body)


def test_without_the_synchronous_standby_nothing_is_acknowledged(pair: Pair) -> None:
    """A commit that waits for it ends at the timeout; what was acknowledged before is all there after the failover."""

    async def body() -> None:
        store = store_of(pair)
        await store.open()
        pair.synchronous()
        before = await born(store, 20)
        assert len(before) == 20
        pair.standby.stop()
        assert await born(store, 2) == []
        pair.primary.kill()
        pair.standby.start()
        pair.standby.promote()
        assert await until_it_works(store) < WITHIN_S
        assert await kept(store, before) == 20
        await store.close()

    ran(body)


def test_an_asynchronous_standby_lacks_what_was_not_yet_sent(pair: Pair) -> None:
    """Acknowledged, and lost with the primary: as the guarantees say. The sessions can be brought again as a whole."""

    async def body() -> None:
        store = store_of(pair, 20.0)
        await store.open()
        before = await born(store, 20)
        await asyncio.to_thread(pair.until_streaming)
        pair.standby.stop()
        unsent = await born(store, 20)
        assert (len(before), len(unsent)) == (20, 20)
        pair.primary.kill()
        pair.standby.start()
        pair.standby.promote()
        await until_it_works(store)
        assert await kept(store, before) == 20
        assert await kept(store, unsent) == 0
        key, record = unsent[0]
        after, delta = write(record, key, 7, b=b"2")
        assert (await store.apply(delta, "one")).outcome is Outcome.NEED
        assert (await store.merge(key, after, "one")).outcome is Outcome.APPLIED
        await store.close()

    ran(body)
