"""Ends of sessions, over servers that share a store: a part of the conformance suite.

Servers' clocks are moved by hours; the stores remember ends for a millisecond beyond a session's deadline, which is far. So
what a store or a server forgets before its time is forgotten here.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from sessile.clock import boot_clock_ms
from sessile.engine import Engine
from sessile.errors import SessionConflict, StoreError
from sessile.session import Session
from sessile.stores.base import ChannelDown, ChannelUp, Confirmed
from sessile.stores.shared import Shared
from tests.fakes import SECRET, FakeClock
from tests.network.clusters import Tab, until
from tests.stores.rig import WITHIN_S, in_place
from tests.stores.sharing import Later, count

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sessile.stores.base import Channel, Store
    from tests.stores.rig import Rig

__all__ = ["EndsConformance"]

AWAY_S = 1_500.0
"""Longer than any tombstone is kept by a server, shorter than a session may be idle."""


class Severed:
    """The store as a server sees it that may be cut off from it, or be told nothing.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.is_cut = False
        self.is_deaf = False
        self.told: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def open(self) -> None:
        self._check()
        await self.store.open()

    async def fetch(self, *args: Any) -> Any:
        self._check()
        return await self.store.fetch(*args)

    async def apply(self, *args: Any) -> Any:
        self._check()
        return await self.store.apply(*args)

    async def merge(self, *args: Any, **keywords: Any) -> Any:
        self._check()
        return await self.store.merge(*args, **keywords)

    async def touch(self, *args: Any) -> None:
        self._check()
        await self.store.touch(*args)

    async def listen(self, told: Any, is_used: Any = None) -> None:
        def hear(event: Channel) -> None:
            if not (self.is_deaf or self.is_cut) or isinstance(event, Confirmed):
                told(event)

        self.told = told
        await self.store.listen(hear, is_used)

    def _check(self) -> None:
        if self.is_cut:
            raise StoreError("it is cut off")


class Group:
    """Servers that share a place, on a clock of their own."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.engines: list[Engine] = []
        self.ways: list[Severed] = []

    async def add(self, store: Store, **settings: Any) -> None:
        way = Severed(store)
        keywords: dict[str, Any] = {"url": "redis://memory", "secret": SECRET, "ack_timeout": 5, **settings}
        engine = Engine(backend=Later(), clock_ms=self.clock, sweeps=False, **keywords)
        backend = engine.backend = Shared(engine, way)
        await backend.start()
        if store.has_channel:
            await until(lambda: backend.leases.is_up)
        self.engines.append(engine)
        self.ways.append(way)

    def backend(self, at: int) -> Shared:
        backend = self.engines[at].backend
        assert isinstance(backend, Shared)
        return backend

    def pass_time(self, seconds: float) -> None:
        """At the servers: what they remember for a time is forgotten."""
        self.clock.advance(seconds)
        for engine in self.engines:
            for _ in range(300):
                engine.sweep()

    async def shown(self, tab: Tab) -> list[dict[str, Any]]:
        """What each server shows to this browser, whose cookies stay as they are."""
        told = []
        for engine in self.engines:
            thief = Tab(engine)
            thief.cookies = dict(tab.cookies)
            told.append(await thief.look(engine))
        return told


@contextlib.asynccontextmanager
async def group_of(rig: Rig, size: int, **settings: Any) -> AsyncIterator[Group]:
    group = Group()
    try:
        for _ in range(size):
            await group.add(rig.place.store(tombstone_keep_ms=1, rotation_grace_ms=1), **settings)
        yield group
    finally:
        for at, way in enumerate(group.ways):
            way.is_cut = False
            await group.backend(at).stop()


async def known_everywhere(group: Group) -> Tab:
    """A browser whose session every server holds."""
    tab = Tab(group.engines[0])
    await tab.ask(group.engines[0], count)
    assert await group.shown(tab) == [{"n": 1}] * len(group.engines)
    return tab


async def sure(group: Group, at: int, tab: Tab) -> None:
    """Wait until this server would serve its copy without asking."""
    key = thief_key(tab, group)
    async with asyncio.timeout(WITHIN_S):
        while not group.backend(at).is_sure(key, group.clock()):
            await group.shown(tab)
            await asyncio.sleep(0.005)


def ended(tab: Tab) -> Tab:
    """Somebody who has kept its cookies."""
    thief = Tab(tab.engine)
    thief.cookies = dict(tab.cookies)
    return thief


class EndsConformance:
    """What has ended opens nothing, whatever was missed or forgotten."""

    @pytest.mark.parametrize("cache", ["leased", "checked", "off"])
    @in_place
    async def test_a_logout_is_not_undone_by_a_copy(self, rig: Rig, cache: str) -> None:
        """The copy of another server outlives every tombstone, and is still none."""
        async with group_of(rig, 2, cache=cache) as group:
            tab = await known_everywhere(group)
            thief = ended(tab)
            await tab.ask(group.engines[0], Session.logout)
            assert await group.shown(thief) == [{}, {}]
            group.pass_time(AWAY_S)
            await rig.place.pass_time(50)
            await rig.store.expire(1_000)
            await group.add(rig.place.store(tombstone_keep_ms=1, rotation_grace_ms=1), cache=cache)
            for _ in range(2):
                assert await group.shown(thief) == [{}, {}, {}]
            assert not any(group.backend(at).counts["restored"] for at in range(3))

    @in_place
    async def test_an_end_that_was_missed_is_learned_of_before_a_copy_is_served(self, rig: Rig) -> None:
        """The channel was lost for a moment, and the end with it; long after, the copy is asked about."""
        async with group_of(rig, 2) as group:
            tab = await known_everywhere(group)
            thief = ended(tab)
            group.ways[1].is_deaf = True
            await tab.ask(group.engines[0], Session.logout)
            group.ways[1].is_deaf = False
            if rig.store.has_channel:
                group.ways[1].told(ChannelDown())
                group.ways[1].told(ChannelUp("the same"))
            group.pass_time(AWAY_S)
            await rig.place.pass_time(50)
            await rig.store.expire(1_000)
            assert await group.shown(thief) == [{}, {}]
            assert not group.backend(1).counts["restored"]

    @pytest.mark.parametrize("verb", [Session.logout, Session.rotate])
    @in_place
    async def test_an_end_that_was_made_in_an_outage_arrives(self, rig: Rig, verb: Any) -> None:
        """However long one server was cut off from the store, and others from nothing: then it is over everywhere."""
        async with group_of(rig, 2, ack_timeout=0.2) as group:
            tab = await known_everywhere(group)
            thief = ended(tab)
            group.ways[0].is_cut = True
            await tab.ask(group.engines[0], verb)
            assert group.backend(0).status()["queued_ends"] == 1
            group.pass_time(AWAY_S)
            assert group.backend(0).status()["queued_ends"] == 1
            assert (await group.shown(thief))[0] == {}
            group.ways[0].is_cut = False
            await until(lambda: not group.backend(0).status()["queued"])
            if rig.store.has_channel:
                await until(lambda: thief_key(thief, group) in group.engines[1].table.ends)
            for _ in range(2):
                assert await group.shown(thief) == [{}, {}]

    @in_place
    async def test_what_is_known_to_be_over_is_not_served_in_an_outage(self, rig: Rig) -> None:
        """The copy lives on in the table; the store said that it is over, and then went away."""
        if not rig.store.has_channel:
            pytest.skip("this store tells of no changes")
        async with group_of(rig, 2) as group:
            tab = await known_everywhere(group)
            thief = ended(tab)
            key = thief_key(thief, group)
            await tab.ask(group.engines[0], Session.logout)
            await until(lambda: key in group.engines[1].table.ends)
            assert group.engines[1].table.get(key) is not None
            group.ways[1].is_cut = True
            for _ in range(3):  # the first one finds out that the store is away
                assert await group.shown(thief) == [{}, {}]
                group.pass_time(AWAY_S / 3)

    @in_place
    async def test_a_request_that_outlasts_an_end_stores_nothing(self, rig: Rig) -> None:
        """A stream that was opened before the logout writes long after it."""
        async with group_of(rig, 2) as group:
            tab = await known_everywhere(group)
            thief = ended(tab)
            session = group.engines[1].open((thief.header,), is_https=thief.is_https)
            await group.engines[1].prepare(session)
            assert session["n"] == 1
            await tab.ask(group.engines[0], Session.logout)
            group.pass_time(AWAY_S)
            await rig.place.pass_time(50)
            await rig.store.expire(1_000)
            session["late"] = 1
            with pytest.raises(SessionConflict):
                await group.engines[1].settle(group.engines[1].commit(session))
            assert await group.shown(thief) == [{}, {}]

    @in_place
    async def test_a_server_that_holds_a_lease_confirms_an_end_at_once(self, rig: Rig) -> None:
        """A logout at one of three servers, all in use, is answered when the others have heard of it: none is waited out."""
        if not rig.store.has_channel or not rig.place.names_lessees:
            pytest.skip("nobody holds a lease, or nobody can say who does")
        async with group_of(rig, 3) as group:
            unconfirmed = -1
            while unconfirmed != group.backend(0).counts["unconfirmed_ends"]:
                tab = await known_everywhere(group)
                thief, key = ended(tab), thief_key(tab, group)
                for at in range(3):
                    await sure(group, at, tab)
                unconfirmed = group.backend(0).counts["unconfirmed_ends"]
                await tab.ask(group.engines[0], Session.logout)
                assert not any(group.backend(at).is_sure(key, group.clock()) for at in (1, 2))
                assert await group.shown(thief) == [{}, {}, {}]

    @in_place
    async def test_a_server_that_says_nothing_is_waited_for_until_its_lease_is_over(self, rig: Rig) -> None:
        """Its loop does not run, and its threads serve: once the logout is answered, none of them is sure of a copy."""
        if not rig.store.has_channel:
            pytest.skip("nobody holds a lease")
        async with group_of(rig, 2) as group:
            tab = await known_everywhere(group)
            key = thief_key(tab, group)
            await sure(group, 1, tab)
            group.ways[1].is_deaf = True
            began_ms = boot_clock_ms()
            await tab.ask(group.engines[0], Session.logout)
            assert group.backend(0).counts["unconfirmed_ends"] == 1
            group.clock.advance((boot_clock_ms() - began_ms) / 1000)
            assert not group.backend(1).is_sure(key, group.clock())


def thief_key(tab: Tab, group: Group) -> bytes:
    """The key of the session that these cookies open."""
    session = group.engines[0].open((tab.header,), is_https=tab.is_https)
    visitor = group.engines[0]._identify(session.visit)
    assert visitor is not None
    return visitor.identity.key
