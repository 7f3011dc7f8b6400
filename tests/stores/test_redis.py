from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessile import codec
from sessile.delta import Delta, Outcome, apply
from sessile.errors import SettingsError, StoreError
from sessile.record import ENDED, Record, merge
from sessile.stores.base import Absence, FetchStatus, Pushed
from sessile.stores.redis import RedisStore, eviction_of
from tests.network.clusters import ran
from tests.record_model import B, Network, networks
from tests.stores.conformance import Place, StoreConformance
from tests.stores.redis_server import REDIS, VALKEY, Server, free_ports, serving, until
from tests.stores.rig import GRACE_MS, IDLE_MS, KEEP_MS, LIFE_MS, Heard, fresh_key, new, same, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from sessile.stores.redis_links import Answer
    from sessile.token import SessionKey

PREFIX = b"test:"
needs_redis = pytest.mark.needs(REDIS)


class RedisPlace(Place):
    """A server."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def store(self, *, tombstone_keep_ms: int = KEEP_MS, rotation_grace_ms: int = GRACE_MS) -> RedisStore:
        return RedisStore(
            self.server.url,
            cluster="test",
            timeout_s=20.0,
            tombstone_keep_ms=tombstone_keep_ms,
            rotation_grace_ms=rotation_grace_ms,
        )

    async def plant(self, key: SessionKey, data: bytes) -> None:
        assert self.server.ask("SET", PREFIX + key, data).startswith(b"+OK")


class OnServer(StoreConformance):
    """The suite on one server."""

    program = REDIS
    server: Server

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _server(cls) -> Iterator[None]:
        with serving(cls.program) as cls.server:
            yield

    def place(self) -> Place:
        return RedisPlace(self.server)


@needs_redis
class TestRedis(OnServer):
    """Redis."""


if Server.has(VALKEY):

    class TestValkey(OnServer):
        """Valkey."""

        program = VALKEY


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(REDIS) as server:
        yield server


@contextlib.asynccontextmanager
async def opened(at: Any, **keywords: Any) -> AsyncIterator[RedisStore]:
    store = RedisStore(at, cluster="test", **{"timeout_s": 20.0, **keywords})
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def integer(reply: bytes) -> int:
    assert reply.startswith(b":"), reply
    return int(reply[1:])


def bulk(reply: bytes) -> bytes:
    head, _, rest = reply.partition(b"\r\n")
    return rest[: int(head[1:])]


# -- what stands in the server ---------------------------------------------------------------------------------------------


@needs_redis
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(network=networks(), data=st.data())
def test_the_scripts_write_what_our_own_rules_would(server: Server, network: Network, data: st.DataObject) -> None:
    """To the byte, but for the times: the order of writers, fields and heads included."""

    async def test() -> None:
        key = fresh_key()
        before: Record | None = None
        deltas = [msgspec.structs.replace(Delta.parse(post.data), key=key) for post in network.posts]
        born = Record.create(now_ms=0, idle_ms=IDLE_MS, deadline_ms=LIFE_MS, subject="u")
        wholes = [born, *(it.record.shift(-network.now_ms - it.ahead_ms) for it in network.replicas if it.record)]
        either: list[Delta | Record] = [*deltas, *deltas, *wholes]
        async with opened(server.url, rotation_grace_ms=GRACE_MS) as store:
            for step in data.draw(st.lists(st.sampled_from(either), min_size=1, max_size=8)):
                if isinstance(step, Delta):
                    await store.apply(step, "none")
                    _, before = apply(before, step)
                else:
                    await store.merge(key, step, "none")
                    before = step if before is None else merge(before, step)
                reply = server.ask("GET", PREFIX + key)
                if before is None:
                    assert reply == b"$-1\r\n"
                else:
                    stored = bulk(reply)
                    assert stored.endswith(key) and timeless(Record.parse(stored[:-16])) == timeless(before)

    ran(test())


def timeless(record: Record) -> bytes:
    return msgspec.structs.replace(record, deadline_ms=0, touched_ms=0, ended_ms=0).pack()


@needs_redis
def test_the_server_drops_a_session_by_itself(server: Server) -> None:
    """A tenth after its idle time or at its deadline; its end when no copy can be served any more, and a while later."""

    async def test() -> None:
        async with opened(server.url, tombstone_keep_ms=50_000, rotation_grace_ms=9_000) as store:
            idle, old, over, seen = (fresh_key() for _ in range(4))
            await store.merge(idle, new(a=b"1", idle_ms=100_000), "one")
            await store.merge(old, new(a=b"1", idle_ms=100_000, life_ms=70_000), "one")
            await store.merge(over, new(a=b"1").end(ENDED, 0), "one")
            await store.merge(seen, new(a=b"1").end(1, 0), "one")
            for key, left_ms in ((idle, 110_000), (old, 70_000), (over, LIFE_MS + 50_000), (seen, LIFE_MS + 50_000)):
                assert left_ms - 20_000 < integer(server.ask("PTTL", PREFIX + key)) <= left_ms
            await store.merge(idle, new(a=b"1", idle_ms=100_000).shift(-50_000), "one")
            assert integer(server.ask("PTTL", PREFIX + idle)) > 80_000, "an older touch takes nothing away"
            brief = fresh_key()
            await store.merge(brief, new(a=b"1", idle_ms=100), "one")
            await asyncio.to_thread(until, lambda: not integer(server.ask("EXISTS", PREFIX + brief)))
            assert await store.expire(100) == 0

    ran(test())


@needs_redis
def test_a_small_session_takes_little_memory(server: Server) -> None:
    """What the server says it takes, key, record, expiry and all: for a session of eight ordinary fields."""
    values = {
        "user_id": 4711,
        "email": "someone@example.org",
        "csrf": "x" * 32,
        "cart": [{"sku": "A-1001", "n": 2}, {"sku": "B-2002", "n": 1}],
        "locale": "en-GB",
        "seen": 12,
        "theme": "dark",
        "last": 1_760_000_000.5,
    }

    async def test() -> None:
        async with opened(server.url) as store:
            key = fresh_key()
            record = new().write(B, {name: codec.encode(value) for name, value in values.items()}, now_ms=0)[0]
            await store.merge(key, record, "one")
            assert integer(server.ask("MEMORY", "USAGE", PREFIX + key)) <= 400

    ran(test())


@needs_redis
def test_a_key_of_another_type_is_no_session(server: Server) -> None:
    """A list under our key counts as nothing, and gives way to the session."""

    async def test() -> None:
        async with opened(server.url) as store:
            key, record = fresh_key(), new(a=b"1")
            server.ask("RPUSH", PREFIX + key, "x")
            for have in (None, record.version):
                assert (await store.fetch(key, have)).status is FetchStatus.NONE
            assert (await store.apply(write(record, key, B, a=b"2")[1], "one")).outcome is Outcome.NEED
            await store.touch({key: 0})
            assert store.counts["malformed"] == 3
            assert await store.merge(key, record, "one") == Pushed(Outcome.APPLIED)
            assert same((await store.fetch(key, None)).record, record)

    ran(test())


# -- trips -----------------------------------------------------------------------------------------------------------------


@needs_redis
def test_every_verb_is_one_trip(server: Server) -> None:
    """However many sessions a touch is about. A server that lost its scripts costs one more, once."""

    async def test() -> None:
        async with opened(server.url) as store:
            trips = 0
            assert store._servers is not None
            links = await store._servers.links(None)
            over = links._over

            async def counted(*args: Any) -> Answer:
                nonlocal trips
                trips += 1
                return await over(*args)

            links._over = counted  # type: ignore[assignment, method-assign]
            key, record = fresh_key(), new(a=b"1")
            delta = write(record, key, B, a=b"2")[1]

            async def verbs() -> int:
                nonlocal trips
                trips = 0
                await store.merge(key, record, "one")
                await store.apply(delta, "all")
                await store.fetch(key, record.version)
                await store.fetch(key, None)
                await store.touch(dict.fromkeys([fresh_key() for _ in range(500)], 0))
                return trips

            for _ in range(2):
                server.ask("SCRIPT", "FLUSH")
                assert await verbs() == 5 + 4, "all but one of them are scripts, which the server has to be given again"
                assert await verbs() == 5

    ran(test())


# -- what goes wrong -------------------------------------------------------------------------------------------------------


async def all_verbs(store: RedisStore) -> list[str]:
    """What each verb fails with; every one of them is to fail."""
    key, record = fresh_key(), new(a=b"1")
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.fetch(key, None),
        lambda: store.fetch(key, {B: 1}),
        lambda: store.merge(key, record, "one"),
        lambda: store.merge(key, record.end(ENDED, 0), "all"),
        lambda: store.apply(write(record, key, B, a=b"2")[1], "none"),
        lambda: store.touch({key: 0}),
    ]
    reasons = []
    for call in calls:
        with pytest.raises(StoreError) as failed:
            await call()
        reasons.append(str(failed.value))
    assert all("\n" not in reason and len(reason) < 300 for reason in reasons)
    return reasons


def test_a_store_that_is_not_there() -> None:
    """Refused at once, again and again; open too, after which it may be there later."""

    async def test() -> None:
        (port,) = free_ports(1)
        store = RedisStore(f"redis://somebody:hunter2@127.0.0.1:{port}", timeout_s=5.0)
        with pytest.raises(StoreError, match=r"cannot be reached: Connection refused$"):
            await store.open()
        started_s = time.monotonic()
        reasons = await all_verbs(store)
        assert all(reason.startswith(f"redis://127.0.0.1:{port} cannot be reached: ") for reason in reasons)
        assert "hunter2" not in "".join(reasons) and "hunter2" not in repr(store)
        assert time.monotonic() - started_s < 5
        await store.close()

    ran(test())


@needs_redis
def test_a_store_that_comes_later() -> None:
    """An `open` that failed is no reason not to ask again."""

    async def test() -> None:
        (port,) = free_ports(1)
        store = RedisStore(f"redis://127.0.0.1:{port}", timeout_s=20.0)
        with pytest.raises(StoreError):
            await store.open()
        with serving(REDIS, port=port):
            assert (await store.fetch(fresh_key(), None)).status is FetchStatus.NONE
            await store.close()

    ran(test())


@needs_redis
def test_a_store_that_hangs() -> None:
    """Connected or not, each call ends after `timeout_s`; when it goes on, so does everything."""

    async def test() -> None:
        with serving(REDIS) as server:
            async with opened(server.url, timeout_s=0.3) as store:
                server.process.send_signal(signal.SIGSTOP)
                try:
                    for _ in range(2):
                        started_s = time.monotonic()
                        reasons = await all_verbs(store)
                        assert all(reason.endswith("does not answer within 0.3 s") for reason in reasons)
                        assert time.monotonic() - started_s < 6 * 2.0
                finally:
                    server.process.send_signal(signal.SIGCONT)
                async with asyncio.timeout(20):
                    while True:
                        with contextlib.suppress(StoreError):
                            assert (await store.fetch(fresh_key(), None)).status is FetchStatus.NONE
                            break

    ran(test())


@needs_redis
def test_a_store_without_memory() -> None:
    """New sessions and writes are refused, and told as what it is; ends, touches and reads go on, which free memory."""

    async def test() -> None:
        with serving(REDIS) as server:
            async with opened(server.url) as store:
                key, record = fresh_key(), new(a=b"1").shift(-9_000)
                await store.merge(key, record, "one")
                server.ask("CONFIG", "SET", "maxmemory", "1000")
                with pytest.raises(StoreError, match=r"is out of memory$"):
                    await store.merge(fresh_key(), record, "one")
                with pytest.raises(StoreError, match=r"is out of memory$"):
                    await store.apply(write(record, key, B, a=b"2")[1], "one")
                assert (await store.fetch(key, None)).status is FetchStatus.RECORD
                assert (await store.fetch(key, record.version)).status is FetchStatus.CURRENT
                await store.touch({key: 0})
                assert (await store.merge(key, record.end(ENDED, 0), "one")).outcome is Outcome.APPLIED
                _, held = await store.fetch(key, None)
                assert held is not None and held.state == ENDED and held.touched_ms > -9_000

    ran(test())


@needs_redis
def test_a_replica_is_refused(server: Server) -> None:
    """Whoever names a replica by mistake is told so, at every verb."""

    async def test() -> None:
        with serving(REDIS, "--replicaof", "127.0.0.1", str(server.port)) as replica:
            store = RedisStore(replica.url, timeout_s=5.0)
            with pytest.raises(StoreError, match=r"is a replica, which takes no writes$"):
                await store.open()
            assert all(reason.endswith("is a replica, which takes no writes") for reason in await all_verbs(store))
            await store.close()

    ran(test())


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("LOADING Redis is loading the dataset in memory", "is loading its data"),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "has lost its primary"),
        ("CLUSTERDOWN Hash slot not served", "is a cluster that is down"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "is moving this session"),
        ("NOAUTH Authentication required.", "wants another user or password"),
        ("NOPERM this user has no permissions to run the 'role' command", "does not let this user do what is needed"),
        ("BUSY Redis is busy running a script.", "is busy with a script"),
        ("MISCONF Redis is configured to save RDB snapshots", "cannot save to its disk"),
        ("NOREPLICAS Not enough good replicas to write.", "too few replicas"),
        ("ERR max number of clients reached", "max number of clients reached"),
        ("ODD \xff nobody knows", "fails: ODD"),
    ],
)
@pytest.mark.parametrize("is_primary", [False, True])
def test_whatever_a_server_refuses_with(said: str, reason: str, is_primary: bool) -> None:  # noqa: FBT001
    """It is one line that says what is wrong, whether the server says it at once or later."""
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                words = await next_command(reader)
                if is_primary and words[0] == b"ROLE":
                    writer.write(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n")
                elif is_primary and words[0] == b"INFO":
                    writer.write(b"$9\r\nrun_id:1\n\r\n")
                else:
                    writer.write(f"-{said}\r\n".encode("latin-1"))

    async def test() -> None:
        fake = await asyncio.start_server(answer, "127.0.0.1", 0)
        store = RedisStore(f"redis://127.0.0.1:{fake.sockets[0].getsockname()[1]}", timeout_s=5.0)
        with contextlib.suppress(StoreError):
            await store.open()
        assert all(reason in told for told in await all_verbs(store))
        await store.close()
        fake.close()
        for writer in writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    ran(test())


async def next_command(reader: asyncio.StreamReader) -> list[bytes]:
    count = int((await reader.readuntil(b"\r\n"))[1:])
    words = []
    for _ in range(count):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words


@needs_redis
def test_a_server_that_may_throw_sessions_away_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """One line in the log at the start, with the remedy; none for a server without a limit."""

    async def test() -> None:
        with serving(REDIS, "--maxmemory-policy", "volatile-lru") as server:
            async with opened(server.url):
                assert not caplog.records
            server.ask("CONFIG", "SET", "maxmemory", "100mb")
            async with opened(server.url):
                assert "set it to noeviction" in caplog.text

    with caplog.at_level(logging.WARNING, "sessile.store"):
        ran(test())


@needs_redis
@pytest.mark.parametrize(
    ("policy", "may_forget_ends", "has_mark"),
    [
        ("noeviction", False, False),
        ("volatile-ttl", True, True),
        ("volatile-lru", True, True),
        ("allkeys-lru", True, False),
        ("allkeys-random", True, False),
    ],
)
def test_what_it_means_that_a_session_is_not_there(policy: str, may_forget_ends: bool, has_mark: bool) -> None:  # noqa: FBT001
    """By the policy as of now; the mark stays as long as the data, and is another one when they are gone."""

    async def test() -> None:
        with serving(REDIS, "--maxmemory-policy", policy) as server:
            async with opened(server.url) as store, opened(server.url) as other:
                key = fresh_key()
                assert await store.absence(key) == Absence(), "no limit, no eviction"
                server.ask("CONFIG", "SET", "maxmemory", "100mb")
                said = await store.absence(key)
                assert (said.may_forget_ends, bool(said.mark)) == (may_forget_ends, has_mark)
                assert await other.absence(None) == await store.absence(fresh_key()) == said
                server.ask("FLUSHALL")
                assert ((await store.absence(key)).mark != said.mark) is has_mark

    ran(test())


@pytest.mark.parametrize(
    ("said", "policy"),
    [
        (b"maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n", "noeviction"),
        (b"maxmemory:100\r\nmaxmemory_policy:noeviction\r\n", "noeviction"),
        (b"maxmemory:100\r\nmaxmemory_policy:volatile-ttl\r\n", "volatile-ttl"),
        (b"used_memory:100\r\n", "unknown"),
        (ValueError("NOPERM"), "unknown"),
    ],
)
def test_a_policy_that_is_not_told_is_unknown(said: Any, policy: str) -> None:
    """A server that does not say what it evicts may evict anything."""
    assert eviction_of(said) == policy


# -- what it is given ------------------------------------------------------------------------------------------------------


@needs_redis
@pytest.mark.parametrize("options", [{}, {"protocol": 2}, {"decode_responses": True}])
@pytest.mark.parametrize("kind", ["redis.asyncio.Redis", "valkey.asyncio.Valkey"])
def test_a_client_may_be_given(server: Server, kind: str, options: dict[str, Any]) -> None:
    """Its settings are taken, whatever protocol it speaks; it stays as it was, open, and its own."""
    module, _, name = kind.rpartition(".")
    make = getattr(pytest.importorskip(module), name)

    async def test() -> None:
        async with make(port=server.port, **options) as client:
            async with opened(client) as store, opened(server.url) as other:
                key, record = fresh_key(), new(a=b"\xff\x00")
                assert await store.merge(key, record, "one") == Pushed(Outcome.APPLIED)
                assert same((await other.fetch(key, None)).record, record)
                assert (await store.fetch(key, record.version)).status is FetchStatus.CURRENT
                assert store.where == f"{module}.client.{name}" and store.is_single
                async with Heard().listening(store) as heard:
                    await asyncio.sleep(0.7)  # time for a ping
                    await other.merge(key, write(record, key, B, b=b"2")[0], "one")
                    await heard.until(lambda: len(heard.all) > 1)
                    assert [change.key for change in heard.changes] == [key]
            assert await client.ping()

    ran(test())


@pytest.mark.parametrize("thing", [None, 7, b"redis://", object()])
def test_what_is_neither_url_nor_client_is_refused(thing: object) -> None:
    """At construction, with what would do."""
    with pytest.raises(SettingsError, match="a URL, or a client"):
        RedisStore(thing)


def test_a_client_for_programs_without_a_loop_is_refused() -> None:
    """It would block the loop."""
    from redis import Redis

    with pytest.raises(SettingsError, match=r"redis\.asyncio"):
        RedisStore(Redis())
