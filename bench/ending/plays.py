"""Plays: users log out while something fails. Each play starts its own store and servers, and counts what old cookies open.

The durations of a session, `tombstone_keep` included, are the defaults divided by one factor, so that their ratios stay the same.
The timeouts of requests and servers (`ack_timeout`, `store_timeout`, `dead_after` and the like) keep their defaults.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bench.ending.app import ended_record
from bench.ending.group import Group, group, within
from bench.ending.sockets import Talk
from bench.ending.stores import Redis, Relay, Store, Strategy, opened
from bench.ending.visits import Tally, User, ask, began, in_turn, logged_out, see_all, try_all
from bench.namespaces import namespaces
from bench.show import CannotShow
from sessile.connect import store_of
from sessile.errors import StoreError
from sessile.record import Record
from sessile.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from bench.ending.group import Host
    from sessile.stores.base import Store as StoreOf

__all__ = [
    "LIVING",
    "SQL_SWEPT_S",
    "Scale",
    "apart",
    "away",
    "calm",
    "full",
    "many_others",
    "parted",
    "paused",
    "pressed",
    "restarted",
    "unheard",
]

DEFAULTS_S: Final = {
    "idle_timeout": 1_800.0,
    "absolute_timeout": 43_200.0,
    "tombstone_keep": 600.0,
    "rotation_grace": 10.0,
}
FAILOVER_WINDOW_S: Final = 60.0
SWEPT_S: Final = 2.5
"""A server drops what has run out within this time: its wheel and its sweeper advance once a second."""
SQL_SWEPT_S: Final = 16.0
"""Rows of an SQL store whose time has passed are deleted within this time."""
REPLICATED_S: Final = 0.3
SETTLE_S: Final = 60.0
FULL: Final = 30
FILLERS: Final = 40
KILL_EVERY_S: Final = 0.01
LIVING: Final = "sessions that go on"
"""The name of the tally of sessions that must be shown."""
PRESSURE: Final = 800
PRESSURE_BYTES: Final = 8_000
SPARE_BYTES: Final = 2_000_000
OTHERS_AT_ONCE: Final = 2_000


@dataclass(frozen=True)
class Scale:
    """The factor by which sessions and ends last shorter than by default, and the number of users of each kind."""

    factor: float = 50.0
    users: int = 12
    others: int = 100_001
    swept_s: float = SWEPT_S

    @property
    def keep_s(self) -> float:
        return DEFAULTS_S["tombstone_keep"] / self.factor

    @property
    def idle_s(self) -> float:
        return DEFAULTS_S["idle_timeout"] / self.factor

    @property
    def grace_s(self) -> float:
        return DEFAULTS_S["rotation_grace"] / self.factor

    @property
    def forgotten_s(self) -> float:
        """This long after an end every tombstone of it has been dropped."""
        return self.keep_s + self.swept_s

    @property
    def limits_ms(self) -> tuple[int, int]:
        """The idle timeout and the absolute timeout."""
        idle_ms, absolute_ms = (
            round(DEFAULTS_S[name] / self.factor * 1000) for name in ("idle_timeout", "absolute_timeout")
        )
        return idle_ms, absolute_ms

    def settings(self, strategy: Strategy) -> dict[str, str]:
        """The settings of the durations, and of the strategy."""
        scaled = {name: f"{seconds * 1000 / self.factor:.0f}ms" for name, seconds in DEFAULTS_S.items()}
        window = {"failover_window": f"{FAILOVER_WINDOW_S * 1000 / self.factor:.0f}ms"} if strategy.is_store else {}
        return {**scaled, **window, **strategy.settings}


@dataclass
class Stage:
    """A store and the servers on it."""

    servers: Group
    store: Store | None
    idle_s: float
    relay: Relay | None = None
    tallies: dict[str, Tally] = field(default_factory=dict)

    @property
    def hosts(self) -> list[Host]:
        return self.servers.hosts

    def tally(self, kind: str) -> Tally:
        return self.tallies.setdefault(kind, Tally(idle_s=self.idle_s))


@contextlib.asynccontextmanager
async def staged(
    strategy: Strategy,
    scale: Scale,
    *,
    own: dict[int, dict[str, str]] | None = None,
    kind: str = "asyncio",
    is_relayed: bool = False,
) -> AsyncIterator[Stage]:
    """The servers of a strategy: three in a cluster, two on a store, one with `sticky://`."""
    async with contextlib.AsyncExitStack() as stack:
        url, store = stack.enter_context(opened(strategy))
        own = dict(own or {})
        relay = None
        if is_relayed:
            assert store is not None, "only a store is reached over a relay"
            relay = await stack.enter_async_context(Relay(store.port))
            own[0] = {**own.get(0, {}), "url": url.replace(f":{store.port}", f":{relay.port}")}
        servers = await stack.enter_async_context(
            group(url, 3 if strategy.is_cluster else 2, kind=kind, settings=scale.settings(strategy), own=own)
        )
        yield Stage(servers, store, scale.idle_s, relay)


def names(kind: str, count: int) -> list[str]:
    """The names of users; each name is used once."""
    return [f"{kind}-{number}" for number in range(count)]


# -- nothing fails -------------------------------------------------------------------------------------------------------


async def calm(strategy: Strategy, scale: Scale, *, kind: str = "asyncio") -> dict[str, Tally]:
    """No fault: logouts and logins, long requests that write afterwards, writes that race with the logout."""
    async with staged(strategy, scale, kind=kind) as stage:
        hosts, count = stage.hosts, scale.users

        async def begin(what: str) -> list[User]:
            return await began(hosts, names(what, count), seen=hosts)

        long = await begin("long")
        async with asyncio.TaskGroup() as tasks, _long_requests(stage, long, tasks):
            await logged_out(long, hosts[::-1], stage.tally("long request"))
            tried = await begin("tried")
            await logged_out(tried, hosts, stage.tally("logout"))
            await try_all(tried, hosts, stage.tally("logout"), "at once")
            rotated = await begin("rotated")
            await logged_out(rotated, hosts, stage.tally("login"), "/login?user=again")
            racing = await begin("racing")
            await in_turn([_race(user, hosts, stage.tally("racing writes")) for user in racing], at_once=4)
            await try_all(racing, hosts, stage.tally("racing writes"), "at once")
            await asyncio.sleep(scale.grace_s + REPLICATED_S)
            await try_all(rotated, hosts, stage.tally("login"), "after the grace")
            unseen = await begin("unseen")
            await logged_out(unseen, hosts, stage.tally("logout"))
            living = await begin("living")
            await asyncio.sleep(scale.forgotten_s)
        await try_all(long, hosts, stage.tally("long request"), "after its last write")
        for users, what in ((unseen, "logout"), (tried, "logout"), (rotated, "login"), (racing, "racing writes")):
            await try_all(users, hosts, stage.tally(what), "long after")
        await try_all(long, hosts, stage.tally("long request"), "once more")
        await see_all(living, hosts, stage.tally(LIVING))
        return stage.tallies


@contextlib.asynccontextmanager
async def _long_requests(stage: Stage, users: Sequence[User], tasks: asyncio.TaskGroup) -> AsyncIterator[None]:
    """Requests of three kinds that have opened their session. When the context is left, each writes to it and ends."""
    hosts = stage.hosts
    talks = []
    for place, user in enumerate(users):
        host = hosts[place % len(hosts)]
        if place % 3 == 2 and stage.servers.kind != "gunicorn":
            talks.append(await Talk.begin(host.port, user.old))
        else:
            path = "/stream" if place % 3 == 1 else "/long"
            tasks.create_task(ask(host, path, dict(user.old)))

    async def all_wait() -> bool:
        waiting = [int((await host.ask("state")).get("waiting", 0)) for host in hosts]
        return sum(waiting) >= len(users)

    if not await within(SETTLE_S, all_wait):
        raise CannotShow("long requests did not come to wait")
    yield
    for host in hosts:
        await host.ask("release")
    for talk in talks:
        await talk.say()
        talk.close()


async def _race(user: User, hosts: Sequence[Host], tally: Tally) -> None:
    """A logout among writes of the same browser at all servers."""
    writing = [
        asyncio.create_task(ask(host, f"/set?name=n{turn}&value=1", dict(user.old)))
        for turn in range(2)
        for host in hosts
    ]
    await logged_out([user], hosts, tally)
    await asyncio.gather(*writing)


# -- servers fail --------------------------------------------------------------------------------------------------------


async def restarted(strategy: Strategy, scale: Scale) -> dict[str, Tally]:
    """The server at which users logged out is ended in good order, or killed, and started again."""
    async with staged(strategy, scale) as stage:
        first, *others = stage.hosts
        for what, ending in (("ended in good order", first.end), ("killed", first.kill)):
            users = await began(stage.hosts, names(what.partition(" ")[0], scale.users), seen=stage.hosts)
            tally = stage.tally(what)
            await logged_out(users, [first], tally)
            await ending()
            await try_all(users[: len(users) // 2], others, tally, "at once")
            await stage.servers.run(first)
            await stage.servers.until_ready()
            await asyncio.sleep(scale.forgotten_s)
            await try_all(users, [*others, first], tally, "long after")
        return stage.tallies


async def paused(strategy: Strategy, scale: Scale) -> dict[str, Tally]:
    """A server with copies is stopped for longer than `tombstone_keep`; meanwhile users log out elsewhere."""
    async with staged(strategy, scale) as stage:
        *others, last = stage.hosts
        tally = stage.tally("stopped")
        users = await began(stage.hosts, names("stopped", scale.users), seen=stage.hosts)
        last.pause()
        try:
            await logged_out(users, others, tally)
            await asyncio.sleep(scale.forgotten_s)
            waiting = asyncio.create_task(try_all(users, [last], tally, "while it was stopped"))
            await asyncio.sleep(REPLICATED_S)
        finally:
            last.resume()
        await waiting
        await try_all(users, stage.hosts, tally, "when it went on")
        await stage.servers.until_ready()
        await try_all(users, stage.hosts, tally, "when all was well")
        return stage.tallies


async def parted(strategy: Strategy, scale: Scale) -> dict[str, Tally]:
    """A cluster is cut in two for longer than `tombstone_keep`; users log out on either side; judged when it has healed."""
    with namespaces(3) as spaces:
        settings = scale.settings(strategy)
        async with group(
            f"{strategy.scheme}://", 3, settings=settings, namespaces=spaces.names, addresses=spaces.addresses
        ) as servers:
            stage = Stage(servers, None, scale.idle_s)
            small = await began(stage.hosts, names("small", scale.users), seen=stage.hosts)
            large = await began(stage.hosts, names("large", scale.users), seen=stage.hosts)
            spaces.cut([(0, 1), (1, 0), (0, 2), (2, 0)])
            await asyncio.gather(
                logged_out(small, stage.hosts[:1], stage.tally("on the smaller side")),
                logged_out(large, stage.hosts[1:], stage.tally("on the larger side")),
            )
            await asyncio.sleep(scale.forgotten_s)
            spaces.heal()
            await servers.until_ready()
            await asyncio.sleep(REPLICATED_S)
            for when in ("healed", "once more"):
                await try_all(small, stage.hosts, stage.tally("on the smaller side"), when)
                await try_all(large, stage.hosts, stage.tally("on the larger side"), when)
                await asyncio.sleep(1.0)
            return stage.tallies


async def full(strategy: Strategy, scale: Scale) -> dict[str, Tally]:
    """The last server has no room; sessions that it was asked for and cannot hold end at other servers."""
    places = 3 if strategy.is_cluster else 2
    async with staged(strategy, scale, own={places - 1: {"sessions_max": str(FULL)}}) as stage:
        *others, last = stage.hosts
        tally = stage.tally("full")
        await in_turn([ask(last, f"/login?user=filler-{number}", {}) for number in range(FILLERS)])
        users = await began(others, names("full", scale.users), seen=others)
        await in_turn([ask(last, "/look", dict(user.old)) for user in users])
        await logged_out(users, others, tally)
        await try_all(users[: len(users) // 2], stage.hosts, tally, "at once")
        await asyncio.sleep(scale.forgotten_s)
        await try_all(users, [last], tally, "long after")
        await try_all(users, stage.hosts, tally, "once more")
        return stage.tallies


# -- the store fails -----------------------------------------------------------------------------------------------------


async def unheard(strategy: Strategy, scale: Scale) -> dict[str, Tally]:
    """The channel's messages about the logouts are lost, because its connections break."""
    async with staged(strategy, scale) as stage:
        tally = stage.tally("channel lost")
        users = await began(stage.hosts, names("unheard", scale.users), seen=stage.hosts)
        async with _deaf(stage.store):
            await logged_out(users, stage.hosts[:1], tally)
        await stage.servers.until_ready()
        await asyncio.sleep(scale.forgotten_s)
        await try_all(users, stage.hosts[::-1], tally, "long after")
        await try_all(users, stage.hosts, tally, "once more")
        return stage.tallies


@contextlib.asynccontextmanager
async def _deaf(store: Store | None) -> AsyncIterator[None]:
    """No server hears the channel of a Redis inside this block."""
    assert isinstance(store, Redis), "others have no channel"

    async def kill() -> None:
        while True:
            await asyncio.to_thread(store.server.ask, "CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(KILL_EVERY_S)

    killing = asyncio.create_task(kill())
    await asyncio.sleep(KILL_EVERY_S)
    try:
        yield
    finally:
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)


async def away(strategy: Strategy, scale: Scale) -> dict[str, Tally]:
    """The store is stopped for longer than `tombstone_keep`; users log out meanwhile at one server, and are seen at the other."""
    async with staged(strategy, scale) as stage:
        assert stage.store is not None, "only a store goes away"
        tally = stage.tally("store away")
        users = await began(stage.hosts, names("away", scale.users), seen=stage.hosts)
        await asyncio.to_thread(stage.store.stop)
        try:
            await logged_out(users, stage.hosts[:1], tally)
            await _looked_at(users, stage.hosts[1], scale.forgotten_s)
        finally:
            await asyncio.to_thread(stage.store.go_on)
        return await _judged_when_back(stage, users, tally)


async def apart(strategy: Strategy, scale: Scale, *, is_own: bool) -> dict[str, Tally]:
    """One server is cut off from the store for longer than `tombstone_keep`; users log out there (`is_own`), or at the other one."""
    async with staged(strategy, scale, is_relayed=True) as stage:
        assert stage.relay is not None, "asked for"
        cut_off, other = stage.hosts
        tally = stage.tally("logged out at the server apart" if is_own else "logged out at the other one")
        users = await began(stage.hosts, names("apart", scale.users), seen=stage.hosts)
        stage.relay.cut()
        await logged_out(users, [cut_off if is_own else other], tally)
        await _looked_at(users, other if is_own else cut_off, scale.forgotten_s)
        stage.relay.heal()
        return await _judged_when_back(stage, users, tally)


async def _looked_at(users: Sequence[User], host: Host, seconds: float) -> None:
    """Use the old cookies at a server that cannot know of the end yet: that is allowed, and keeps its copies alive."""
    for _ in range(2):
        await asyncio.sleep(seconds / 2)
        for user in users:
            user.used_s = time.monotonic()
        await in_turn([ask(host, "/look", dict(user.old)) for user in users])


async def _judged_when_back(stage: Stage, users: Sequence[User], tally: Tally) -> dict[str, Tally]:
    """Try the old cookies once every server reaches its store again and has sent it everything."""
    await stage.servers.until_ready()
    await asyncio.sleep(REPLICATED_S)
    for when in ("when the store was back", "once more"):
        await try_all(users, stage.hosts[::-1], tally, when)
        await asyncio.sleep(1.0)
    return stage.tallies


async def pressed(strategy: Strategy, scale: Scale) -> dict[str, Tally]:
    """A Redis whose memory is full evicts what expires first, and no server heard of the logouts on its channel."""
    async with staged(strategy, scale) as stage:
        tally = stage.tally("memory full")
        store = stage.store
        assert isinstance(store, Redis), "others have no such limit"
        users = await began(stage.hosts, names("pressed", scale.users), seen=stage.hosts)
        async with _deaf(store):
            await logged_out(users, stage.hosts[:1], tally)
        told = store.server.ask("INFO", "memory").decode()
        used = int(told.partition("used_memory:")[2].split()[0])
        store.server.ask("CONFIG", "SET", "maxmemory", str(used + SPARE_BYTES))
        await _fill(stage, scale, strategy)
        if b"evicted_keys:0\r" in store.server.ask("INFO", "stats"):
            raise CannotShow("the Redis had room for everything")
        await try_all(users, stage.hosts[::-1], tally, "at once")
        await asyncio.sleep(scale.forgotten_s)
        await try_all(users, stage.hosts[::-1], tally, "long after")
        return stage.tallies


async def _fill(stage: Stage, scale: Scale, strategy: Strategy) -> None:
    """Put large sessions of other users into the store, through a `Store` of our own."""
    idle_ms, absolute_ms = scale.limits_ms
    async with _client(stage, strategy) as store:

        async def put(number: int) -> None:
            born = Record.create(now_ms=0, idle_ms=idle_ms, deadline_ms=absolute_ms, subject="")
            record = born.write(number + 1, {"n": b"\xc4" + bytes(PRESSURE_BYTES)}, now_ms=0)[0]
            with contextlib.suppress(StoreError):  # it takes nothing while it evicts
                await store.merge(number.to_bytes(16, "big"), record, "none")

        await in_turn([put(number) for number in range(PRESSURE)])


async def many_others(strategy: Strategy, scale: Scale) -> dict[str, Tally]:
    """More sessions of other users end than earlier versions of a server remembered."""
    async with staged(strategy, scale) as stage:
        tally = stage.tally("many others")
        users = await began(stage.hosts, names("many", scale.users), seen=stage.hosts)
        await logged_out(users, stage.hosts[:1], tally)
        await asyncio.sleep(REPLICATED_S)
        if strategy.is_cluster:
            await stage.hosts[0].ask(f"others?count={scale.others}")
        else:
            await _end_others(stage, scale, strategy)
        await asyncio.sleep(max(0.0, users[-1].ended_s + scale.forgotten_s - time.monotonic()))
        await try_all(users, stage.hosts[::-1], tally, "long after")
        await try_all(users, stage.hosts, tally, "once more")
        return stage.tallies


async def _end_others(stage: Stage, scale: Scale, strategy: Strategy) -> None:
    """End one session through a `Store`, and publish the channel's message about it again for every other one, which is faster."""
    import redis.asyncio  # a driver that not everybody has

    first = b"one of the others"[:16]
    async with redis.asyncio.Redis.from_url(stage.servers.url) as client, client.pubsub() as heard:
        await heard.psubscribe("*")
        async with _client(stage, strategy) as store:
            await store.merge(first, ended_record(0, *scale.limits_ms), "none")
        async with asyncio.timeout(SETTLE_S):
            while (message := await heard.get_message(timeout=1.0)) is None or first not in _data_of(message):
                pass
        await heard.punsubscribe()
        for at in range(0, scale.others, OTHERS_AT_ONCE):
            pipeline = client.pipeline(transaction=False)
            for number in range(at, min(at + OTHERS_AT_ONCE, scale.others)):
                other = (1 << 100 | number).to_bytes(16, "big")
                pipeline.publish(message["channel"], message["data"].replace(first, other))
            if min(await pipeline.execute()) < len(stage.hosts):
                raise CannotShow("not all servers listened to the channel of the store")


def _data_of(message: dict[str, Any]) -> bytes:
    data = message["data"]
    return data if isinstance(data, bytes) else b""


@contextlib.asynccontextmanager
async def _client(stage: Stage, strategy: Strategy) -> AsyncIterator[StoreOf]:
    """A `Store` like the one that servers use."""
    store = store_of(Settings.load(url=stage.servers.url, **{**stage.servers.settings, **strategy.settings}))  # type: ignore[arg-type]  # settings as text
    await store.open()
    try:
        yield store
    finally:
        await store.close()
