from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from sessile.delta import Outcome
from sessile.errors import StoreError
from sessile.record import ENDED, Record
from sessile.stores.base import ChannelUp, FetchStatus
from sessile.stores.redis import RedisStore
from sessile.stores.redis_links import LinkLost, Links, dialer
from sessile.stores.redis_servers import Sentinels, Single, answers_of, redirect
from tests.network.clusters import ran
from tests.record_model import B
from tests.stores.conformance import Place, StoreConformance
from tests.stores.redis_server import REDIS, Server, Shards, Watched, free_ports, serving
from tests.stores.rig import GRACE_MS, KEEP_MS, Heard, new, same, write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sessile.stores.base import Store
    from sessile.token import SessionKey

needs_redis = pytest.mark.needs(REDIS)
WITHIN_S = 60.0


async def eventually(push: Callable[[], Awaitable[Any]], within_s: float = WITHIN_S) -> Any:
    """What comes of it once the store works again; until then each failure is one line and takes a bounded time."""
    async with asyncio.timeout(within_s):
        while True:
            tried_s = time.monotonic()
            with contextlib.suppress(StoreError):
                return await push()
            assert time.monotonic() - tried_s < 10.0
            await asyncio.sleep(0.05)


def keys(count: int = 12) -> list[SessionKey]:
    """Keys of the usual kind: they are spread over all slots of a cluster."""
    return [os.urandom(16) for _ in range(count)]


# -- one server ------------------------------------------------------------------------------------------------------------


@needs_redis
def test_a_server_that_is_demoted_is_left(free_port: Callable[[], int]) -> None:
    """A write refused as read-only makes the next one look again, over a new connection."""

    async def test() -> None:
        with serving(REDIS) as server:
            single = Single(dialer(is_tls=False)("127.0.0.1", server.port))
            before = await single.links(None)
            assert (await single.trip(None, [("SET", "a", 1)])).replies == [b"OK"]
            server.ask("REPLICAOF", "127.0.0.1", str(free_port()))
            with pytest.raises(LinkLost, match="is a replica"):
                await single.trip(None, [("SET", "a", 2)])
            assert before.is_closed
            server.ask("REPLICAOF", "NO", "ONE")
            assert (await single.trip(None, [("GET", "a")])).replies == [b"1"]
            await single.close()

    ran(test())


# -- Sentinel --------------------------------------------------------------------------------------------------------------


@needs_redis
def test_sentinels_that_are_not_there_or_know_nothing() -> None:
    """Each is told as what it is."""

    async def test() -> None:
        dial = dialer(is_tls=False)
        with serving(REDIS) as server:
            nowhere = [Links(dial("127.0.0.1", port), must_be_primary=False) for port in free_ports(2)]
            no_sentinel = [Links(dial("127.0.0.1", server.port), must_be_primary=False)]
            for sentinels, reason in ((nowhere, "cannot be reached: "), (no_sentinel, "has a Sentinel that fails: ")):
                servers = Sentinels(dial, sentinels, "main")
                with pytest.raises(LinkLost, match=reason):
                    await servers.links(None)
                await servers.close()

    ran(test())


@needs_redis
@pytest.mark.slow
class TestSentinel:
    """One primary, two replicas, three Sentinels; each test has its own."""

    @pytest.mark.parametrize("is_paused", [False, True])
    def test_a_primary_that_dies_is_followed(self, is_paused: bool) -> None:  # noqa: FBT001
        """Killed or hanging: what was acknowledged is there, the channel names another primary, every call is bounded."""

        async def test(watched: Watched) -> None:
            store = RedisStore(watched.url, timeout_s=1.0)
            await store.open()
            assert not store.is_single
            async with Heard().listening(store) as heard:
                records = {key: new(a=key) for key in keys()}
                for key, record in records.items():
                    assert (await store.merge(key, record, "one")).is_acknowledged
                assert (await store.merge(keys(1)[0], new(), "all")).is_acknowledged
                if is_paused:
                    watched.primary.process.send_signal(signal.SIGSTOP)
                else:
                    watched.primary.kill()
                for key, record in records.items():
                    status, held = await eventually(lambda key=key: store.fetch(key, None))  # type: ignore[misc]
                    assert status is FetchStatus.RECORD and same(held, record)
                key, record = records.popitem()
                after, delta = write(record, key, B, b=b"2")
                await eventually(lambda: store.apply(delta, "one"))
                await heard.until(lambda: isinstance(heard.all[-1], ChannelUp) and len(heard.all) > 1)
                first, *_, last = (message for message in heard.all if isinstance(message, ChannelUp))
                assert first != last
                if is_paused:  # back, it thinks for seconds that it is still the primary
                    watched.primary.process.send_signal(signal.SIGCONT)
                    for _ in range(40):
                        fetched = await eventually(lambda key=key: store.fetch(key, None))  # type: ignore[misc]
                        assert same(fetched.record, after)
                        await asyncio.sleep(0.05)
            await store.close()

        with contextlib.ExitStack() as stack:
            ran(test(Watched(stack)))

    def test_a_primary_that_is_cut_off_acknowledges_nothing(self) -> None:
        """With clients still connected to it: none of its writes count, and the new primary is found within seconds."""

        async def test(watched: Watched) -> None:
            store, quiet = (RedisStore(watched.url, timeout_s=1.0) for _ in range(2))
            await store.open()
            await quiet.open()
            key, record = keys(1)[0], new(a=b"1")
            assert (await store.merge(key, record, "one")).is_acknowledged
            old = watched.primary
            async with Heard().listening(store) as heard:
                old.ask("CONFIG", "SET", "requirepass", "cut-off")  # who is connected stays so, but for those
                old.password = "cut-off"
                for client in old.ask("CLIENT", "LIST").splitlines():
                    if b"name=sentinel" in client or b"flags=S" in client:
                        old.ask("CLIENT", "KILL", "ID", client.split()[0].partition(b"=")[2])
                written, delta = write(record, key, B, b=b"2")
                pushed = await quiet.apply(delta, "one")
                assert pushed.outcome is Outcome.APPLIED and not pushed.is_acknowledged
                await heard.until(lambda: sum(isinstance(message, ChannelUp) for message in heard.all) == 2)
                status, held = await eventually(lambda: store.fetch(key, None))
                assert status is FetchStatus.RECORD and same(held, record), "the other one is not asked any more"
                await eventually(lambda: store.merge(key, written, "one"))
                assert same((await store.fetch(key, None)).record, written)
            await store.close()
            await quiet.close()

        with contextlib.ExitStack() as stack:
            ran(test(Watched(stack)))

    def test_a_sentinel_may_be_gone(self) -> None:
        """Any one that answers is enough."""

        async def test(watched: Watched) -> None:
            for sentinel in watched.sentinels[:2]:
                sentinel.kill()
            store = RedisStore(watched.url, timeout_s=5.0)
            await store.open()
            assert (await store.fetch(keys(1)[0], None)).status is FetchStatus.NONE
            await store.close()

        with contextlib.ExitStack() as stack:
            ran(test(Watched(stack, replicas=1)))


# -- cluster ---------------------------------------------------------------------------------------------------------------


class ClusterPlace(Place):
    names_lessees = False

    def __init__(self, shards: Shards) -> None:
        self.shards = shards

    def store(self, *, tombstone_keep_ms: int = KEEP_MS, rotation_grace_ms: int = GRACE_MS) -> RedisStore:
        return RedisStore(
            self.shards.url,
            cluster="{test}",  # braces of a name do not bind all sessions to one slot
            timeout_s=20.0,
            tombstone_keep_ms=tombstone_keep_ms,
            rotation_grace_ms=rotation_grace_ms,
        )

    async def plant(self, key: SessionKey, data: bytes) -> None:
        name = b"%7Btest%7D:" + key
        assert any(node.ask("SET", name, data).startswith(b"+OK") for node in self.shards.nodes)


@needs_redis
@pytest.mark.slow
class TestCluster(StoreConformance):
    """Three primaries: the whole suite, over keys of all slots."""

    shards: Shards

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _shards(cls) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            cls.shards = Shards(stack)
            yield

    def place(self) -> Place:
        return ClusterPlace(self.shards)

    def test_sessions_are_on_every_node(self) -> None:
        """Spread by their keys; one call touches them all."""

        async def test() -> None:
            store = self.place().store()
            await store.open()
            many = keys(60)
            await asyncio.gather(*(store.merge(key, new(a=b"1").shift(-9_000), "one") for key in many))
            assert all(node.ask("DBSIZE") != b":0\r\n" for node in self.shards.nodes)
            await store.touch(dict.fromkeys(many, 0))
            for key in many:
                _, held = await store.fetch(key, None)
                assert isinstance(held, Record) and held.touched_ms > -9_000
            await store.close()

        ran(test())

    def test_every_primary_is_listened_to(self) -> None:
        """What one node publishes need not be passed on by others: each tells its subscribers itself, and is asked whether."""

        async def test() -> None:
            store = RedisStore(self.shards.url, timeout_s=20.0)
            await store.open()
            async with Heard().listening(store) as heard:
                await heard.until(lambda: heard.pulses > 2)
                subscribed = [node.ask("PUBSUB", "NUMSUB", "sessile:changes") for node in self.shards.nodes]
                assert sum(said.endswith(b":1\r\n") for said in subscribed) == 3, subscribed
                beats = [node.ask("PUBSUB", "CHANNELS", "sessile:changes:*") for node in self.shards.nodes]
                assert len(set(beats)) == 3, "each is asked by itself"
                pushed = await store.merge(keys(1)[0], new(a=b"1").end(ENDED, 0), "one", is_awaited=True)
                assert pushed.lessees is None, "who holds leases is waited out"
                assert not store.counts
            await store.close()

        ran(test())

    def test_slots_that_move_are_followed(self) -> None:
        """While a slot moves, and after it has: sessions in it are read, written and touched where they are."""
        source, target, _ = self.shards.nodes

        async def test() -> None:
            store = self.place().store()
            await store.open()
            records = {key: new(a=key) for key in keys(400)}
            await asyncio.gather(*(store.merge(key, record, "one") for key, record in records.items()))
            ids = [node.ask("CLUSTER", "MYID").split(b"\r\n")[1] for node in (source, target)]
            slots = {slot_of(source, key) for key in records}
            slot = next(slot for slot in slots if int(slot) < 5_000)
            target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
            source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
            names = [b"%7Btest%7D:" + key for key in records if slot_of(source, key) == slot]
            for name in names:
                source.ask("MIGRATE", "127.0.0.1", str(target.port), name, "0", "5000")
            await check(store, records)
            for node in (target, source):
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
            await check(store, records)
            await store.close()

        ran(test())


async def check(store: Store, records: dict[SessionKey, Record]) -> None:
    """Everything is there, and takes a write."""
    await store.touch(dict.fromkeys(records, 0))
    for key, record in records.items():
        assert same((await store.fetch(key, None)).record, record)
        assert not (await store.merge(key, record, "one")).rest


def slot_of(node: Server, key: SessionKey) -> str:
    return node.ask("CLUSTER", "KEYSLOT", b"%7Btest%7D:" + key)[1:-2].decode()


@needs_redis
@pytest.mark.slow
def test_a_shard_that_dies_is_followed() -> None:
    """Twice, and the nodes that the URL names are among the dead: what was acknowledged is there, and the channel tells."""

    async def test(shards: Shards) -> None:
        store = RedisStore(shards.url, timeout_s=2.0)
        await store.open()
        records = {key: new(a=key) for key in keys(40)}
        async with Heard().listening(store) as heard:
            for key, record in records.items():
                assert (await store.merge(key, record, "one")).is_acknowledged
            for died, victim in enumerate(shards.nodes[:2], 1):
                victim.kill()
                for key, record in records.items():
                    status, held = await eventually(lambda key=key: store.fetch(key, None))  # type: ignore[misc]
                    assert status is FetchStatus.RECORD and same(held, record)
                await heard.until(lambda died=died: len(ups(heard)) == 1 + died)  # type: ignore[misc]
        assert len(set(ups(heard))) == 3
        await store.close()

    with contextlib.ExitStack() as stack:
        ran(test(Shards(stack, replicas=1)))


def ups(heard: Heard) -> list[ChannelUp]:
    return [message for message in heard.all if isinstance(message, ChannelUp)]


# -- small parts -----------------------------------------------------------------------------------------------------------


def test_a_redirection_is_read() -> None:
    """MOVED and ASK name a host, in whatever form; everything else is none."""
    assert redirect([b"OK", Exception("MOVED 3999 127.0.0.1:6381")]) == ("127.0.0.1", 6381)
    assert redirect([Exception("ASK 3999 ::1:6381")]) == ("::1", 6381)
    assert redirect([b"MOVED 3999 127.0.0.1:6381", None, Exception("OOM no")]) is None


def test_the_first_answer_counts_and_soon_ones_too() -> None:
    """Who does not answer is not waited for; when nobody does, the last reason is told."""

    async def test() -> None:
        async def after(seconds: float, answer: str) -> str:
            await asyncio.sleep(seconds)
            if answer == "lost":
                raise LinkLost(answer)
            return answer

        started_s = time.monotonic()
        answers = await answers_of(
            [after(0, "a"), after(0, "lost"), after(0.01, "b"), after(60, "c")], stragglers_s=1.0
        )
        assert set(answers) == {"a", "b"} and time.monotonic() - started_s < 30
        with pytest.raises(LinkLost, match="lost"):
            await answers_of([after(0, "lost"), after(0, "lost")], stragglers_s=1.0)

    ran(test())
