"""What `make show NAME=rolling-restart` counts, and that it would notice."""

from __future__ import annotations

import random

import pytest

from bench.browser import Browser
from bench.crowd import Asked, User
from bench.show import rolling_restart
from bench.show.rolling_restart import ROUNDS, SERVERS, Restart, judge


def user(*asked: tuple[str, int], **counted: int) -> User:
    made = User(Browser(1), random.Random(0))
    made.asked = [Asked(1.0, 1.5, method, status, "a") for method, status in asked or [("GET", 200), ("POST", 200)]]
    for name, value in counted.items():
        setattr(made, name, value)
    return made


RESTARTS = [Restart("a", 3.0, was_new=True)] * (ROUNDS * SERVERS)


@pytest.mark.parametrize(
    ("someone", "holds"),
    [
        (user(), True),
        (user(("POST", 502)), False),
        (user(("POST", 0)), False),
        (user(("GET", 503)), False),
        (user(changes_lost=1), False),
        (user(sessions_lost=1), False),
        (user(executed_twice=1), False),
        (user(stale=1), False),
    ],
)
def test_one_user_is_enough_to_break_the_promise(someone: User, holds: bool) -> None:  # noqa: FBT001
    """No request may fail, whatever its method, and nothing may be lost or executed twice."""
    figures = judge([user(), someone], RESTARTS)
    assert all(figure.holds for figure in figures if figure.holds is not None) is holds


@pytest.mark.parametrize("restarts", [RESTARTS[1:], [*RESTARTS[1:], Restart("a", 0.1, was_new=False)]])
def test_every_server_is_restarted_as_often_as_promised(restarts: list[Restart]) -> None:
    """A restart after which the same process answers was none."""
    assert any(figure.holds is False for figure in judge([user()], restarts))


def test_the_promise_holds_for_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of it on real processes, smaller: it is shown for both strategies, and every bounded figure was measured."""
    monkeypatch.setattr(rolling_restart, "USERS", 24)
    monkeypatch.setattr(rolling_restart, "ROUNDS", 1)
    said: list[str] = []
    shown = rolling_restart.run(said.append)
    assert shown.holds, ([figure for figure in shown.figures if figure.holds is False], shown.notes)
    assert sum(figure.holds is not None for figure in shown.figures) == 2 * 7
    assert len(said) == 6
