"""What a store's answers mean, by what is known here: servers over a store in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sessile.backend import PullStatus
from sessile.errors import StoreError
from sessile.record import ENDED, LIVE, ROTATED, Record, Stamp
from sessile.session import Session
from sessile.stores.base import Absence, Changed, Fetched, FetchStatus
from tests.network.clusters import Tab, until
from tests.stores.sharing import Servers, count, ran, servers_of

if TYPE_CHECKING:
    from sessile.record import Version
    from sessile.token import SessionKey


def as_tab(tab: Tab) -> Tab:
    other = Tab(tab.engine)
    other.cookies = dict(tab.cookies)
    return other


async def held_by_both(servers: Servers) -> Tab:
    tab = Tab(servers.engines[0])
    await tab.ask(servers.engines[0], count)
    await as_tab(tab).look(servers.engines[1])
    return tab


async def settled(servers: Servers) -> None:
    await until(lambda: not any(backend.status()["queued"] for backend in map(servers.backend, range(2))))


def test_an_end_that_the_store_lost_is_told_to_it_again() -> None:
    """A primary took its last seconds with it: a server that remembers the end believes no copy, and says so."""

    async def run() -> None:
        async with servers_of(2) as servers:
            tab = await held_by_both(servers)
            thief, key = as_tab(tab), tab.key
            alive = servers.store.records[key]
            await tab.ask(servers.engines[0], Session.logout)
            assert servers.engines[1].table.state(key) == ENDED
            for is_held in (True, False):
                servers.store.records[key] = alive
                assert (servers.engines[1].table.get(key) is not None) is is_held
                assert await thief.look(servers.engines[1]) == {}
                servers.store.tell(Changed(key, alive.heads, LIVE))
                await until(lambda: servers.store.records[key].state == ENDED)
                assert servers.backend(1).counts["ended_again"] >= 1
                for engine in servers.engines:
                    engine.table.drop(key)

    ran(run())


def test_a_copy_that_somebody_restores_is_ended_again() -> None:
    """The store came back empty; a server that missed the end gives it its copy, and one that knows of the end hears it."""

    async def run() -> None:
        async with servers_of(2) as servers:
            tab = await held_by_both(servers)
            thief, key = as_tab(tab), tab.key
            deaf = list(servers.store.listeners)[1]
            servers.store.deaf.add(deaf)
            await tab.ask(servers.engines[0], Session.logout)
            servers.clock.advance(1_200)
            for _ in range(3):
                servers.engines[0].sweep()
            assert servers.engines[0].table.get(key) is None
            servers.store.deaf.clear()
            servers.store.fail_over({})
            await until(lambda: key in servers.store.records and servers.store.records[key].state == ENDED)
            await settled(servers)
            assert [await thief.look(engine) for engine in servers.engines] == [{}, {}]

    ran(run())


@pytest.mark.parametrize(
    ("may_forget_ends", "known", "now", "shown"),
    [
        (False, b"first", b"first", {"n": 1}),
        (True, b"first", b"first", {}),
        (True, b"first", b"second", {"n": 1}),
        (True, b"", b"", {}),
    ],
)
def test_what_the_store_has_not_is_judged_by_its_mark(
    may_forget_ends: bool,  # noqa: FBT001
    known: bytes,
    now: bytes,
    shown: dict[str, int],
) -> None:
    """It ran out of time there, or the store lost everything: the copy is restored. It may have been evicted: it is over."""

    async def run() -> None:
        async with servers_of(2) as servers:
            tab = await held_by_both(servers)
            for at in range(2):
                servers.backend(at).epoch.mark = known
            servers.store.may_forget_ends, servers.store.mark = may_forget_ends, now
            servers.store.records.clear()
            servers.clock.advance(1)
            for engine in servers.engines:
                assert await as_tab(tab).look(engine) == shown
            await settled(servers)
            assert (tab.key in servers.store.records) is bool(shown)
            assert servers.backend(0).counts["gone"] == (not shown)
            assert sum(servers.backend(at).counts["restored"] for at in range(2)) == bool(shown)
            if shown and now != known:
                await until(lambda: servers.backend(0).epoch.mark == now)
                assert servers.backend(0).counts["reconciled"] == 1

    ran(run())


def test_what_never_came_to_the_store_is_not_judged_by_its_mark() -> None:
    """A session that was made while the store was away is brought to it, though it may have evicted others."""

    async def run() -> None:
        async with servers_of(1) as servers:
            (engine,) = servers.engines
            servers.store.may_forget_ends = True
            servers.store.fails = "away"
            tab = Tab(engine)
            await tab.ask(engine, count)
            servers.store.fails = ""
            await until(lambda: tab.key in servers.store.records)
            assert await tab.ask(engine, count) == 2

    ran(run())


def test_an_answer_that_word_of_an_end_overtook_is_asked_for_again() -> None:
    """The session was rotated while the question was under way: what the grace is for is shown, and no end is made of it."""

    async def run() -> None:
        async with servers_of(2) as servers:
            one, other = servers.engines
            tab = await held_by_both(servers)
            old, key = as_tab(tab), tab.key
            await tab.ask(one, count)
            fetch, asked = servers.store.fetch, asyncio.Event()

            async def slow(of: SessionKey, have: Version | None) -> Fetched:
                fetched = await fetch(of, have)
                if not asked.is_set():
                    asked.set()
                    await until(lambda: servers.store.records[key].state == ROTATED)
                    await asyncio.sleep(0.01)
                return fetched

            servers.store.fetch = slow  # type: ignore[assignment, method-assign]
            looking = asyncio.create_task(old.look(other))
            await asked.wait()
            await tab.ask(one, Session.rotate)
            assert await looking == {"n": 2}
            assert servers.store.records[key].state == ROTATED and servers.backend(1).counts["ended_again"] == 0

    ran(run())


def test_a_failing_question_shows_no_copy_that_is_over() -> None:
    """The very question by which a server finds out that the store is away."""

    async def run() -> None:
        async with servers_of(2) as servers:
            tab = await held_by_both(servers)
            thief = as_tab(tab)
            await tab.ask(servers.engines[0], Session.rotate)
            assert servers.engines[1].table.state(thief_of(servers, thief)) == LIVE
            servers.store.fails = "reset"
            assert await thief.look(servers.engines[1]) == {}
            assert servers.backend(1).counts["outages"] == 1

    ran(run())


def thief_of(servers: Servers, tab: Tab) -> Any:
    session = servers.engines[0].open((tab.header,), is_https=tab.is_https)
    visitor = servers.engines[0]._identify(session.visit)
    assert visitor is not None
    return visitor.identity.key


def test_nothing_is_left_of_a_session_that_nobody_has() -> None:
    """No lease for what the store said it has not."""

    async def run() -> None:
        async with servers_of(1) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            key = tab.key
            assert key in servers.backend(0).leases
            servers.clock.advance(10_000)
            assert await tab.look(engine) == {}
            assert key not in servers.backend(0).leases
            assert (await servers.store.fetch(key, None)).status is FetchStatus.NONE

    ran(run())


def test_a_copy_is_compared_by_its_version() -> None:
    """The store is asked for what is newer; where nothing is held, or what is held is over, for the whole."""

    async def run() -> None:
        async with servers_of(1, has_channel=False) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            key, fetch, versions = tab.key, servers.store.fetch, list[bool]()

            async def noting(of: SessionKey, have: Version | None) -> Fetched:
                versions.append(have is not None)
                return await fetch(of, have)

            servers.store.fetch = noting  # type: ignore[assignment, method-assign]
            held = engine.table.get(key)
            assert held is not None
            record = Record.unpack(held)
            pulls, trips = servers.backend(0)._pulls, servers.backend(0).counts["trips"]
            asked = [await pulls.once(key, have) for have in (record, None, record.end(ENDED, servers.clock()))]
            assert [pulled.status for pulled in asked] == [PullStatus.CURRENT, PullStatus.RECORD, PullStatus.RECORD]
            assert all(pulled.record is not None for pulled in asked)
            servers.clock.now_ms = record.expires_ms()
            await pulls.once(key, record)
            assert versions == [True, False, False, False]
            assert servers.backend(0).counts["trips"] == trips + len(versions)

    ran(run())


def test_a_failover_is_waited_for_whatever_the_browser_has_seen() -> None:
    """A session of which nothing is held here may be in the store."""

    async def run() -> None:
        async with servers_of(2) as servers:
            tab = Tab(servers.engines[0])
            await tab.ask(servers.engines[0], count)
            servers.store.fails = "failing over"
            asking = asyncio.create_task(servers.backend(1)._pulls.pull(tab.key, None, ()))
            await until(lambda: bool(servers.backend(1).outage))
            await asyncio.sleep(0)
            assert not asking.done()
            servers.store.fails = ""
            assert (await asking).status is PullStatus.RECORD

    ran(run())


def test_a_store_that_goes_away_in_between_judges_no_copy() -> None:
    """It said that it has nothing, and could not be asked whether it may have forgotten."""

    async def run() -> None:
        async with servers_of(1) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            held = engine.table.get(tab.key)
            assert held is not None
            servers.store.records.clear()

            async def failing(_: SessionKey) -> Absence:
                raise StoreError("it is gone")

            servers.store.absence = failing  # type: ignore[assignment, method-assign]
            pulled = await servers.backend(0)._pulls.once(tab.key, Record.unpack(held))
            assert pulled.status is PullStatus.UNREACHABLE and servers.backend(0).counts["outages"] == 1

    ran(run())


def test_no_lease_is_left_of_a_copy_whose_end_is_known() -> None:
    """However it came by one."""

    async def run() -> None:
        async with servers_of(1) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            alive = servers.store.records[tab.key]
            backend = servers.backend(0)
            backend.is_settled = lambda _: False  # type: ignore[assignment, method-assign]  # word of the end is on its way already
            assert tab.key in backend.leases
            assert backend._pulls._contradicted(tab.key, alive).status is PullStatus.RECORD
            assert tab.key not in backend.leases

    ran(run())


def test_a_rotated_session_is_shown_for_its_grace_without_the_store() -> None:
    """What is held of its end is the answer, and not the copy that somebody still has."""

    async def run() -> None:
        async with servers_of(1) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            held = engine.table.get(tab.key)
            assert held is not None
            alive = Record.unpack(held)
            rotated = alive.end(ROTATED, servers.clock())
            engine.table.put(tab.key, rotated)
            pulls = servers.backend(0)._pulls
            assert pulls.without_store(tab.key, alive, PullStatus.UNREACHABLE).record == rotated
            engine.table.put(tab.key, rotated.end(ENDED, servers.clock()))
            engine.table.drop(tab.key)
            over = pulls.without_store(tab.key, alive, PullStatus.UNREACHABLE).record
            assert over is not None and (over.state, over.fields) == (ENDED, {})

    ran(run())


def test_a_failover_is_waited_for_where_what_is_held_will_not_do() -> None:
    """The other server wrote last: its browser is not shown this server's older copy, but waits for the store."""

    async def run() -> None:
        async with servers_of(2) as servers:
            one, other = servers.engines
            tab = Tab(one)
            await tab.ask(one, count)
            await tab.ask(other, count)
            servers.store.fails = "failing over"
            asking = asyncio.create_task(tab.ask(one, count))
            await asyncio.sleep(0.1)
            assert not asking.done()
            servers.store.fails = ""
            assert await asking == 3
            assert one.counts["stale"] == 0

    ran(run())


@pytest.mark.parametrize("comes", [True, False])
def test_what_another_server_is_about_to_bring_is_waited_for(comes: bool) -> None:  # noqa: FBT001
    """The store answers, and lacks what the browser has seen: its writer may bring it at any moment, or never."""

    async def run() -> None:
        async with servers_of(2, pull_timeout=0.5) as servers:
            one, other = servers.engines
            tab = Tab(one)
            await tab.ask(one, count)
            before = servers.store.records[tab.key]
            await tab.ask(other, count)
            after = servers.store.records[tab.key]
            servers.store.records[tab.key] = before
            asking = asyncio.create_task(tab.ask(one, count))
            await asyncio.sleep(0.1)
            assert not asking.done()
            if comes:
                servers.store.records[tab.key] = after
            assert await asking == (3 if comes else 2)
            assert one.counts["stale"] == (0 if comes else 1)

    ran(run())


def test_whoever_stops_leaves_no_question_behind() -> None:
    """It waits for the answers for a moment, and asks nothing any more."""

    async def run() -> None:
        async with servers_of(1) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)

            async def never(_key: SessionKey, _have: Version | None) -> Fetched:
                await asyncio.Event().wait()
                raise AssertionError

            servers.store.fetch = never  # type: ignore[assignment, method-assign]
            pulls = servers.backend(0)._pulls
            asking = asyncio.create_task(pulls.once(tab.key, None))
            await until(lambda: bool(pulls._questions._asking))
            await pulls.end(0.01)
            assert not pulls._questions._asking
            with pytest.raises(asyncio.CancelledError):
                await asking

    ran(run())


def test_an_end_is_shown_whatever_the_browser_has_seen() -> None:
    """Nothing newer can come: it is not waited for."""

    async def run() -> None:
        async with servers_of(1, pull_timeout=60.0) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            alive = servers.store.records[tab.key]
            servers.store.records[tab.key] = alive.end(ENDED, servers.clock())
            async with asyncio.timeout(10):
                pulled = await servers.backend(0)._pulls.pull(tab.key, None, (Stamp(99, 9),))
            assert pulled.record is not None and pulled.record.state == ENDED

    ran(run())


@pytest.mark.parametrize("answers_with_end", [True, False])
def test_a_question_during_which_the_session_ends_is_asked_again(*, answers_with_end: bool) -> None:
    """Unless its answer is the end already; and no more than once."""

    async def run() -> None:
        async with servers_of(1) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            key, alive = tab.key, servers.store.records[tab.key]
            over = alive.end(ENDED, servers.clock())
            asked: list[SessionKey] = []

            async def fetch(of: SessionKey, _have: Version | None) -> Fetched:
                asked.append(of)
                servers.store.tell(Changed(of, over.heads, ENDED))
                return Fetched(FetchStatus.RECORD, over if answers_with_end else alive)

            servers.store.fetch = fetch  # type: ignore[assignment, method-assign]
            pulled = await servers.backend(0)._pulls.once(key, None)
            assert pulled.record is not None and pulled.record.state == ENDED
            assert len(asked) == (1 if answers_with_end else 2)

    ran(run())
