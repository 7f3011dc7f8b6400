"""What shows about stores have in common, and that it would notice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from bench.stored import Plain, judge_served, judge_store
from sessile.changes import shown
from sessile.codec import encode
from sessile.record import REMOVED, Record
from tests.bench.users import holder

if TYPE_CHECKING:
    from bench.crowd import User


def test_a_record_shows_what_its_session_would() -> None:
    """Assignments, sums of increments upon them and alone; removed fields are not there."""
    record = Record.create(now_ms=0, idle_ms=1000, deadline_ms=9000)
    record = record.write(1, {"name": encode("x"), "gone": encode(1), "count": encode(5)}, now_ms=0)[0]
    record = record.write(2, {"gone": REMOVED}, {"count": 2, "alone": 3}, now_ms=0)[0]
    assert shown(record) == {"name": "x", "count": 7, "alone": 3}


@pytest.mark.parametrize(
    ("someone", "holds"),
    [
        (holder(), True),
        (holder("POST"), True),
        (holder("GET", 503), False),
        (holder("GET", 0), False),
        (holder("POST", 503), False),
        (holder("POST", 0), False),
        (holder(took_s=10.0), False),
        (holder(changes_lost=1), False),
        (holder(sessions_lost=1), False),
        (holder(executed_twice=1), False),
        (holder(stale=1), False),
    ],
)
def test_one_user_is_enough_to_break_the_promise(someone: User, holds: bool) -> None:  # noqa: FBT001
    """Nothing may fail, hang, be lost or be old where a copy is held."""
    figures = judge_served([holder(), someone])
    assert all(figure.holds for figure in figures if figure.holds is not None) is holds


@pytest.mark.parametrize(
    ("held", "lacking"), [({"count": 1}, 0), (None, 1), ({}, 1), ({"count": 0}, 1), ({"count": 1, "more": 1}, 1)]
)
def test_a_session_that_the_store_lacks_or_holds_otherwise_counts(held: dict[str, int] | None, lacking: int) -> None:
    """It has to be there, alive, with exactly what its user was told."""
    figure = judge_store([holder()], {"aa": held})
    assert (figure.value, figure.holds) == (lacking, lacking == 0)


class Forgetful:
    """A client whose server takes every second write and forgets the first."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.number = 0
        self.taken = asyncio.Event()

    async def set(self, key: str, value: str) -> bool:
        self.number += 1
        if self.number % 2:
            raise OSError("no")
        self.kept[key] = value
        if len(self.kept) > 2:
            self.taken.set()
        return True

    async def get(self, key: str) -> str | None:
        return self.kept.get(key)

    async def aclose(self) -> None:
        self.taken.clear()


def test_what_plain_writers_lose_is_counted() -> None:
    """An acknowledged write that is not there in the end is lost; one that failed is not."""

    async def run() -> None:
        client = Forgetful()
        plain = Plain(client)
        plain.begin()
        await client.taken.wait()
        acknowledged = set(client.kept)
        client.kept.pop(next(iter(acknowledged)))
        assert await plain.end() == 1
        assert acknowledged <= set(plain.acknowledged)
        assert plain.refused >= 2

    pytest.importorskip("redis")
    asyncio.run(asyncio.wait_for(run(), 10))
