"""The values that pass between the engine and the other holders, and that a plain class is a backend."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

import pytest

from sessile.backend import Acknowledged, Backend, Change, Ended, Pulled, PullStatus, Whole
from sessile.delta import Delta, Outcome, apply
from sessile.record import ENDED, Heads, Record, merge

KEY = b"k" * 16


class OneOther:
    """Another holder in the same process: a backend needs these methods and no base class."""

    def __init__(self) -> None:
        self.records: dict[bytes, Record] = {}

    is_running = True

    async def start(self) -> None:
        """It is there."""

    def start_in_thread(self) -> None:
        """It is there."""

    async def stop(self) -> None:
        """It stays."""

    def status(self) -> dict[str, Any]:
        return {}

    def holds(self, key: bytes) -> bool:
        return True

    def is_first_holder(self, key: bytes) -> bool:
        return key == KEY

    def is_sure(self, key: bytes, now_ms: int) -> bool:
        return True

    def is_trusting(self) -> bool:
        return True

    def is_settled(self, key: bytes) -> bool:
        return True

    def touched(self, key: bytes, touched_ms: int) -> None:
        if key in self.records:
            self.records[key] = self.records[key].touch(touched_ms)

    def is_confirmed(self, key: bytes) -> bool:
        return key in self.records

    async def pull(self, key: bytes, have: Record | None, heads: Heads) -> Pulled:
        record = self.records.get(key)
        if record is None:
            return Pulled(PullStatus.NONE)
        if have is not None and have.covers(record.heads):
            return Pulled(PullStatus.CURRENT)
        return Pulled(PullStatus.RECORD, record)

    async def push(self, key: bytes, change: Change | None, ack: str) -> Acknowledged:
        held = self.records.get(key)
        match change:
            case Whole(_, record) | Ended(_, record):
                self.records[key] = record if held is None else merge(held, record)
            case Delta():
                outcome, after = apply(held, change)
                if outcome is Outcome.NEED or after is None:
                    return Acknowledged.NO
                self.records[key] = after
        return Acknowledged.YES


def test_a_plain_class_is_a_backend() -> None:
    """A birth, a change, a touch and an end travel as values, and each answer is one: no exception says that nobody has it."""
    other: Backend = OneOther()
    born = Record.create(now_ms=0, idle_ms=10, deadline_ms=100)
    written, stamp = born.write(1, {"a": b"1"}, now_ms=0)
    delta = Delta.of(written, KEY, born, stamp, names=["a"], counted=())

    async def talk() -> None:
        assert await other.pull(KEY, None, ()) == (PullStatus.NONE, None)
        assert await other.push(KEY, delta, "one") is Acknowledged.NO
        assert await other.push(KEY, Whole(KEY, born), "one") is Acknowledged.YES
        assert await other.push(KEY, delta, "one") is Acknowledged.YES
        assert await other.pull(KEY, born, written.heads) == Pulled(PullStatus.RECORD, written)
        assert await other.pull(KEY, written, written.heads) == Pulled(PullStatus.CURRENT)
        other.touched(KEY, 5)
        assert await other.push(KEY, Ended(KEY, written.end(ENDED, 1)), "all") is Acknowledged.YES
        assert await other.push(KEY, None, "all") is Acknowledged.YES, "there is nothing left to wait for"
        pulled = await other.pull(KEY, None, ())
        assert pulled.record is not None and (pulled.record.state, pulled.record.touched_ms) == (ENDED, 5)

    asyncio.run(talk())


def test_a_change_is_one_of_three() -> None:
    """Who handles changes handles these, and each names its session."""
    assert set(get_args(Change)) == {Delta, Whole, Ended}
    for kind in get_args(Change):
        assert "key" in kind.__annotations__


@pytest.mark.parametrize("kind", [PullStatus, Acknowledged])
def test_answers_have_names_that_can_be_logged(kind: type[PullStatus | Acknowledged]) -> None:
    """An answer's value is its name in lower case, so that logs and counters say what the code says."""
    assert [each.value for each in kind] == [each.name.lower() for each in kind]


def test_an_answer_without_a_record_has_none() -> None:
    """Only RECORD comes with one."""
    assert Pulled(PullStatus.UNREACHABLE).record is None
