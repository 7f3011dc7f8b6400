"""One node's list: what others say of members and of itself, how many there may be, and how many are enough."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.replication.member import Standing, Timings
from sessile.replication.membership import MEMBERS_MAX, Membership, Steps
from tests.replication.watch import Watch, info

if TYPE_CHECKING:
    from sessile.replication.messages import MemberInfo

ALIVE, SUSPECT, DEAD = Standing.ALIVE, Standing.SUSPECT, Standing.DEAD
LEAVING, LEFT, UNKNOWN = Standing.LEAVING, Standing.LEFT, Standing.UNKNOWN
KEEP_MS = Timings().tombstone_keep_ms


RANKED = [info("b", 1, 0), info("b", 1, 1), info("b", 1, 2), info("b", 2, 0), info("b", 3, 1)]


@given(order=st.permutations(RANKED), met=st.booleans())
def test_the_higher_incarnation_counts_then_the_higher_stage(order: list[MemberInfo], met: bool) -> None:  # noqa: FBT001
    """In whatever order the news arrive, the list ends the same, and is news exactly when it changed."""
    watch = Watch()
    watch.met("b", 1, incarnation=0)
    assert watch.it.take_news()
    if not met:
        watch.down(1)
        watch.wait(600)
    for one in order:
        before = watch.it.infos()
        assert watch.told(one) is (watch.it.infos() != before)
        assert not watch.told(one)
    assert watch.it.infos() == (info("m"), info("b", 3, 1))
    assert watch.it.standing("b") is (LEAVING if met else UNKNOWN)


@pytest.mark.parametrize(
    ("before", "stage", "is_new", "after"),
    [
        (ALIVE, 0, True, ALIVE),
        (ALIVE, 1, False, LEAVING),
        (ALIVE, 2, False, LEFT),
        (SUSPECT, 0, True, SUSPECT),
        (SUSPECT, 1, False, LEAVING),
        (LEAVING, 0, True, ALIVE),
        (LEAVING, 2, False, LEFT),
        (LEFT, 0, True, ALIVE),
        (LEFT, 1, True, LEAVING),
    ],
)
def test_what_the_list_makes_of_a_linked_member(before: Standing, stage: int, is_new: bool, after: Standing) -> None:  # noqa: FBT001
    """It is alive all the same, unless it goes."""
    watch = Watch()
    watch.met("b", 1, stage={LEAVING: 1, LEFT: 2}.get(before, 0))
    if before is SUSPECT:
        watch.wait(600)
    assert watch.it.standing("b") is before
    assert watch.told(info("b", 2 if is_new else 1, stage))
    assert watch.it.standing("b") is after
    assert watch.it.is_confirmed_dead("b") is (after is LEFT)


def test_a_dead_member_may_be_leaving_for_all_it_matters() -> None:
    """Without a link nobody is alive because a list says so."""
    watch = Watch()
    watch.met("b", 1)
    watch.wait(1_000)
    watch.told(info("b", 1, 1))
    assert watch.it.standing("b") is DEAD


def test_a_greeting_is_news() -> None:
    """Who greets is passed on with the list it brings."""
    watch = Watch()
    watch.met("b", 1)
    assert watch.told(info("b")) and not watch.told(info("b"))


def test_a_goodbye() -> None:
    """Gone for certain; its link is hung up if it does not close, and later it is forgotten. A stranger's says nothing."""
    watch = Watch()
    watch.met("b", 1)
    watch.it.said_goodbye("b", watch.now_ms)
    watch.it.said_goodbye("nobody", watch.now_ms)
    assert watch.it.standing("b") is LEFT and watch.it.take_news() and watch.it.is_confirmed_dead("b")
    assert watch.it.infos()[1:] == (info("b", 1, 2),)
    assert watch.wait(1_000) == Steps(hang_up=(1,))
    assert watch.wait(KEEP_MS) == Steps()
    assert watch.it.infos() == (info("m"),) and watch.it.standing("b") is UNKNOWN
    assert watch.changes() == [(UNKNOWN, ALIVE), (ALIVE, LEFT), (LEFT, UNKNOWN)]
    assert not watch.told(info("b", 1, 2)) and watch.it.infos() == (info("m"),)


@pytest.mark.parametrize(
    ("said", "is_leaving", "incarnation"),
    [
        (info("m", 5, 0), False, 5),  # what it said itself
        (info("m", 4, 2), False, 5),  # of an earlier life
        (info("m", 5, 1), False, 6),
        (info("m", 5, 2), False, 6),
        (info("m", 7, 0), False, 8),
        (info("m", 5, 0, "elsewhere"), False, 6),
        (info("m", 5, 0), True, 5),
        (info("m", 5, 1), True, 5),
        (info("m", 5, 2), True, 5),  # it is as good as gone
        (info("m", 6, 0), True, 7),
    ],
)
def test_what_is_refuted(said: MemberInfo, is_leaving: bool, incarnation: int) -> None:  # noqa: FBT001
    """Whatever outranks what a node says of itself; it takes a higher incarnation, which is news."""
    watch = Watch()
    watch.it = Membership(info("m", 5), Timings(), Random(1))
    if is_leaving:
        watch.it.leave()
        watch.it.take_news()
    assert watch.told(said) is (incarnation != 5)
    assert watch.it.me == info("m", incarnation, int(is_leaving))
    assert watch.it.counts["refutations"] == int(incarnation != 5)


def test_refutations_are_a_beat_apart() -> None:
    """What was not refuted is outbid by what is said next."""
    watch = Watch()
    assert watch.told(info("m", 3)) and watch.it.me.incarnation == 4
    assert not watch.told(info("m", 8)) and watch.it.me.incarnation == 4
    watch.it.leave()
    assert watch.it.me == info("m", 8, 1)
    watch.wait(250)
    assert watch.told(info("m", 9)) and watch.it.me == info("m", 10, 1)


# -- how many ----------------------------------------------------------------------------------------------------------


def test_placeable_is_the_same_object_until_something_changes() -> None:
    """So that whoever computes from it sees at a glance that there is nothing to compute."""
    watch = Watch()
    watch.met("b", 1)
    places = watch.it.placeable()
    watch.hear(1)
    watch.wait(100)
    assert watch.it.placeable() is places
    watch.it.leave()
    assert [place.name for place in watch.it.placeable()] == ["b"] and watch.it.standing("m") is LEAVING


@pytest.mark.parametrize(
    ("alive", "leaving", "silent", "refused", "addresses", "has_quorum"),
    [
        (0, 0, 0, 0, 0, True),
        (0, 0, 1, 0, 0, True),
        (0, 0, 2, 0, 0, False),
        (0, 0, 1, 5, 0, True),
        (1, 0, 2, 0, 0, True),
        (1, 0, 3, 0, 0, False),
        (0, 1, 2, 0, 0, True),
        (0, 0, 0, 0, 1, True),
        (0, 0, 0, 0, 2, False),
        (1, 1, 2, 3, 1, True),
    ],
)
def test_quorum(  # noqa: PLR0917
    alive: int,
    leaving: int,
    silent: int,
    refused: int,
    addresses: int,
    has_quorum: bool,  # noqa: FBT001
) -> None:
    """This node and whom it reaches are at least half of all that are not gone for certain."""
    watch = Watch(*(f"address {number}" for number in range(addresses)), "refusing address")
    watch.wait(0)
    watch.failed("refusing address", is_refused=True)
    kinds = {"alive": alive, "leaving": leaving, "silent": silent, "refused": refused}
    names = [f"{kind} {number}" for kind, many in kinds.items() for number in range(many)]
    for link, name in enumerate(names):
        watch.met(name, link, stage=int(name.startswith("leaving")))
        if name.startswith("refused"):
            watch.down(link)
            watch.failed(name, is_refused=True)
    for _ in range(4):
        watch.wait(300)
        for link, name in enumerate(names):
            if name.startswith(("alive", "leaving")):
                watch.hear(link)
    assert watch.it.has_quorum() is has_quorum


def test_members_are_bounded() -> None:
    """More are refused and counted; but who is gone for certain, and whom discovery does not name, makes room."""
    watch = Watch("n0")
    watch.told(*(info(f"n{number}") for number in range(MEMBERS_MAX + 10)))
    assert len(watch.it.infos()) == MEMBERS_MAX and watch.it.counts["refused_members"] == 11
    assert watch.greet(1, info("late"), "late").refusal
    watch.told(info("", host="h"))
    assert watch.it.counts["refused_members"] == 13
    for name in ("n0", "n5"):
        watch.failed(name, is_refused=True)
    assert not watch.greet(2, info("late"), "late").refusal
    assert watch.greet(3, info("later")).refusal
    names = {one.name for one in watch.it.infos()}
    assert len(names) == MEMBERS_MAX and "n0" in names and "n5" not in names and "late" in names


def test_a_quiet_tick_looks_at_nobody() -> None:
    """Before the moment it asked for, there is nothing to find out."""
    watch = Watch()
    watch.met("b", 1)
    watch.wait(0)
    watch.it._judge = None  # type: ignore[method-assign,assignment]
    assert watch.it.tick(watch.now_ms + 499) == Steps()


def test_everybody_can_be_asked_or_is_gone_for_certain() -> None:
    """One that is silent, was never met, or may be at an address that does not answer, may hold something."""
    watch = Watch("address")
    watch.wait(0)
    assert not watch.it.is_complete()
    watch.failed("address")
    assert not watch.it.is_complete()
    watch.failed("address", is_refused=True)
    assert watch.it.is_complete()
    watch.told(info("b"))
    assert not watch.it.is_complete()
    watch.met("b", 1)
    assert watch.it.is_complete()
    watch.wait(1_000)
    assert not watch.it.is_complete()
    watch.failed("b", is_refused=True)
    assert watch.it.is_complete()
