"""What `make show NAME=kill` counts, and that it would notice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.show import kill
from bench.show.kill import Kill, judge
from tests.bench.users import worker

if TYPE_CHECKING:
    from bench.crowd import User

KILLS = [Kill("a", 10, 0.5, 1.0, is_whole=True)] * kill.KILLS


@pytest.mark.parametrize(
    ("someone", "holds"),
    [
        (worker(), True),
        (worker(("POST", 502), ("GET", 200)), True),
        (worker(("POST", 0)), True),
        (worker(("POST", 503)), False),
        (worker(("POST", 504)), False),
        (worker(("GET", 502)), False),
        (worker(("GET", 503)), False),
        (worker(("GET", 0)), False),
        (worker(changes_lost=1), False),
        (worker(sessions_lost=1), False),
        (worker(executed_twice=1), False),
        (worker(stale=1), False),
    ],
)
def test_one_user_is_enough_to_break_the_promise(someone: User, holds: bool) -> None:  # noqa: FBT001
    """A POST may end with its server; nothing else may fail, and nothing may be lost."""
    figures = judge([worker(), someone], KILLS)
    assert all(figure.holds for figure in figures if figure.holds is not None) is holds


@pytest.mark.parametrize("kills", [KILLS[1:], [*KILLS[1:], Kill("a", 10, 0.5, 30.0, is_whole=False)]])
def test_every_kill_counts_and_is_recovered_from(kills: list[Kill]) -> None:
    """One kill fewer than promised, or one after which copies stay away, is no proof."""
    assert any(figure.holds is False for figure in judge([worker()], kills))


def test_what_is_shown_is_what_was_measured() -> None:
    """Failures for each kill, and the longest times."""
    kills = [Kill("a", 10, 0.25, 1.0, is_whole=True), Kill("b", 0, 0.5, 2.0, is_whole=True)]
    by_name = {
        figure.name: figure.value for figure in judge([worker(("POST", 502)), worker(("POST", 0)), worker()], kills)
    }
    assert by_name["requests (POST) that ended with their server, for each kill"] == 1
    assert by_name["of these, cut in the middle of the answer"] == 1
    assert by_name["longest time to an answer, GET"] == 0.5
    assert by_name["longest time until all users of a killed server were served again"] == 0.5
    assert by_name["longest time from a restart until all copies were there"] == 2


def test_the_promise_holds_for_a_few_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of it on real processes, smaller: it is shown for both strategies, and every bounded figure was measured."""
    monkeypatch.setattr(kill, "USERS", 24)
    monkeypatch.setattr(kill, "KILLS", 2)
    monkeypatch.setattr(kill, "TELL_EVERY", 1)
    said: list[str] = []
    shown = kill.run(said.append)
    assert shown.holds, ([figure for figure in shown.figures if figure.holds is False], shown.notes)
    assert sum(figure.holds is not None for figure in shown.figures) == 2 * 8
    assert len(said) == 4
