"""What `make show NAME=away` counts, and that it would notice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.ending.absence import Absence
from bench.ending.visits import Tally
from bench.show import Figure, away
from bench.show.away import ANSWERS_MIN, Row, judge

OLD = Tally(asked=ANSWERS_MIN, ended=20)
LIVING = Tally(asked=100, opened=100)
GOOD = Absence(OLD, LIVING)


def holds(figures: list[Figure]) -> bool:
    return all(figure.holds for figure in figures if figure.holds is not None)


@pytest.mark.parametrize(
    ("found", "is_fine"),
    [
        (GOOD, True),
        (Absence(replace(OLD, refused=9), LIVING), True),
        (Absence(replace(OLD, opened=1), LIVING), False),
        (Absence(replace(OLD, failed=1), LIVING), False),
        (Absence(replace(OLD, ended=0), LIVING), False),
        (Absence(replace(OLD, asked=ANSWERS_MIN - 1), LIVING), False),
        (Absence(OLD, replace(LIVING, opened=99)), False),
        (Absence(OLD, replace(LIVING, opened=98, refused=2)), True),
        (Absence(OLD, replace(LIVING, opened=97, refused=3)), False),
        (Absence(OLD, Tally()), False),
    ],
)
def test_one_answer_is_enough_to_break_the_promise(found: Absence, is_fine: bool) -> None:  # noqa: FBT001
    """An ended session that is shown; too few answers; a session that goes on and is denied, or refused too often."""
    assert holds(judge([Row("sqlite", "threads", is_busy=False, found={1.0: found})])) is is_fine


def test_a_stop_without_a_logout_shows_nothing() -> None:
    """At each stop, at least one logout must have been answered."""
    found = {1.0: GOOD, 2.0: Absence(Tally(), LIVING)}
    assert not holds(judge([Row("sqlite", "threads", is_busy=False, found=found)]))


@pytest.mark.needs("redis-server")
def test_the_promise_holds_for_a_few_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of it on real processes, smaller: stopped and busy, asyncio and threads."""
    monkeypatch.setattr(away, "SHARED", ("all-to-all", "redis leased"))
    monkeypatch.setattr(away, "KINDS", ("asyncio", "threads"))
    monkeypatch.setattr(away, "BUSY_KINDS", ("threads",))
    monkeypatch.setattr(away, "STOPS_S", (0.6, 1.5))
    monkeypatch.setattr(away, "USERS", 4)
    monkeypatch.setattr(away, "BUSY_USERS", 4)
    monkeypatch.setattr(away, "ANSWERS_MIN", 50)
    monkeypatch.setattr(away, "REFUSED_MAX", 1.0)
    said: list[str] = []
    shown = away.run(said.append)
    assert shown.holds, ([figure for figure in shown.figures if figure.holds is False], shown.notes)
    assert len(said) == 2 * 2 + 2
    assert sum(figure.holds is not None for figure in shown.figures) == 6 + 6
