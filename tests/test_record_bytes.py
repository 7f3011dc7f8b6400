"""The record's border: what is kept at rest, and what becomes of bytes that nobody of ours wrote."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.delta import Delta, Outcome, apply
from sessile.errors import RecordError
from sessile.record import (
    BYTES_MAX,
    COUNTER_MAX,
    ENDED,
    FIELDS_MAX,
    HELD_BYTES_MAX,
    REPLACED,
    ROTATED,
    TIME_MAX_MS,
    TOTAL_MAX,
    WRITER_BITS,
    WRITERS_MAX,
    Entry,
    Record,
    merge,
)
from tests.record_model import MUTATION, A, B, C, born, copies, mutated, wrote

KEY = b"k" * 16


@pytest.mark.parametrize("amount", [2**62, -(2**62)])
def test_running_sums_beyond_64_bits_are_refused_or_kept(amount: int) -> None:
    """However often the greatest increment is repeated: there comes a record that packs, or one kind of error."""
    record = born()
    with contextlib.suppress(RecordError):
        for _ in range(8):
            record = Record.parse(wrote(record, A, {"n": amount}).pack())
    assert abs(record.fields["n"].added) >= 2**62


def test_a_small_session_is_small_at_rest() -> None:
    """Two fields, one of a hundred characters: under 200 bytes."""
    record = Record.create(now_ms=10**9, idle_ms=1_800_000, deadline_ms=10**9 + 43_200_000)
    record, _ = record.write((1 << WRITER_BITS) - 1, {"user": b"u" * 100, "count": b"\x2a"}, now_ms=10**9)
    assert len(record.pack()) < 200


def parsed(data: bytes) -> Record | None:
    """What becomes of bytes from outside: None for a refusal; any other exception than `RecordError` passes through."""
    try:
        record = Record.parse(data)
    except RecordError as error:
        message = str(error)
    else:
        return record
    assert "\n" not in message
    return None


def hold_usable(record: Record) -> None:
    """Whatever was let in can be kept, merged, moved to any clock, written to and sent on."""
    record.check()
    assert Record.parse(record.pack()) == record
    assert record.same_state(record) and merge(record, record).same_state(record)
    assert record.has_heads(record.heads) and record.covers(record.heads)
    assert set(record.names()) <= record.fields.keys()
    for by_ms in (10**13, -(10**13)):
        assert Record.parse(record.shift(by_ms).pack()).shift(-by_ms) == record
    if record.state < ENDED and record.counter < COUNTER_MAX:
        written, stamp = record.write(A, {"a": b"1"}, {"n": 1}, now_ms=0)
        delta = Delta.of(written, KEY, record, stamp, names=["a"], counted=["n"])
        outcome, applied = apply(record, delta)
        assert outcome is Outcome.APPLIED and applied is not None and applied.same_state(written)
        assert merge(record, written).same_state(written)


@given(st.binary(max_size=200))
def test_random_bytes_are_no_record(data: bytes) -> None:
    """Noise is refused with one kind of error, or is a record that can be worked with."""
    record = parsed(data)
    if record is not None:
        hold_usable(record)


@given(copies(1), st.lists(MUTATION, min_size=1, max_size=4))
def test_damaged_records_are_refused_or_sound(one: list[Record], mutations: list[tuple[str, int, int]]) -> None:
    """A record with some bytes damaged is refused, or keeps every invariant all the same."""
    record = parsed(mutated(one[0].pack(), mutations))
    if record is not None:
        hold_usable(record)


_numbers = st.one_of(st.integers(-1, 4), st.sampled_from([-(2**63), 2**63 - 1, 2**64 - 1, 2**53 + 1, 2**48]))
_leaves: st.SearchStrategy[Any] = st.one_of(
    _numbers, _numbers, st.sampled_from([b"", "", None, True, 0.5, [], {}, b"x", "a", [[0, 1, 1]]])
)


def replaced_in(tree: Any, place: int, leaf: Any) -> Any:
    """The tree with its leaf at this place, counted around if need be, being another one."""
    count = 0

    def walk(node: Any) -> Any:
        nonlocal count
        if isinstance(node, dict):
            return {walk(name): walk(value) for name, value in node.items()}
        if isinstance(node, list | tuple) and node:
            return tuple(walk(value) for value in node)
        count += 1
        return leaf if count - 1 == target else node

    target = -1
    walk(tree)
    target, count = place % count, 0
    return walk(tree)


@given(copies(1), st.lists(st.tuples(st.integers(0, 999), _leaves), min_size=1, max_size=2))
def test_forged_records_are_refused_or_sound(one: list[Record], forgeries: list[tuple[int, Any]]) -> None:
    """Nothing that a peer can put into a place makes a record that breaks later, at somebody else's request."""
    tree = msgspec.msgpack.decode(one[0].pack(), strict=False)
    for place, leaf in forgeries:
        with contextlib.suppress(TypeError):  # a list for a key
            tree = replaced_in(tree, place, leaf)
    record = parsed(msgspec.msgpack.encode(tree))
    if record is not None:
        hold_usable(record)


def test_the_longest_record_there_is() -> None:
    """A record over the limit on bytes is refused unread, and one under it by what it holds."""
    with pytest.raises(RecordError, match=f"{BYTES_MAX + 1} bytes"):
        Record.parse(bytes(BYTES_MAX + 1))
    with pytest.raises(RecordError, match="no record"):
        Record.parse(b"\x91" * 100_000)


def test_bytes_that_make_the_decoder_stumble_are_no_record() -> None:
    """Text that is no UTF-8, and a place too many that nests without an end, are refused like any other bytes."""
    packed = born(name=b"1").pack()
    deep = bytes([packed[0] + 1]) + packed[1:]
    for data in (packed.replace(b"name", b"n\xff\xfee"), deep + b"\x91" * 100_000, deep + b"\x81\xc0" * 50_000):
        with pytest.raises(RecordError, match="no record"):
            Record.parse(data)


@pytest.mark.parametrize("header", [b"\xdd", b"\xdf", b"\xdb", b"\xc6"])
@pytest.mark.parametrize("place", range(9))
def test_hostile_sizes_do_not_allocate(header: bytes, place: int) -> None:
    """A length that promises gigabytes, in any place, costs no more than the bytes that are there."""
    parts = [msgspec.msgpack.encode(part) for part in msgspec.to_builtins(born(a=b"1"))]
    data = b"\x99" + b"".join(parts[:place]) + header + b"\xff\xff\xff\x00"
    tracemalloc.start()
    try:
        with pytest.raises(RecordError):
            Record.parse(data + bytes(50))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def broken(**changes: Any) -> Record:
    return msgspec.structs.replace(merge(wrote(born(a=b"1"), B, b=b"2"), wrote(born(a=b"1"), C, b=b"3")), **changes)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (broken(state=4), "state 4"),
        (broken(state=-1), "state -1"),
        (broken(idle_ms=TIME_MAX_MS + 1), "times"),
        (broken(deadline_ms=TIME_MAX_MS + 1), "times"),
        (broken(touched_ms=-TIME_MAX_MS - 1), "times"),
        (broken(state=ROTATED, ended_ms=-TIME_MAX_MS - 1), "times"),
        (broken(ended_ms=1), "times"),
        (broken(version=dict.fromkeys(range(WRITERS_MAX + 1), 1), head_places=(0,)), f"{WRITERS_MAX + 1} writers"),
        (broken(fields={str(n): Entry(0, 1, b"1") for n in range(FIELDS_MAX + 1)}), f"{FIELDS_MAX + 1} fields"),
        (broken(version={-1: 1}), "version is out"),
        (broken(version={1 << WRITER_BITS: 1}), "version is out"),
        (broken(version={A: 0, B: 2, C: 2}), "version is out"),
        (broken(version={A: 1, B: COUNTER_MAX + 1, C: 2}), "version is out"),
        (broken(head_places=(3,)), "heads"),
        (broken(head_places=(-1,)), "heads"),
        (broken(head_places=(1, 1)), "heads"),
        (msgspec.structs.replace(born(a=b"1"), head_places=(1,)), "heads"),
        (broken(head_places=()), "heads"),
        (broken(state=ENDED), "ended"),
        (broken(state=REPLACED), "ended"),
        (broken(fields={"a": Entry(3, 1, b"1")}), "'a'"),
        (broken(fields={"a": Entry(-1, 1, b"1")}), "'a'"),
        (broken(fields={"a": Entry(0, 2, b"1")}), "'a'"),
        (broken(fields={"a": Entry(0, -1, b"1")}), "'a'"),
        (broken(fields={"a": Entry(0, 0, b"")}), "'a'"),
        (broken(fields={"b": Entry(0, 1, b"1"), "a": Entry(0, 2, b"1")}), "'a'"),
        (broken(fields={"a": Entry(0, 0, b"1", ((0, 1, 1),))}), "'a'"),
        (broken(fields={"a": Entry(0, 1, b"1", ((0, 1, TOTAL_MAX + 1),))}), "'a'"),
        (broken(fields={"a": Entry(0, 1, b"1", ((0, 1, -TOTAL_MAX - 1),))}), "'a'"),
        (broken(fields={"a": Entry(0, 1, b"1", ((3, 1, 1),))}), "'a'"),
        (broken(fields={"a": Entry(0, 1, b"1", ((0, 2, 1),))}), "'a'"),
        (broken(fields={"a": Entry(0, 1, b"1", ((0, 0, 1),))}), "'a'"),
        (broken(fields={"a": Entry(0, 1, b"1", ((0, 1, 1), (0, 1, 2)))}), "'a'"),
        (broken(fields={"a": Entry(1, 2, b"1", ((2, 2, b"2"),))}), "'a' are not in order"),
        (broken(fields={"a": Entry(0, 1, b"1", ((1, 2, b"2"),))}), "'a' are not in order"),
        (broken(fields={"a": Entry(2, 2, b"1", ((2, 2, b"2"),))}), "'a' are not in order"),
        (broken(fields={"a": Entry(2, 2, b"1", ((1, 3, b"2"),))}), "'a' are not covered"),
        (broken(fields={"a": Entry(2, 2, b"1", ((1, 0, b"2"),))}), "'a' are not covered"),
        (broken(fields={"a": Entry(0, 0, b"", ((1, 2, b"2"),))}), "'a' has a value that nobody"),
        (broken(fields={"a": Entry(1, 0, b"", ((1, 2, 2),))}), "'a' has a value that nobody"),
        (broken(fields={"a": Entry(2, 2, b"1", ((0, 1, b"2"), (1, 2, 1), (1, 2, 2)))}), "'a' counts a writer twice"),
    ],
)
def test_every_broken_invariant_is_named(record: Record, says: str) -> None:
    """A record that breaks one invariant is refused at the border, by a sentence that says which."""
    with pytest.raises(RecordError, match=says):
        Record.parse(record.pack())


def test_a_record_at_its_limits_is_let_in() -> None:
    """The limits themselves are allowed."""
    version = dict.fromkeys(range(WRITERS_MAX - 1), 1) | {(1 << WRITER_BITS) - 1: COUNTER_MAX}
    fields = {str(n): Entry(n % WRITERS_MAX, 1, b"1") for n in range(FIELDS_MAX - 1)} | {
        "last": Entry(WRITERS_MAX - 1, COUNTER_MAX, b"1", ((WRITERS_MAX - 1, COUNTER_MAX, -TOTAL_MAX),))
    }
    record = broken(
        state=ROTATED,
        idle_ms=TIME_MAX_MS,
        deadline_ms=TIME_MAX_MS,
        touched_ms=-TIME_MAX_MS,
        ended_ms=TIME_MAX_MS,
        version=version,
        head_places=(WRITERS_MAX - 1,),
        fields=fields,
    )
    assert Record.parse(record.pack()) == record


def test_what_is_held_travels_on_any_clock_and_as_one_delta() -> None:
    """The largest record that may be held is taken everywhere."""
    beside = len(born(a=bytes(2**20)).pack()) - 2**20
    record, stamp = born().write(A, {"a": bytes(HELD_BYTES_MAX - beside)}, now_ms=0)
    assert len(record.pack()) == HELD_BYTES_MAX
    assert record.travels(HELD_BYTES_MAX) and not record.travels(HELD_BYTES_MAX + 1)
    assert Record.parse(record.shift(10**13).pack()).shift(-(10**13)) == record
    assert Delta.parse(Delta.of(record, KEY, born(), stamp, names=["a"], counted=()).pack()).values == {
        "a": record.fields["a"].value
    }
