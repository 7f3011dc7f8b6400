"""What `make show NAME=ends` counts, and that it would notice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.ending import plays
from bench.ending.plays import LIVING, Scale
from bench.ending.stores import STRATEGIES
from bench.ending.visits import Tally
from bench.show import CannotShow, Figure, ends
from bench.show.ends import CASES, SQL, Case, Row, judge
from sessile.settings import Settings
from tests.fakes import SECRET

GOOD = Tally(asked=12, ended=4)
SHOWN = Tally(asked=8)


def holds(figures: list[Figure]) -> bool:
    return all(figure.holds for figure in figures if figure.holds is not None)


@pytest.mark.parametrize(
    ("tallies", "is_fine"),
    [
        ({"logout": GOOD, LIVING: SHOWN}, True),
        ({"logout": replace(GOOD, refused=12), LIVING: SHOWN}, True),
        ({"logout": replace(GOOD, opened=1, users_opened={"ann"}), LIVING: SHOWN}, False),
        ({"logout": replace(GOOD, failed=1), LIVING: SHOWN}, False),
        ({"logout": replace(GOOD, overdue=1), LIVING: SHOWN}, False),
        ({"logout": replace(GOOD, ended=0), LIVING: SHOWN}, False),
        ({"logout": GOOD, LIVING: replace(SHOWN, failed=1)}, False),
        ({"logout": GOOD}, False),
    ],
)
def test_one_answer_is_enough_to_break_the_promise(tallies: dict[str, Tally], is_fine: bool) -> None:  # noqa: FBT001
    """An ended session that is shown, an answer that is none or comes too late, no logout at all, a session that should go on and does not."""
    good = Row("no fault", "sticky", {"logout": GOOD})
    assert holds(judge([good, Row("no fault", "sqlite", tallies)])) is is_fine


def test_every_strategy_is_played_without_a_fault_and_with_one() -> None:
    """No store or strategy is left out; each scale keeps the ratios of the durations as they are by default."""
    assert {name for case in CASES for name in case.strategies if case.play is plays.calm} == set(ends.ALL)
    faulty = {name for case in CASES for name in case.strategies if case.play is not plays.calm}
    assert faulty >= set(ends.ALL) - {"sticky", "redis off"}
    defaults = Settings.load(secret=SECRET)
    for scale in {case.scale_on(name) for case in CASES for name in case.strategies}:
        told = scale.settings(STRATEGIES["sqlite"])
        url = {"url": "sqlite:////tmp/x", "secret": SECRET}
        scaled = Settings.load(**{name: value for name, value in told.items() if name != "cache"}, **url)  # type: ignore[arg-type]
        for name in plays.DEFAULTS_S:
            assert getattr(scaled, name) == pytest.approx(getattr(defaults, name) / scale.factor, abs=0.001)
        assert scale.forgotten_s < scaled.idle_timeout, "copies may still lie somewhere when ends are forgotten"


@pytest.mark.parametrize("error", [CannotShow("a server did not start"), AssertionError("it does not answer")])
def test_a_case_that_is_not_played_to_its_end_counts(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """It is named with the reason, and the others are played."""

    async def refuse(*_: object) -> dict[str, Tally]:
        raise error

    async def play(*_: object) -> dict[str, Tally]:
        return {"logout": GOOD, LIVING: SHOWN}

    monkeypatch.setattr(ends, "CASES", (Case("odd", refuse, ("sticky",)), Case("even", play, ("sticky",))))
    monkeypatch.setattr(ends, "peer_figure", lambda _: "peer: NOT RUN")
    said: list[str] = []
    shown = ends.run(said.append)
    assert [figure.name for figure in shown.figures if figure.holds is False] == [
        "cases that were not played to their end"
    ]
    assert f"odd, sticky: not played to its end: {type(error).__name__}: {error}" in shown.notes
    assert len(said) == 2


def test_what_this_machine_lacks_counts_neither_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and how to have it."""
    monkeypatch.setattr(ends, "CASES", (Case("cut", plays.parted, ("all-to-all",)),))
    monkeypatch.setattr(ends, "networks_lacking", lambda: "it needs root")
    monkeypatch.setattr(ends, "peer_figure", lambda _: "peer: NOT RUN")
    shown = ends.run(lambda _: None)
    assert "cut, all-to-all: NOT RUN: it needs root" in shown.notes
    assert not shown.holds, "nothing was judged"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Scale:
    """Ends are forgotten as early as settings allow, while sessions last."""
    monkeypatch.setitem(plays.DEFAULTS_S, "tombstone_keep", 120.0)
    monkeypatch.setattr(ends, "peer_figure", lambda _: "peer: NOT RUN")
    return Scale(factor=50, users=3)


@pytest.mark.needs("redis-server")
def test_the_promise_holds_for_a_few_sessions(monkeypatch: pytest.MonkeyPatch, short: Scale) -> None:
    """The whole of it on real processes, smaller: nothing fails, a server has no room, a channel is not heard."""
    monkeypatch.setattr(ends, "SQL", replace(SQL, factor=short.factor, swept_s=short.swept_s))
    cases = (
        Case("no fault", plays.calm, ("all-to-all", "sqlite"), short),
        Case("server full", plays.full, ("primary-backup",), short),
        Case("Redis", plays.unheard, ("redis leased",), short),
    )
    monkeypatch.setattr(ends, "CASES", cases)
    said: list[str] = []
    shown = ends.run(said.append)
    assert shown.holds, ([figure for figure in shown.figures if figure.holds is False], shown.notes)
    assert len(said) == 4
    assert sum(figure.holds is not None for figure in shown.figures) == 2 * 4 + 2 + 5
