"""What `make show NAME=sentinel` counts, and that it would notice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.browser import Browser
from bench.show import sentinel
from bench.show.sentinel import Found, Side, judge
from bench.stored import Adder
from tests.bench.users import holder

GOOD = Found(
    one=Side([holder(), holder("POST")], {"aa": {"count": 1}}, is_settled=True),
    none=Side([holder()], {"aa": {"count": 1}}, is_settled=True),
    has_moved=True,
    plain_acknowledged=10,
    plain_lost=3,
)


def holds(found: Found, *, must_plain_lose: bool = True) -> bool:
    figures = judge(found, must_plain_lose=must_plain_lose)
    return all(figure.holds for figure in figures if figure.holds is not None)


def test_the_promise_can_be_kept() -> None:
    """Another primary, nothing lost with ack=one; redis-py alone may lose, and must where the primary was cut off."""
    assert holds(GOOD)
    assert holds(replace(GOOD, plain_lost=0), must_plain_lose=False)
    stayed = judge(replace(GOOD, has_moved=False), must_move=False, must_plain_lose=True)
    assert all(figure.holds is not False for figure in stayed)


@pytest.mark.parametrize(
    "planted",
    [
        {"has_moved": False},
        {"plain_lost": 0},
        {"one": replace(GOOD.one, is_settled=False)},
        {"one": replace(GOOD.one, held={"aa": None})},
        {"one": replace(GOOD.one, held={"aa": {"count": 2}})},
        {"one": replace(GOOD.one, users=[holder(), holder("GET", 503)])},
        {"one": replace(GOOD.one, users=[holder(), holder(changes_lost=1)])},
        {"one": replace(GOOD.one, users=[holder(), holder(took_s=10.0)])},
    ],
)
def test_what_is_planted_is_found(planted: dict[str, object]) -> None:
    """No failover, a cut that cuts nothing, a lost change, a failed read: each of them breaks the promise."""
    assert not holds(replace(GOOD, **planted))  # type: ignore[arg-type]


def test_what_is_lost_without_acknowledgements_is_shown() -> None:
    """It breaks no promise; it stands there in numbers."""
    lost = Side([holder(changes_lost=2), holder("GET", 503)], {"aa": None})
    figures = judge(replace(GOOD, none=lost), must_plain_lose=True)
    by_name = {figure.name: figure.value for figure in figures}
    assert all(figure.holds is not False for figure in figures)
    assert by_name["ack=none: acknowledged changes lost"] == 2
    assert by_name["ack=none: repeatable requests (GET) that failed"] == 1
    assert by_name["ack=none: sessions that the store lacks, or holds otherwise"] == 2
    assert by_name["redis-py: acknowledged writes lost"] == 3


def adder(acknowledged: int, seen: int, refused: int = 1) -> Adder:
    return Adder(Browser(1), acknowledged=acknowledged, refused=refused, seen=seen)


@pytest.mark.parametrize(
    ("someone", "is_kept"),
    [
        (adder(5, 5), True),
        (adder(5, 6), True),
        (adder(5, 4), False),
        (adder(5, 7), False),
        (adder(5, 0), False),
        (adder(0, 0), False),
    ],
)
def test_what_a_dead_server_acknowledged_is_there(someone: Adder, is_kept: bool) -> None:  # noqa: FBT001
    """With ack=one no change is missing, and none is there twice; one that failed may be there or not."""
    assert holds(replace(GOOD, one=replace(GOOD.one, adders=[someone]))) is is_kept


def test_what_a_dead_server_took_with_it_without_acknowledgements_is_shown() -> None:
    """It breaks no promise; more than was asked for would."""
    found = replace(GOOD, none=replace(GOOD.none, adders=[adder(5, 2), adder(3, 3)]))
    by_name = {figure.name: figure.value for figure in judge(found, must_plain_lose=True)}
    assert holds(found)
    assert by_name["ack=none: acknowledged changes lost, of the server that died"] == 3
    assert not holds(replace(GOOD, none=replace(GOOD.none, adders=[adder(5, 9)])))


@pytest.mark.needs("redis-server")
def test_the_promise_holds_for_a_primary_that_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of it on real processes, smaller: one harm, the worst one."""
    monkeypatch.setattr(sentinel, "HARMS", ("cut off, and a server dies",))
    monkeypatch.setattr(sentinel, "USERS", 9)
    monkeypatch.setattr(sentinel, "SERVERS", 2)
    monkeypatch.setattr(sentinel, "ADDERS", 4)
    monkeypatch.setattr(sentinel, "BEFORE_S", 1.0)
    monkeypatch.setattr(sentinel, "HARM_S", 6.0)
    monkeypatch.setattr(sentinel, "AFTER_S", 2.0)
    shown = sentinel.run(lambda _: None)
    assert shown.holds, ([figure for figure in shown.figures if figure.holds is False], shown.notes)
