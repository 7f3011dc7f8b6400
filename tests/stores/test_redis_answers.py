"""Answers that belong to another question: over a connection that somebody else uses as well, such as a forked process."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import pytest

from sessile.delta import Outcome
from sessile.record import ENDED
from sessile.stores.base import FetchStatus
from sessile.stores.redis import RedisStore
from sessile.stores.redis_links import send
from tests.network.clusters import ran
from tests.record_model import B
from tests.stores.redis_server import REDIS, VALKEY, Server, serving, until
from tests.stores.rig import fresh_key, new, same, write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

pytestmark = pytest.mark.needs(REDIS)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(REDIS) as server:
        yield server


@pytest.mark.parametrize("others", [1, 2, 3])
@pytest.mark.parametrize("verb", ["whole", "newer", "unknown", "apply", "merge", "end", "touch"])
def test_an_answer_for_another_session_is_refused(server: Server, verb: str, others: int) -> None:
    """Bob is never shown ann's session, nor told that his is not there: the connection goes, and he is asked for anew."""

    async def test() -> None:
        store = RedisStore(server.url, cluster="test", timeout_s=20.0)
        await store.open()
        ann, bob = fresh_key(), fresh_key()
        records = {ann: new(name=b"ann"), bob: new(name=b"bob")}
        for key, record in records.items():
            await store.merge(key, record, "one")
        assert store._servers is not None
        links = await store._servers.links(None)
        (connection,) = links._free
        asked: list[tuple[Any, ...]] = [("GET", b"test:" + ann), ("ECHO", ann), ("TIME",)]
        await send(connection, asked[:others])  # as the other process does, which will not read the answer
        after, delta = write(records[bob], bob, B, more=b"1")
        verbs: dict[str, Callable[[], Awaitable[Any]]] = {
            "whole": lambda: store.fetch(bob, None),
            "newer": lambda: store.fetch(bob, {B: 1}),
            "unknown": lambda: store.fetch(fresh_key(), None),
            "apply": lambda: store.apply(delta, "one"),
            "merge": lambda: store.merge(bob, after, "one"),
            "end": lambda: store.merge(bob, records[bob].end(ENDED, 0), "one"),
            "touch": lambda: store.touch({bob: 0}),
        }
        said = await verbs[verb]()
        if verb in {"whole", "newer"}:
            assert said.status is FetchStatus.RECORD and same(said.record, records[bob])
        elif verb == "unknown":
            assert said.status is FetchStatus.NONE
        assert store.counts["misdirected"] == 1 and connection not in links._free
        held = (await store.fetch(bob, None)).record
        assert held is not None and held.fields.keys() <= {"name", "more"} and store.counts["misdirected"] == 1
        await store.close()

    ran(test())


def test_a_record_of_another_session_is_none(server: Server) -> None:
    """Whatever was copied or renamed in the store: the key stands in the record, and only its own session is shown."""

    async def test() -> None:
        store = RedisStore(server.url, cluster="test", timeout_s=20.0)
        await store.open()
        ann, bob = fresh_key(), fresh_key()
        record = new(name=b"ann")
        await store.merge(ann, record, "one")
        server.ask("COPY", b"test:" + ann, b"test:" + bob)
        assert (await store.fetch(bob, None)).status is FetchStatus.NONE
        status, found = await store.fetch(bob, record.version)
        assert status is FetchStatus.NONE and found is None
        assert (await store.apply(write(record, bob, B, name=b"bob")[1], "one")).rest is None
        assert store.counts["malformed"] == 3 and store.counts["misdirected"] == 0
        assert same((await store.fetch(ann, None)).record, record)
        await store.close()

    ran(test())


@pytest.mark.parametrize("program", [REDIS, VALKEY])
@pytest.mark.parametrize("ack", ["one", "all"])
def test_a_change_that_is_said_again_is_confirmed_by_a_replica_that_has_it(program: str, ack: str) -> None:
    """A repeated change changes nothing, and still no replica that lacks it counts."""
    if not Server.has(program):
        pytest.skip(f"there is no {program}")

    async def test() -> None:
        with serving(program, "--repl-diskless-sync-delay", "0") as primary:
            follow = ("--replicaof", "127.0.0.1", str(primary.port), "--repl-diskless-sync-delay", "0")
            with serving(program, *follow) as replica:
                await asyncio.to_thread(until, lambda: b"state=online" in primary.ask("INFO", "replication"))
                store, other = (RedisStore(primary.url, timeout_s=1.0) for _ in range(2))
                await store.open()
                await other.open()
                key, record = fresh_key(), new(a=b"1")
                async with asyncio.timeout(20):
                    while not (await store.merge(key, record, ack)).is_acknowledged:
                        pass
                after, delta = write(record, key, B, a=b"2")
                replica.process.send_signal(signal.SIGSTOP)
                try:
                    assert not (await store.apply(delta, ack)).is_acknowledged
                    again = await other.apply(delta, ack)
                    assert again.outcome is Outcome.KNOWN and not again.is_acknowledged
                    whole = await other.merge(key, after, ack)
                    assert whole.outcome is Outcome.KNOWN and not whole.is_acknowledged
                finally:
                    replica.process.send_signal(signal.SIGCONT)
                async with asyncio.timeout(20):
                    while not (await store.apply(delta, ack)).is_acknowledged:
                        pass
                assert same((await store.fetch(key, None)).record, after)
                await store.close()
                await other.close()

    ran(test())
