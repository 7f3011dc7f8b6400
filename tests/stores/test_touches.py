"""What a store is told of sessions that were used, and what of it waits."""

from __future__ import annotations

import asyncio

import pytest

from sessile.errors import StoreError
from sessile.stores import touches as module
from sessile.stores.touches import Touches
from tests.fakes import FakeClock
from tests.replication.cluster import key_number
from tests.stores.memory import MemoryStore


class Noting(MemoryStore):
    """Remembers what it was told."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.told: list[dict[bytes, int]] = []

    async def touch(self, touches: object) -> None:
        assert isinstance(touches, dict)
        await self._called("touch")
        self.told.append(touches)


def make() -> tuple[FakeClock, Noting, Touches]:
    clock = FakeClock()
    store = Noting(clock)
    return clock, store, Touches(store, clock)


def test_the_store_hears_how_long_ago_each_was_used() -> None:
    """The last use counts, and the store's clock may be another one."""
    clock, store, touches = make()
    now_ms = clock()
    touches.note(key_number(1), now_ms - 900)
    touches.note(key_number(2), now_ms - 500)
    touches.note(key_number(1), now_ms - 100)
    touches.note(key_number(3), now_ms + 7)
    asyncio.run(touches.tell())
    assert store.told == [{key_number(1): 100, key_number(2): 500, key_number(3): 0}]
    asyncio.run(touches.tell())
    assert (len(touches), len(store.told)) == (0, 1)


def test_what_a_store_that_fails_was_not_told_waits() -> None:
    """Together with what is used meanwhile."""
    clock, store, touches = make()
    touches.note(key_number(1), clock())
    store.fails = "refused"
    with pytest.raises(StoreError):
        asyncio.run(touches.tell())
    store.fails = ""
    clock.advance(1)
    touches.note(key_number(2), clock())
    asyncio.run(touches.tell())
    assert store.told == [{key_number(1): 1_000, key_number(2): 0}]


def test_what_is_used_while_the_store_is_told_is_told_once_more() -> None:
    """The later use is another one; what was given up half-way is not forgotten either."""
    clock, store, touches = make()

    async def run() -> None:
        store.gate = asyncio.Event()
        touches.note(key_number(1), clock() - 50)
        touches.note(key_number(2), clock())
        given_up = asyncio.create_task(touches.tell())
        await asyncio.sleep(0)
        given_up.cancel()
        telling = asyncio.create_task(touches.tell())
        await asyncio.sleep(0)
        touches.note(key_number(1), clock())
        store.gate.set()
        await telling

    asyncio.run(run())
    assert store.told == [{key_number(1): 50, key_number(2): 0}, {key_number(1): 0}]


def test_however_many_wait_a_call_takes_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no more wait than may; the oldest are forgotten."""
    monkeypatch.setattr(module, "TOLD_AT_ONCE", 4)
    monkeypatch.setattr(module, "WAITING_MAX", 10)
    clock, store, touches = make()
    for number in range(12):
        touches.note(key_number(number), clock())
    assert len(touches) == 10
    asyncio.run(touches.tell())
    assert [len(told) for told in store.told] == [4, 4, 2]
    assert {key for told in store.told for key in told} == {key_number(number) for number in range(2, 12)}


def test_what_was_used_again_is_not_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes where too many wait is what was not used for longest."""
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    clock, store, touches = make()
    for number in (1, 2, 1, 3):
        touches.note(key_number(number), clock())
    asyncio.run(touches.tell())
    assert [list(told) for told in store.told] == [[key_number(1), key_number(3)]]
