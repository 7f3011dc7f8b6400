"""What `make show NAME=partition` counts, and that it would notice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from bench.browser import Browser
from bench.members import Cluster
from bench.show import CannotShow, partition
from bench.show.partition import SHAPES, Found, Play, Tab, User, are_equal, judged

GOOD = Found(answers=1_000, refused=16, worst_s=1.0, equal_s=2.2)


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        (GOOD, True),
        (replace(GOOD, answers=0), False),
        (replace(GOOD, against_rule=Counter({"404 for a session of before": 1})), False),
        (replace(GOOD, wrong=1), False),
        (replace(GOOD, touched=1), False),
        (replace(GOOD, equal_s=5.1), False),
        (replace(GOOD, lost=1), False),
        (replace(GOOD, unknown_after=1), False),
        (replace(GOOD, came_back=1), False),
    ],
)
def test_one_of_each_is_enough(found: Found, holds: bool) -> None:  # noqa: FBT001
    """Whatever is promised is judged by itself."""
    assert all(figure.holds for figure in judged("x", found) if figure.holds is not None) is holds


def test_shapes_say_who_reaches_whom() -> None:
    """A link needs both directions; each session has its tabs at two servers that are apart."""
    reached = {shape.name: [sorted(shape.reached(at)) for at in range(shape.servers)] for shape in SHAPES}
    assert reached == {
        "1 | 2": [[0], [1, 2], [1, 2]],
        "2 | 2": [[0, 1], [0, 1], [2, 3], [2, 3]],
        "1 - 2 - 3, ends apart": [[0, 1], [0, 1, 2], [1, 2]],
        "1 hears nobody": [[0], [1, 2], [1, 2]],
    }
    assert [shape.sides for shape in SHAPES] == [(0, 1), (0, 2), (0, 2), (0, 1)]


@pytest.mark.parametrize(
    ("contents", "is_equal"),
    [
        ([{"k": [0, "x", True]}, {"k": [0, "x", True]}, {}], True),
        ([{"k": [0, "x", True]}, {"k": [0, "y", True]}, {}], False),
        ([{"k": [0, "x", True]}, {}, {}], False),
        ([{"k": [0, "x", True]}, {"k": [0, "x", True]}, {"k": [0, "old", False]}], True),
        ([{"k": [2, "x", True]}, {"k": [0, "x", True]}, {}], False),
        ([{"k": [2, "x", True]}, {}, {}], True),
    ],
)
def test_contents_are_compared(contents: list[dict[str, Any]], is_equal: bool) -> None:  # noqa: FBT001
    """Every holder has it, and all have the same; who is none shows nothing of its own."""
    assert are_equal(contents, 2) is is_equal


def playing(held: set[str]) -> tuple[Play, User]:
    """A cut under way: the first server's side holds these, the other's the session `k`."""
    play = Play(SHAPES[0], Cluster("primary-backup", ()))
    play._held = [held, {"k"}, {"k"}]
    play._cut_at = time.monotonic() - 1
    return play, User("k", (Tab("a", 0, Browser(1), sent=3), Tab("b", 1, Browser(1))))


OURS: dict[str, Any] = {"key": "k", "fields": {"a": "3"}}


@pytest.mark.parametrize(
    ("held", "answer", "against", "refused", "wrong"),
    [
        ({"k"}, (200, OURS), 0, 0, 0),
        (set(), (503, None), 0, 1, 0),
        (set(), (200, OURS), 0, 0, 0),
        ({"k"}, (503, None), 1, 0, 0),
        ({"k"}, (0, None), 1, 0, 0),
        (set(), (200, {"key": "", "fields": {}}), 1, 0, 0),
        (set(), (200, {"key": "other", "fields": {}}), 1, 0, 0),
        ({"k"}, (200, {"key": "k", "fields": {"a": "2"}}), 0, 0, 1),
    ],
)
def test_an_answer_is_held_against_the_rule(
    held: set[str], answer: tuple[int, Any], against: int, refused: int, wrong: int
) -> None:
    """What a side holds it serves; of what it does not it says that nobody can tell; it never denies a session."""
    play, user = playing(held)
    tab = user.tabs[0]
    play._judge(user, tab, time.monotonic(), answer, {})
    found = play.found
    assert (found.against_rule.total(), found.refused, found.wrong, found.touched) == (against, refused, wrong, 0)


def test_a_cookie_that_a_503_takes_is_noticed() -> None:
    """It would log a user out whose session is on the other side."""
    play, user = playing(set())
    play._judge(user, user.tabs[0], time.monotonic(), (503, None), {b"sid": b"it was there"})
    assert play.found.touched == 1


@pytest.mark.parametrize("strategy", ["all-to-all", "primary-backup"])
def test_the_promise_holds_for_a_few_users(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three real servers, one of them cut off."""
    monkeypatch.setattr(partition, "USERS", 9)
    monkeypatch.setattr(partition, "LOGOUTS", 2)
    monkeypatch.setattr(partition, "CUT_S", 3.0)
    try:
        found = asyncio.run(partition.play(SHAPES[0], strategy))
    except CannotShow as reason:
        pytest.skip(str(reason))
    figures = judged("x", found)
    assert all(figure.holds for figure in figures if figure.holds is not None), (found, figures)
