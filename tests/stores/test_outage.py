"""How long it is worth waiting for a store, and how often it is looked for."""

from __future__ import annotations

import asyncio

import pytest

from sessile.stores import outage as module
from sessile.stores.outage import FAILOVER_S, PATIENCE_S, PROBE_MAX_S, PROBE_MIN_S, SETTLE_S, Outage, probe_in_s


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
    pauses_s = [probe_in_s(times) for _ in range(100)]
    assert all(0.5 * usual_s <= pause_s <= 1.5 * usual_s for pause_s in pauses_s)
    assert len(set(pauses_s)) > 1, "servers that lost it together do not come together"


def test_what_is_waited_for_longest_is_a_failover_and_what_others_bring_after_it() -> None:
    """Whoever bounds a whole trip by it cuts neither short."""
    assert PATIENCE_S == FAILOVER_S + SETTLE_S
