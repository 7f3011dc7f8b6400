"""What `make show NAME=sticky-exact` counts, and that it would notice."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from bench.browser import Browser
from bench.show import sticky_exact
from bench.show.sticky_exact import Kill, User, judge_kill, judge_round_robin, judge_sticky


def user(answers: int = 50, servers: str = "a", wrong: int = 0, losses: int = 0, failed: str = "") -> User:
    made = User(Browser(1), random.Random(0))
    made.answers, made.servers, made.wrong, made.losses = answers, set(servers), wrong, losses
    made.failed = Counter(failed.split())
    return made


GOOD = [user(servers="a"), user(servers="b"), user(servers="c"), user(servers="d")]


@pytest.mark.parametrize(
    ("users", "holds"),
    [
        (GOOD, True),
        ([*GOOD, user(answers=49)], False),
        ([*GOOD, user(servers="ab")], False),
        ([*GOOD, user(wrong=1)], False),
        ([*GOOD, user(losses=1)], False),
        ([user(), user()], False),
    ],
)
def test_one_user_is_enough_to_break_the_sticky_promise(users: list[User], holds: bool) -> None:  # noqa: FBT001
    """A missing answer, a second server, a wrong answer, a lost session; or only one server for everybody."""
    assert all(figure.holds for figure in judge_sticky(users)) is holds


def test_round_robin_must_lose_something() -> None:
    """Where nobody loses a session there is no problem to solve, and the show says so."""
    assert not judge_round_robin([user(servers="ab")])[0].holds
    assert judge_round_robin([user(), user(losses=7)])[0].holds


@pytest.mark.parametrize(
    ("its", "other", "holds"),
    [
        (user(servers="ab", losses=1), user(), True),
        (user(servers="ab", losses=1, failed="POST"), user(), True),
        (user(servers="a", losses=0), user(), False),
        (user(servers="ab", losses=2), user(), False),
        (user(servers="abc", losses=1), user(), False),
        (user(servers="ab", losses=1, failed="GET"), user(), False),
        (user(servers="ab", losses=1, wrong=1), user(), False),
        (user(servers="ab", losses=1), user(losses=1), False),
        (user(servers="ab", losses=1), user(servers="ab"), False),
        (user(servers="ab", losses=1), user(failed="POST"), False),
    ],
)
def test_a_kill_costs_exactly_its_users_their_session(its: User, other: User, holds: bool) -> None:  # noqa: FBT001
    """Once, and no repeatable request; a request that is not repeatable may fail for them, and for nobody else."""
    figures = judge_kill([other, its], Kill("a", frozenset({1})))
    assert all(figure.holds for figure in figures if figure.holds is not None) is holds


@pytest.mark.parametrize(
    ("told", "wrong", "losses"),
    [
        ([{"key": "k", "fields": {"count": 1}}, {"key": "k", "fields": {"count": 2}}], 0, 0),
        ([{"key": "k", "fields": {"count": 1}}, {"key": "k", "fields": {"count": 1}}], 1, 0),
        ([{"key": "k", "fields": {"count": 1}}, {"key": "j", "fields": {"count": 1}}], 0, 1),
        ([{"key": "k", "fields": {"count": 1}}, {"key": "j", "fields": {"count": 2}}], 1, 1),
    ],
)
def test_an_answer_is_compared_with_what_the_session_must_hold(
    told: list[dict[str, Any]], wrong: int, losses: int
) -> None:
    """A lost update is a wrong answer; a session that begins anew is a loss, and is exact from there on."""
    someone = user(answers=0)
    for one in told:
        someone._judge({"server": "a", **one}, lambda model: model.update(count=model.get("count", 0) + 1))
    assert (someone.answers, someone.wrong, someone.losses) == (2, wrong, losses)


def test_the_promise_holds_for_a_few_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of it on real processes, smaller: it is shown, and every bounded figure was measured."""
    monkeypatch.setattr(sticky_exact, "USERS", 12)
    monkeypatch.setattr(sticky_exact, "REQUESTS", 12)
    monkeypatch.setattr(sticky_exact, "SERVERS", 3)
    said: list[str] = []
    shown = sticky_exact.run(said.append)
    assert shown.holds, [figure for figure in shown.figures if figure.holds is False]
    assert sum(figure.holds is not None for figure in shown.figures) == 12
    assert len(said) == 3
