"""The values that pass between the engine and the other holders, and that a plain class is a backend."""

from __future__ import annotations

import asyncio
from typing import get_args

import pytest

from sessile.backend import Acknowledged, Backend, Change, Ended, Pulled, PullStatus, Whole
from sessile.delta import Delta, Outcome, apply
from sessile.record import ENDED, Heads, Record, merge

KEY = b"k" * 16


class OneOther:
    """Another holder in the same process: a backend needs these four methods and no base class."""

    def __init__(self) -> None:
        self.records: dict[bytes, Record] = {}

    def holds(self, key: bytes) -> bool:
        return True

    def is_first_holder(self, key: bytes) -> bool:
        return key == KEY

    async def pull(self, key: bytes, have: Record | None, heads: Heads) -> Pulled:
        record = self.records.get(key)
        if record is None:
            return Pulled(PullStatus.NONE)
        if have is not None and have.covers(record.heads):
            return Pulled(PullStatus.CURRENT)
        return Pulled(PullStatus.RECORD, record)

    async def push(self, change: Change, ack: str) -> Acknowledged:
        held = self.records.get(change.key)
        match change:
            case Whole(key, record):
                self.records[key] = record if held is None else merge(held, record)
            case Ended(key, state) if held is not None:
                self.records[key] = held.end(state, 1)
            case Delta():
                outcome, after = apply(held, change)
                if outcome is Outcome.NEED or after is None:
                    return Acknowledged.NO
                self.records[change.key] = after
        return Acknowledged.YES


def test_a_plain_class_is_a_backend() -> None:
    """A birth, a change and an end travel as values, and each answer is one: no exception says that nobody has it."""
    other: Backend = OneOther()
    born = Record.create(now_ms=0, idle_ms=10, deadline_ms=100)
    written, stamp = born.write(1, {"a": b"1"}, now_ms=0)
    delta = Delta.of(written, KEY, born.heads, stamp, names=["a"], counted=())

    async def talk() -> None:
        assert await other.pull(KEY, None, ()) == (PullStatus.NONE, None)
        assert await other.push(delta, "one") is Acknowledged.NO
        assert await other.push(Whole(KEY, born), "one") is Acknowledged.YES
        assert await other.push(delta, "one") is Acknowledged.YES
        assert await other.pull(KEY, born, written.heads) == Pulled(PullStatus.RECORD, written)
        assert await other.pull(KEY, written, written.heads) == Pulled(PullStatus.CURRENT)
        assert await other.push(Ended(KEY, ENDED), "all") is Acknowledged.YES
        pulled = await other.pull(KEY, None, ())
        assert pulled.record is not None and pulled.record.state == ENDED

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
