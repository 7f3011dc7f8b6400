"""A store as the engine's other holder: trips, leases, outages and failovers, on a store in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sessile.errors import SessionUnavailable, StoredRecordError
from sessile.record import LIVE
from sessile.stores import lost, shared
from sessile.stores import outage as outage_module
from sessile.stores.base import Changed, ChannelUp
from tests.network.clusters import Tab, until
from tests.stores.sharing import Servers, count, ran, servers_of

# -- trips ---------------------------------------------------------------------------------------------------------------


def test_a_held_and_leased_session_makes_no_trip() -> None:
    """Birth: one. A read where it is held: none. A miss: one, then none. A change: one, wherever it is made."""

    async def run() -> None:
        async with servers_of(2) as servers:
            one, other = servers.engines
            tab = Tab(one)
            trips = []
            for engine, handler in (
                (one, count),
                (one, dict),
                (other, dict),
                (other, dict),
                (other, count),
                (other, dict),
            ):
                await tab.ask(engine, handler)
                trips.append(servers.store.trips())
            assert trips == [1, 0, 1, 0, 1, 0]
            assert await tab.ask(one, count) == 3
            assert servers.store.trips() == 2, "asked for what the other wrote, and pushed"

    ran(run())


def test_without_the_channel_every_open_asks() -> None:
    """A lost channel ends all leases; one that is back gives none for what was asked before."""

    async def run() -> None:
        async with servers_of(1) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            servers.store.trips()
            servers.store.cut()
            for _ in range(3):
                await tab.look(engine)
            assert servers.store.trips() == 3
            servers.store.tell(ChannelUp("one"))
            servers.store.beat()
            await tab.look(engine)
            await tab.look(engine)
            assert servers.store.trips() == 1

    ran(run())


@pytest.mark.parametrize(("cache", "trips", "held"), [("leased", 0, 1), ("checked", 2, 1), ("off", 2, 0)])
def test_what_is_done_with_copies_is_a_setting(cache: str, trips: int, held: int) -> None:
    """Served, checked each time, or not kept."""

    async def run() -> None:
        async with servers_of(1, cache=cache) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            servers.store.trips()
            assert [await tab.look(engine) for _ in range(2)] == [{"n": 1}] * 2
            assert (servers.store.trips(), len(engine.table)) == (trips, held)

    ran(run())


def test_concurrent_misses_share_a_trip() -> None:
    """Ten requests for a session that is not held: one question."""

    async def run() -> None:
        async with servers_of(2) as servers:
            tab = Tab(servers.engines[0])
            await tab.ask(servers.engines[0], count)
            servers.store.trips()
            shown = await asyncio.gather(*(as_tab(tab).look(servers.engines[1]) for _ in range(10)))
            assert shown == [{"n": 1}] * 10
            assert servers.store.trips() == 1

    ran(run())


def as_tab(tab: Tab) -> Tab:
    other = Tab(tab.engine)
    other.cookies = dict(tab.cookies)
    return other


def test_a_question_asked_before_the_browser_saw_more_is_asked_again() -> None:
    """An answer under way may be older than what a later request presents: it is not shown as the newest."""

    async def run() -> None:
        async with servers_of(2) as servers:
            one, other = servers.engines
            tab = Tab(one)
            await tab.ask(one, count)
            old = as_tab(tab)
            record = servers.store.records[tab.key]
            servers.store.gate = asyncio.Event()
            early = asyncio.create_task(old.look(other))
            await asyncio.sleep(0.01)
            servers.store.gate.set()
            servers.store.gate = None
            await tab.ask(one, count)
            servers.store.records[tab.key], newest = record, servers.store.records[tab.key]
            await early
            servers.store.records[tab.key] = newest
            assert await tab.look(other) == {"n": 2}
            assert other.counts["stale"] == 0

    ran(run())


# -- exactness -----------------------------------------------------------------------------------------------------------


def test_any_server_answers_exactly() -> None:
    """One request after the other, each at another server."""

    async def run() -> None:
        async with servers_of(3) as servers:
            tab = Tab(servers.engines[0])
            assert [await tab.ask(servers.engines[at % 3], count) for at in range(60)] == list(range(1, 61))

    ran(run())


def test_parallel_requests_lose_nothing_and_go_together() -> None:
    """Eight fields at once at one server: two trips or three, not eight; at three servers: all there."""

    async def run() -> None:
        async with servers_of(3) as servers:
            tab = Tab(servers.engines[0])
            await tab.ask(servers.engines[0], count)

            def write(at: int) -> Any:
                return lambda session: session.update({f"f{at}": at})

            servers.store.trips()
            await asyncio.gather(*(as_tab(tab).ask(servers.engines[0], write(at)) for at in range(8)))
            assert servers.store.trips() <= 3
            await asyncio.gather(*(as_tab(tab).ask(servers.engines[at % 3], write(at)) for at in range(8, 16)))
            wanted = {"n": 1, **{f"f{at}": at for at in range(16)}}
            for engine in servers.engines:
                assert await tab.look(engine) == wanted

    ran(run())


def test_an_end_is_known_everywhere_when_it_is_answered() -> None:
    """The channel has told the others by then, and what they hold is worth nothing."""

    async def run() -> None:
        async with servers_of(3) as servers:
            tab = Tab(servers.engines[0])
            await tab.ask(servers.engines[0], count)
            thief = as_tab(tab)
            for engine in servers.engines:
                await thief.look(engine)
            await tab.ask(servers.engines[1], lambda session: session.logout())
            for engine in servers.engines:
                assert await thief.look(engine) == {}
            assert not servers.backend(0)._confirmations

    ran(run())


def test_what_is_not_acknowledged_is_counted() -> None:
    """The store has it and no replica does: the answer is sent, and counted as degraded."""

    async def run() -> None:
        async with servers_of(1) as servers:
            servers.store.is_acknowledging = False
            await Tab(servers.engines[0]).ask(servers.engines[0], count)
            assert servers.engines[0].counts["degraded"] == 1
            assert servers.backend(0).status()["queued"] == 0

    ran(run())


def test_touches_are_told_together_and_keep_a_session_alive() -> None:
    """A session that is only read, at one server, is not out of time at the other."""

    async def run() -> None:
        async with servers_of(2, idle_timeout=10) as servers:
            one, other = servers.engines
            tab = Tab(one)
            await tab.ask(one, count)
            await tab.look(other)
            for _ in range(4):
                servers.clock.advance(4)
                assert await tab.look(one) == {"n": 1}
                servers.store.trips()
                await until(lambda: "touch" in servers.store.calls)
            assert await tab.look(other) == {"n": 1}, "its copy here is out of time, and the store knows better"

    ran(run())


def test_a_use_is_not_forgotten_with_its_server() -> None:
    """Whether the store was away when it was to be told, or the server stops a moment later."""

    async def run() -> None:
        async with servers_of(2, idle_timeout=10) as servers:
            one, other = servers.engines
            tabs = [Tab(one), Tab(one)]
            for tab in tabs:
                await tab.ask(one, count)
            servers.clock.advance(9)
            servers.store.fails = "refused"
            await tabs[0].look(one)
            await until(lambda: servers.backend(0).status()["state"] == "away")
            servers.store.fails = ""
            await until(lambda: servers.backend(0).status()["state"] == "ready")
            await tabs[1].look(one)
            await servers.backend(0).stop()
            servers.clock.advance(9)
            assert [await tab.look(other) for tab in tabs] == [{"n": 1}, {"n": 1}]

    ran(run())


# -- outages -------------------------------------------------------------------------------------------------------------


def test_an_outage_is_noticed_by_nobody_whose_session_is_held() -> None:
    """Opens go on, changes queue, one entry for each session; on return all is pushed once, and equal."""

    async def run() -> None:
        async with servers_of(1) as servers:
            (engine,) = servers.engines
            tabs = [Tab(engine) for _ in range(20)]
            for tab in tabs:
                await tab.ask(engine, count)
            servers.store.fails = "refused"
            for _ in range(5):
                for tab in tabs:
                    await tab.ask(engine, count)
            assert servers.backend(0).status()["queued"] == 20
            assert servers.backend(0).status()["state"] == "away"
            assert servers.store.trips() <= 50, "nobody waits for a store that is away: a probe now and then"
            servers.store.fails = ""
            await until(lambda: servers.backend(0).status()["queued"] == 0)
            await until(lambda: servers.backend(0).counts["reconciled"] == 1)
            assert servers.store.calls.count("merge") <= 21
            for tab in tabs:
                held = engine.table.get(tab.key)
                assert held is not None
                assert servers.store.records[tab.key].same_state(type(servers.store.records[tab.key]).unpack(held))
            assert [await tab.ask(engine, count) for tab in tabs] == [7] * 20

    ran(run())


def test_an_outage_may_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """outage=refuse: 503 for whoever would be shown what cannot be checked. A session held nowhere is 503 in any case."""
    monkeypatch.setattr(outage_module, "FAILOVER_S", 0.3)

    async def run() -> None:
        for outage in ("refuse", "serve"):
            async with servers_of(2, outage=outage) as servers:
                one, other = servers.engines
                tab = Tab(one)
                await tab.ask(one, count)
                servers.store.fails = "hangs"
                servers.store.cut()
                with pytest.raises(SessionUnavailable):
                    await tab.look(other)
                if outage == "serve":
                    assert await tab.look(one) == {"n": 1}
                else:
                    with pytest.raises(SessionUnavailable):
                        await tab.look(one)

    ran(run())


def test_a_server_starts_without_its_store() -> None:
    """New sessions are made, held, and pushed when the store is there."""

    async def run() -> None:
        servers = Servers(1)
        servers.store.fails = "not there yet"
        await servers.backend(0).start()
        tab = Tab(servers.engines[0])
        await tab.ask(servers.engines[0], count)
        servers.store.fails = ""
        await until(lambda: tab.key in servers.store.records)
        await servers.backend(0).stop()

    ran(run())


def test_a_store_that_comes_back_empty_gets_everything_that_servers_hold() -> None:
    """Every session with a copy on a live server is there afterwards; no ended one is back."""

    async def run() -> None:
        async with servers_of(2) as servers:
            tabs = [Tab(servers.engines[at % 2]) for at in range(40)]
            for at, tab in enumerate(tabs):
                await tab.ask(servers.engines[at % 2], count)
                await tab.look(servers.engines[(at + 1) % 2])
            thief = as_tab(tabs[0])
            await tabs[0].ask(servers.engines[0], lambda session: session.logout())
            servers.store.fails = "killed"
            servers.store.cut()
            await tabs[1].ask(servers.engines[1], count)
            servers.store.fails = ""
            servers.store.fail_over({})
            await until(lambda: all(servers.backend(at).counts["reconciled"] for at in range(2)))
            await until(lambda: sum(record.state == LIVE for record in servers.store.records.values()) == 39)
            assert [await thief.look(engine) for engine in servers.engines] == [{}, {}]
            assert await tabs[1].look(servers.engines[0]) == {"n": 2}

    ran(run())


def test_what_a_failed_primary_took_with_it_is_pushed_again() -> None:
    """The new primary lacks the last second: what was changed within failover_window comes back, ends included."""

    async def run() -> None:
        async with servers_of(1, sessions_max=4) as servers:
            (engine,) = servers.engines
            tabs = [Tab(engine) for _ in range(8)]
            for tab in tabs:
                await tab.ask(engine, count)
            before = dict(servers.store.records)
            for tab in tabs[:4]:
                await tab.ask(engine, count)
            keys = [tab.key for tab in tabs]
            await tabs[7].ask(engine, lambda session: session.logout())
            assert len(engine.table) <= 4
            servers.store.fail_over(before)
            await until(lambda: servers.store.records[keys[7]].state != LIVE)
            for tab in tabs[:4]:
                assert await tab.ask(engine, count) == 3

    ran(run())


def test_a_session_that_is_over_elsewhere_is_not_restored_from_an_old_copy() -> None:
    """The channel told of the end, the store then forgot it: a copy that is still held is worth nothing."""

    async def run() -> None:
        async with servers_of(2) as servers:
            one, other = servers.engines
            tab = Tab(one)
            await tab.ask(one, count)
            thief = as_tab(tab)
            await thief.look(other)
            await tab.ask(one, lambda session: session.logout())
            servers.store.records.clear()
            assert await thief.look(other) == {}
            assert servers.backend(1).counts["restored"] == 0

    ran(run())


def test_a_session_that_is_known_to_be_over_is_not_served_in_an_outage() -> None:
    """The channel told of the end, and then the store went away: what is held here is not what counts."""

    async def run() -> None:
        async with servers_of(2) as servers:
            one, other = servers.engines
            tab = Tab(one)
            await tab.ask(one, count)
            thief = as_tab(tab)
            await thief.look(other)
            await tab.ask(one, lambda session: session.logout())
            servers.store.fails = "away"
            for _ in range(2):  # the one that meets the outage, and the next
                assert await as_tab(thief).look(other) == {}

    ran(run())


def test_what_only_this_server_has_is_never_evicted() -> None:
    """The table is a cache: full, it lets go of what the store has, and of nothing else."""

    async def run() -> None:
        async with servers_of(1, sessions_max=10) as servers:
            (engine,) = servers.engines
            kept = [Tab(engine) for _ in range(5)]
            servers.store.fails = "away"
            for tab in kept:
                await tab.ask(engine, count)
            servers.store.fails = ""
            await until(lambda: servers.backend(0).status()["queued"] == 0)
            servers.store.fails = "away again"
            for tab in kept:
                await tab.ask(engine, count)
            for _ in range(5):
                await Tab(engine).ask(engine, count)
            assert all(engine.table.get(tab.key) for tab in kept)
            servers.store.fails = ""
            await until(lambda: servers.backend(0).status()["queued"] == 0)
            for _ in range(50):
                await Tab(engine).ask(engine, count)
            assert len(engine.table) == 10 and engine.table.evicted >= 50
            assert [await tab.ask(engine, count) for tab in kept] == [3] * 5

    ran(run())


def test_a_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many sessions that wait the oldest are given up, and counted."""
    monkeypatch.setattr(lost, "LOST_MAX", 3)

    async def run() -> None:
        async with servers_of(1) as servers:
            servers.store.fails = "away"
            for _ in range(5):
                await Tab(servers.engines[0]).ask(servers.engines[0], count)
            assert servers.backend(0).status()["queued"] == 3
            assert servers.backend(0).status()["counts"]["given_up"] == 2

    ran(run())


@pytest.mark.parametrize("cache", ["leased", "checked", "off"])
def test_changes_under_way_at_one_server_are_all_kept(cache: str) -> None:
    """Eight requests of a browser at once, again and again: the second change is not lost with the copy of the first."""

    async def run() -> None:
        async with servers_of(2, cache=cache) as servers:
            tab = Tab(servers.engines[0])
            await tab.ask(servers.engines[0], count)

            async def add(late: int) -> None:
                for _ in range(late):
                    await asyncio.sleep(0)
                await as_tab(tab).ask(servers.engines[0], lambda session: session.increment("hits"))

            for _ in range(20):
                await asyncio.gather(*map(add, range(8)))
            for engine in servers.engines:
                assert await tab.look(engine) == {"n": 1, "hits": 160}
            assert cache != "off" or not len(servers.engines[0].table)

    ran(run())


def test_what_ran_out_of_time_leaves_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions come and go, and what is kept of them stays flat."""
    monkeypatch.setattr(shared, "EXPIRE_S", 0.005)

    async def run() -> None:
        async with servers_of(1, idle_timeout=10) as servers:
            (engine,), backend = servers.engines, servers.backend(0)
            for _ in range(3):
                for _ in range(50):
                    await Tab(engine).ask(engine, count)
                assert 0 < len(backend.leases) <= 50
                servers.clock.advance(20)
                for _ in range(30):
                    engine.sweep()
                assert len(engine.table) == 0
                await until(lambda: len(backend.leases) == 0)
            assert not backend._confirmations and not backend.leases._watches and not backend._lost
            assert not backend._pulls._questions._asking and len(backend._touches) == 0

    ran(run())


def test_a_store_without_a_channel_is_asked_each_time() -> None:
    """No lease where nothing is told."""

    async def run() -> None:
        async with servers_of(1, has_channel=False) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            servers.store.trips()
            await tab.look(engine)
            assert servers.store.trips() == 1

    ran(run())


def test_a_change_told_while_asking_leaves_no_lease() -> None:
    """The answer was on its way when somebody changed the session: the copy is asked for again."""

    async def run() -> None:
        async with servers_of(1) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            servers.store.cut()
            servers.store.tell(ChannelUp("one"))
            servers.store.gate = asyncio.Event()
            looking = asyncio.create_task(tab.look(engine))
            await asyncio.sleep(0.01)
            servers.store.tell(Changed(tab.key, ((99, 5),), LIVE))  # type: ignore[arg-type]
            servers.store.gate.set()
            servers.store.gate = None
            await looking
            servers.store.trips()
            await tab.look(engine)
            assert servers.store.trips() == 1

    ran(run())


def test_what_fails_at_once_is_tried_once_more() -> None:
    """A connection to a primary that is gone: the next one is found, and nobody notices."""

    async def run() -> None:
        async with servers_of(1) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            opened = servers.store.open

            async def open_() -> None:
                servers.store.fails = ""
                await opened()

            servers.store.open = open_  # type: ignore[method-assign]
            servers.store.fails = "reset"
            assert await tab.ask(engine, count) == 2
            assert servers.backend(0).counts["outages"] == engine.counts["degraded"] == 0

    ran(run())


def test_a_stored_record_that_is_none_is_no_outage(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs its own session an error, counted and said once; the others go on with the store as ever."""

    async def run() -> None:
        async with servers_of(1) as servers:
            (engine,) = servers.engines
            spoilt, other = Tab(engine), Tab(engine)
            for tab in (spoilt, other):
                await tab.ask(engine, count)
            key = bytes.fromhex(await spoilt.ask(engine, lambda session: session.key))
            for name in ("fetch", "apply", "merge"):
                call = getattr(servers.store, name)

                async def fail(subject: Any, *rest: Any, call: Any = call) -> Any:
                    if key in (subject, getattr(subject, "key", b"")):
                        raise StoredRecordError("memory holds what is no session")
                    return await call(subject, *rest)

                monkeypatch.setattr(servers.store, name, fail)
            await spoilt.ask(engine, count)  # the copy is held; the change does not arrive
            engine.table.drop(key)
            for times in range(3):
                with pytest.raises(SessionUnavailable):
                    await spoilt.ask(engine, count)
                assert await other.ask(engine, count) == times + 2
            await servers.backend(0)._probe()
            status = servers.backend(0).status()
            assert status["state"] == "ready" and status["counts"]["malformed"] > 3
            assert "outages" not in status["counts"]
            assert [record.levelname for record in caplog.records if "no session" in record.message] == ["ERROR"]

    ran(run())
