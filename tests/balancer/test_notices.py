"""Warnings that are due, and those that are not."""

from __future__ import annotations

from sessile.balancer.notices import Notices


def test_each_kind_is_said_at_once_then_once_in_a_while() -> None:
    """The first time, then no sooner than the interval later, with how often it happened meanwhile."""
    notices = Notices(every_s=60)
    assert [notices.due("a", now) for now in (0, 1, 30, 59.9)] == [1, 0, 0, 0]
    assert notices.due("b", 30) == 1
    assert notices.due("a", 60) == 4
    assert [notices.due("a", now) for now in (61, 120, 500)] == [0, 2, 1]


def test_kinds_are_bounded() -> None:
    """The oldest is forgotten, and would be said again."""
    notices = Notices(kinds_max=2)
    assert [notices.due(kind, 0) for kind in "abc"] == [1, 1, 1]
    assert len(notices._said) == 2
    assert notices.due("a", 0) == 1 and notices.due("c", 0) == 0
