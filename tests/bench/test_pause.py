"""What `make show NAME=pause` counts, and that it would notice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.crowd import Asked, User
from bench.show import pause
from bench.show.pause import AGAIN_S, Pause, judge
from tests.bench.users import user


def asked(began_s: float, seconds: float, method: str = "GET", status: int = 200, server: str = "b") -> Asked:
    return Asked(began_s, began_s + seconds, method, status, server)


def wrong() -> User:
    made = user()
    made.wrongs = ["a tells something old"]
    return made


GOOD = Pause("a", 10.0, 13.0, [user()], asked=2, reopened=0, is_whole=True)
PAUSES = [GOOD] * pause.PAUSES


def holds(users: list[User], pauses: list[Pause]) -> bool:
    return all(figure.holds for figure in judge(users, pauses) if figure.holds is not None)


@pytest.mark.parametrize(
    ("someone", "is_fine"),
    [
        (user(asked(10.0, 1.0), asked(12.0, 0.1, "POST")), True),
        (user(asked(10.0, 2.9, "POST", server="a")), True),
        (user(asked(10.0, AGAIN_S + 0.1)), False),
        (user(asked(9.9, AGAIN_S + 0.1)), False),
        (user(asked(10.0, AGAIN_S + 0.1, "POST", server="b")), False),
        (user(asked(14.0, AGAIN_S + 0.1)), True),
        (user(asked(10.0, 0.1, status=503, server="")), False),
        (user(asked(10.0, 2.9, "POST", status=502, server="")), False),
        (user(changes_lost=1), False),
        (user(sessions_lost=1), False),
        (user(executed_twice=1), False),
        (user(stale=1), False),
    ],
)
def test_one_user_is_enough_to_break_the_promise(someone: User, is_fine: bool) -> None:  # noqa: FBT001
    """Only a POST that the stopped server was sent may wait for it, and it must be answered; nothing may be lost."""
    assert holds([user(asked(10.0, 0.1)), someone], PAUSES) is is_fine


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, asked=1),
        replace(GOOD, reopened=1),
        replace(GOOD, witnesses=[wrong()]),
        replace(GOOD, witnesses=[user(stale=1)]),
        replace(GOOD, is_whole=False),
    ],
)
def test_one_pause_is_enough_to_break_the_promise(bad: Pause) -> None:
    """A witness without an answer, an ended session shown, something old told, a server that stays outside; or one too few."""
    assert holds([user()], PAUSES)
    assert not holds([user()], [*PAUSES[1:], bad])
    assert not holds([user()], PAUSES[1:])


def test_the_promise_holds_for_a_few_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of it on real processes, smaller: it is shown for both strategies, and every bounded figure was measured.

    How long an answer takes on a machine that does other things as well is for the show to say.
    """
    monkeypatch.setattr(pause, "USERS", 24)
    monkeypatch.setattr(pause, "PAUSES", 2)
    monkeypatch.setattr(pause, "WITNESSES", 2)
    monkeypatch.setattr(pause, "TELL_EVERY", 1)
    monkeypatch.setattr(pause, "AGAIN_S", 20.0)
    said: list[str] = []
    shown = pause.run(said.append)
    assert shown.holds, ([figure for figure in shown.figures if figure.holds is False], shown.notes)
    assert sum(figure.holds is not None for figure in shown.figures) == 2 * 12
    assert len(said) == 4
