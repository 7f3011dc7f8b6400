"""What `make show NAME=outage` counts, and that it would notice."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.show import outage
from bench.show.outage import Found, Leaver, judge
from tests.bench.users import holder

if TYPE_CHECKING:
    from bench.crowd import User

GOOD = Found(
    users=[holder(), holder("POST")],
    leavers=[Leaver("bb", {}, 1, is_answered=True)] * outage.LEAVERS,
    newcomers=[holder("POST")] * outage.NEWCOMERS,
    away_s=30.5,
    asked_meanwhile=10,
    slowest_meanwhile_s=0.5,
    is_settled=True,
    held={"aa": {"count": 1}, "bb": None},
)


def holds(found: Found) -> bool:
    return all(figure.holds for figure in judge(found) if figure.holds is not None)


def test_the_promise_can_be_kept() -> None:
    """Nobody noticed, and the store has everything."""
    assert holds(GOOD)


@pytest.mark.parametrize(
    "someone",
    [
        holder("GET", 503),
        holder("GET", 0),
        holder("POST", 503),
        holder(took_s=10.0),
        holder(changes_lost=1),
        holder(sessions_lost=1),
        holder(executed_twice=1),
        holder(stale=1),
    ],
)
def test_one_user_who_notices_is_enough(someone: User) -> None:
    """A request that fails, hangs or is answered wrongly breaks the promise."""
    assert not holds(replace(GOOD, users=[*GOOD.users, someone]))


@pytest.mark.parametrize(
    "planted",
    [
        {"away_s": 3.0},
        {"asked_meanwhile": 0},
        {"slowest_meanwhile_s": 10.0},
        {"is_settled": False},
        {"held": {"aa": None, "bb": None}},
        {"held": {"aa": {"count": 2}, "bb": None}},
        {"held": {"aa": {"count": 1}, "bb": {}}},
        {"shown_again": 1},
        {"newcomers": [holder("POST")]},
        {"newcomers": [holder("POST", 503)] * outage.NEWCOMERS},
        {"leavers": [Leaver("bb", {}, 1)] * outage.LEAVERS},
        {"leavers": [Leaver("bb", {}, 1, is_answered=True, took_s=10.0)] * outage.LEAVERS},
    ],
)
def test_what_is_planted_is_found(planted: dict[str, object]) -> None:
    """Too short an outage, a store that lacks something, an end that did not last: each of them breaks the promise."""
    assert not holds(replace(GOOD, **planted))  # type: ignore[arg-type]


@pytest.mark.needs("redis-server")
def test_the_promise_holds_for_a_short_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of it on real processes, smaller."""
    monkeypatch.setattr(outage, "USERS", 12)
    monkeypatch.setattr(outage, "LEAVERS", 4)
    monkeypatch.setattr(outage, "NEWCOMERS", 3)
    monkeypatch.setattr(outage, "BEFORE_S", 1.0)
    monkeypatch.setattr(outage, "AWAY_S", 3.0)
    monkeypatch.setattr(outage, "AFTER_S", 1.0)
    shown = outage.run(lambda _: None)
    assert shown.holds, ([figure for figure in shown.figures if figure.holds is False], shown.notes)
