"""What `make show NAME=rolling-restart` counts, and that it would notice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.show import rolling_restart
from bench.show.rolling_restart import ROUNDS, SERVERS, Restart, judge
from tests.bench.users import worker

if TYPE_CHECKING:
    from bench.crowd import User

RESTARTS = [Restart("a", 3.0, was_new=True)] * (ROUNDS * SERVERS)


@pytest.mark.parametrize(
    ("someone", "holds"),
    [
        (worker(), True),
        (worker(("POST", 502)), False),
        (worker(("POST", 0)), False),
        (worker(("GET", 503)), False),
        (worker(changes_lost=1), False),
        (worker(sessions_lost=1), False),
        (worker(executed_twice=1), False),
        (worker(stale=1), False),
    ],
)
def test_one_user_is_enough_to_break_the_promise(someone: User, holds: bool) -> None:  # noqa: FBT001
    """No request may fail, whatever its method, and nothing may be lost or executed twice."""
    figures = judge([worker(), someone], RESTARTS)
    assert all(figure.holds for figure in figures if figure.holds is not None) is holds


@pytest.mark.parametrize("restarts", [RESTARTS[1:], [*RESTARTS[1:], Restart("a", 0.1, was_new=False)]])
def test_every_server_is_restarted_as_often_as_promised(restarts: list[Restart]) -> None:
    """A restart after which the same process answers was none."""
    assert any(figure.holds is False for figure in judge([worker()], restarts))


def test_the_promise_holds_for_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of it on real processes, smaller: it is shown for both strategies, and every bounded figure was measured."""
    monkeypatch.setattr(rolling_restart, "USERS", 24)
    monkeypatch.setattr(rolling_restart, "ROUNDS", 1)
    said: list[str] = []
    shown = rolling_restart.run(said.append)
    assert shown.holds, ([figure for figure in shown.figures if figure.holds is False], shown.notes)
    assert sum(figure.holds is not None for figure in shown.figures) == 2 * 7
    assert len(said) == 6
