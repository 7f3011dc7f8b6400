"""How long it is worth waiting for a store, and how often it is looked for."""

from __future__ import annotations

import asyncio

import pytest

from sessile.stores import outage as module
from sessile.stores.outage import PROBE_MAX_S, PROBE_MIN_S, Outage, probe_in_s
from tests.network.clusters import Tab
from tests.stores.sharing import count, ran, servers_of


def test_nothing_is_waited_for_without_an_outage() -> None:
    """A store that is there answers, and that is that."""

    async def run() -> None:
        outage = Outage()
        assert not outage and outage.worth_s() == 0

    asyncio.run(run())


def test_its_end_is_waited_for_in_its_first_seconds_and_what_others_bring_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A long outage keeps nobody waiting; that it goes on is told anew, and prolongs nothing."""
    monkeypatch.setattr(module, "FAILOVER_S", 0.2)
    monkeypatch.setattr(module, "SETTLE_S", 0.1)

    async def run() -> None:
        outage = Outage()
        outage.begin("it is refused")
        assert outage and outage.reason == "it is refused"
        assert 0 < outage.worth_s() <= 0.2
        outage.unsettle()
        assert outage.worth_s() > 0.1, "another primary that was seen meanwhile shortens nothing"
        await outage.pause(0, outage.worth_s())
        assert outage and outage.worth_s() == 0
        outage.end()
        assert not outage and 0 < outage.worth_s() <= 0.1

    asyncio.run(run())


def test_whoever_waits_goes_on_when_the_store_is_back() -> None:
    """And not only when the time is over."""

    async def run() -> None:
        outage = Outage()
        outage.begin("it is refused")
        waiting = asyncio.create_task(outage.pause(0, 60))
        await asyncio.sleep(0)
        assert not waiting.done()
        outage.end()
        async with asyncio.timeout(10):
            await waiting

    asyncio.run(run())


def test_pauses_grow_and_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is twice the one before, up to a third of a second, and none is longer than there is time."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))

    async def run() -> None:
        monkeypatch.setattr(asyncio, "sleep", sleep)
        for times in (0, 1, 2, 3, 4, 5, 99):
            await Outage().pause(times, 10)
        await Outage().pause(4, 0.1)

    asyncio.run(run())
    assert slept == [0.02, 0.04, 0.08, 0.16, 0.32, 0.32, 0.32, 0.1]


@pytest.mark.parametrize(
    ("times", "usual_s"), [(0, PROBE_MIN_S), (2, 4 * PROBE_MIN_S), (9, PROBE_MAX_S), (10**6, PROBE_MAX_S)]
)
def test_a_store_that_is_away_is_looked_for_ever_less_often(times: int, usual_s: float) -> None:
    """Up to once a second, about, for ever."""
    assert all(0.5 * usual_s <= probe_in_s(times) <= 1.5 * usual_s for _ in range(100))


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
