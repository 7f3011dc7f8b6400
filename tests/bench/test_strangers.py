"""What `make show NAME=strangers` counts, and that it would notice."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from bench.show import strangers
from bench.show.strangers import CASES, Found, differing, is_order, judged
from sessile.replication.messages import Beat, MemberInfo, Members, Rejoin
from sessile.replication.wire import LENGTH_BYTES, encode

GOOD = Found(cases=Counter(CASES), is_alive=True, growth_bytes=100, taken_s=[0.01])


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        (GOOD, True),
        (replace(GOOD, cases=Counter(garbage=49_999)), False),
        (replace(GOOD, leaked=1), False),
        (replace(GOOD, unanswered=Counter({"answer or hang up": 1})), False),
        (replace(GOOD, changed=1), False),
        (replace(GOOD, is_alive=False), False),
        (replace(GOOD, growth_bytes=9 * 2**20), False),
        (replace(GOOD, taken_s=[]), False),
        (replace(GOOD, failed=Counter({"503": 1})), False),
    ],
)
def test_one_of_each_is_enough(found: Found, holds: bool) -> None:  # noqa: FBT001
    """Whatever is promised is judged by itself."""
    assert all(figure.holds for figure in judged("x", found, 50_000) if figure.holds is not None) is holds


def test_there_are_a_hundred_thousand_cases() -> None:
    """Under both strategies together."""
    assert 2 * sum(CASES.values()) >= 100_000


def test_a_session_that_changed_or_went_is_noticed() -> None:
    """By every server that is to hold it; copies of others come and go, and what strangers made up is no session."""
    before: list[dict[str, Any]] = [{"k": [0, "x", True]}, {"k": [0, "x", False]}]
    assert differing(before, [{"k": [0, "x", False], "made up": [0, "y", True]}, {}]) == 0
    assert differing(before, [{"k": [0, "y", True]}, {}]) == 1
    assert differing(before, [{"k": [2, "x", True]}, {}]) == 1
    assert differing(before, [{}, {"k": [0, "x", True]}]) == 1


def test_orders_of_members_are_not_thrown() -> None:
    """Whoever has the secret may name members and make a node start over: that is no attack."""
    named = Members((MemberInfo("10.0.0.1:1", "h", 1),))
    assert [is_order(encode(one)[LENGTH_BYTES:]) for one in (Rejoin(), named, Beat(1))] == [True, True, False]
    assert not is_order(b"\xc1")


@pytest.mark.parametrize("strategy", ["all-to-all", "primary-backup"])
def test_the_promise_holds_for_a_few_cases(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real servers and real TLS."""
    monkeypatch.setattr(strangers, "SESSIONS", 60)
    few = {"garbage": 100, "silence": 20, "no certificate": 15, "another's certificate": 15, "frames": 40}
    cases = {**few, "streams that end": 10}
    found = asyncio.run(strangers.play(strategy, cases, lambda _: None))
    figures = judged("x", found, 190)
    assert all(figure.holds for figure in figures if figure.holds is not None), (found, figures)
    assert set(found.cases) == set(CASES)
