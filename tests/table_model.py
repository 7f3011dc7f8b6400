"""A dumb model of the table: a dictionary of what was put, and a look at every entry; and the steps that are drawn for both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import strategies as st

from sessile.errors import SessionEnded
from sessile.record import ENDED, LIVE, REPLACED, ROTATED, Record
from sessile.table import ENTRY_BYTES, Table

__all__ = [
    "ABSOLUTE_MS",
    "GRACE_MS",
    "IDLE_MS",
    "KEEP_MS",
    "SLOT_MS",
    "Model",
    "Step",
    "due_ms",
    "held",
    "hold_sums",
    "key",
    "live",
    "make",
    "steps",
    "sweep_out",
]

GRACE_MS: Final = 10_000
KEEP_MS: Final = 60_000
IDLE_MS: Final = 30_000
ABSOLUTE_MS: Final = 200_000
SLOT_MS: Final = 1_000
"""How much later than due something may go: a record is looked at once a second."""


def make(*, sessions_max: int = 1_000, bytes_max: int = 1_000_000, **options: Any) -> Table:
    options |= {"rotation_grace_ms": GRACE_MS, "tombstone_keep_ms": KEEP_MS}
    return Table(sessions_max=sessions_max, bytes_max=bytes_max, **options)


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def live(now_ms: int = 0, *, value_bytes: int = 5, writer: int = 1) -> Record:
    record = Record.create(now_ms=now_ms, idle_ms=IDLE_MS, deadline_ms=now_ms + ABSOLUTE_MS)
    return record.write(writer, {"v": b"x" * value_bytes}, now_ms=now_ms)[0]


def held(table: Table, number: int) -> Record:
    packed = table.get(key(number))
    assert packed is not None, "the table does not hold it"
    return Record.unpack(packed)


def sweep_out(table: Table, now_ms: int, *, at_most: int = 1_000) -> int:
    """Sweep until there is nothing more to do at once; returns how often."""
    for count in range(1, 10_000):
        if not table.sweep(now_ms, at_most=at_most):
            return count
    raise AssertionError("a sweep always says that there is more")


def hold_sums(table: Table) -> None:
    """Every figure the table keeps is what adding up its entries gives."""
    packed = [table.get(each) for each in table]
    records = [Record.unpack(each) for each in packed if each is not None]
    assert len(table) == len(packed) == len(records)
    assert table.held_bytes == sum(len(each) + ENTRY_BYTES for each in packed if each is not None)
    assert table.sessions == sum(record.state == LIVE for record in records)
    assert table.tombstones == len(table) - table.sessions
    lively = [each for each in packed if each is not None and Record.unpack(each).state == LIVE]
    assert table.live_bytes == sum(len(each) + ENTRY_BYTES for each in lively)
    assert all(table.has_ended(each) == (table.state(each) != LIVE) for each in table)
    scheduled = [each for slot in table._wheel.values() for each in slot]
    assert len(scheduled) == table._scheduled
    assert set(table) <= {*scheduled, *table._due}, "whatever is held is looked at some time"
    for each in table:
        found = table.find(each)
        assert found is not None and found[0] is table.get(each) and found[1] == Record.unpack(found[0])
        assert table.state(each) == found[1].state


class Put(NamedTuple):
    number: int
    value_bytes: int


class Touch(NamedTuple):
    number: int


class End(NamedTuple):
    number: int
    state: int


class Drop(NamedTuple):
    number: int


class Wait(NamedTuple):
    by_ms: int


class Sweep(NamedTuple):
    at_most: int


Step = Put | Touch | End | Drop | Wait | Sweep
_numbers = st.integers(0, 2)
_waits = st.sampled_from([0, 500, 999, 1_000, 2_500, 4_000, 6_000, 9_000, 12_000, 29_999, 61_000, 10**10])
_step = st.one_of(
    st.builds(Put, _numbers, st.integers(1, 300)),
    st.builds(Put, _numbers, st.integers(1, 300)),
    st.builds(Touch, _numbers),
    st.builds(End, _numbers, st.sampled_from([ROTATED, ENDED, REPLACED])),
    st.builds(Drop, _numbers),
    st.builds(Wait, _waits),
    st.builds(Wait, _waits),
    st.builds(Sweep, st.integers(1, 4)),
    st.builds(Sweep, st.integers(1, 4)),
)
# Lists of a drawn length: left to themselves they are mostly shorter than five.
steps = st.integers(0, 40).flatmap(lambda count: st.lists(_step, min_size=count, max_size=count))


@dataclass
class Model:
    """A table and a dictionary of what was put into it, on one clock."""

    table: Table = field(default_factory=make)
    records: dict[int, Record] = field(default_factory=dict)
    changed_ms: dict[int, int] = field(default_factory=dict)
    """When each was last put, or found to have turned into a tombstone."""
    now_ms: int = 5_500
    expired: int = 0
    ended: dict[int, int] = field(default_factory=dict)
    """The sessions that ended and have no tombstone any more, with their deadlines."""

    def take(self, step: Step) -> None:
        match step:
            case Put(number, value_bytes):
                record = self.records.get(number)
                if number in self.ended:
                    self._bring_back(number, live(self.now_ms, value_bytes=value_bytes))
                elif record is None:
                    self._put(number, live(self.now_ms, value_bytes=value_bytes))
                elif record.state == LIVE:
                    value = {"v": b"y" * value_bytes}
                    self._put(number, record.write(1, value, now_ms=self.now_ms)[0])
            case Touch(number) if number in self.records:
                self._put(number, self.records[number].touch(self.now_ms), is_touch=True)
            case End(number, state) if number in self.records:
                self._put(number, self.records[number].end(state, self.now_ms))
            case Drop(number):
                self.table.drop(key(number))
                record = self.records.pop(number, None)
                if record is not None and record.state != LIVE:
                    self.ended[number] = record.deadline_ms
            case Wait(by_ms):
                self.now_ms += by_ms
            case Sweep(at_most):
                self.sweep(at_most)
            case _:
                pass
        self.compare()

    def sweep(self, at_most: int) -> None:
        """When there is nothing more to do, nothing is left that was due two seconds ago."""
        is_more = self.table.sweep(self.now_ms, at_most=at_most)
        self.compare()
        for number, record in self.records.items():
            moment = max(due_ms(record), self.changed_ms[number])
            assert is_more or moment + 2 * SLOT_MS > self.now_ms, "what is due is gone"

    def compare(self) -> None:
        """What the table holds is what was put; what is missing or has changed was due."""
        hold_sums(self.table)
        for number, record in list(self.records.items()):
            packed = self.table.get(key(number))
            if packed == record.pack():
                continue
            assert due_ms(record) <= self.now_ms, "nothing goes before its time"
            if packed is None:
                self.expired += record.state == LIVE
                if record.state != LIVE:
                    self.ended[number] = record.deadline_ms
                del self.records[number]
            else:
                assert record.state == ROTATED
                assert Record.unpack(packed) == record.end(REPLACED, 0)
                self.records[number] = Record.unpack(packed)
                self.changed_ms[number] = self.now_ms
        assert {key(number) for number in self.records} == set(self.table)
        assert self.table.expired == self.expired
        for number, deadline_ms in self.ended.items():
            assert self.table.has_ended(key(number)) or deadline_ms < self.now_ms, "an end outlives every copy"

    def _bring_back(self, number: int, record: Record) -> None:
        """No copy is held of a session that ended, until no copy of it could be alive any more."""
        if self.table.has_ended(key(number)):
            with pytest.raises(SessionEnded):
                self.table.put(key(number), record)
            assert self.table.judged(key(number), record, self.now_ms).state >= ENDED
        else:
            assert self.ended.pop(number) < self.now_ms
            self._put(number, record)

    def _put(self, number: int, record: Record, **how: Any) -> None:
        packed = self.table.put(key(number), record, **how)
        assert packed == record.pack() and self.table.get(key(number)) is packed
        self.records[number] = record
        if not how:
            self.changed_ms[number] = self.now_ms


def due_ms(record: Record) -> int:
    """When something becomes of a record by itself, said once more."""
    if record.state == LIVE:
        return min(record.touched_ms + IDLE_MS, record.deadline_ms)
    return record.ended_ms + (GRACE_MS if record.state == ROTATED else KEEP_MS)
