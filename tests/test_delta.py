"""The delta: what it says of a write, who applies it, and what is refused at the border."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.delta import Addition, Delta, Outcome, apply
from sessile.errors import RecordError
from sessile.record import (
    BYTES_MAX,
    COUNTER_MAX,
    ENDED,
    FIELDS_MAX,
    REMOVED,
    TOTAL_MAX,
    WRITER_BITS,
    WRITERS_MAX,
    Entry,
    Record,
    Stamp,
    merge,
)
from tests.record_model import MUTATION, A, B, C, Network, born, copies, mutated, networks, wrote

KEY = b"k" * 16
GIVEN = Delta(KEY, (Stamp(4, B), Stamp(5, A)), Stamp(6, B), {"a": b"1"}, {"n": Addition(5, A, -3)})
"""A delta with something in every place."""


# -- who applies it --------------------------------------------------------------------------------------------------------


@given(networks(may_end=False), st.randoms(use_true_random=False))
def test_deltas_in_any_order_with_repeats_equal_the_merged_states(network: Network, chance: Any) -> None:
    """Once all deltas have arrived, however often and in whatever order, the state is that of the merged records."""
    records = [replica.record.shift(-replica.ahead_ms) for replica in network.replicas if replica.record is not None]
    merged = records[0]
    for record in records[1:]:
        merged = merge(merged, record)
    fresh: Record | None = Record.create(now_ms=0, idle_ms=60_000, deadline_ms=1_000_000, subject="u")
    waiting = [Delta.parse(post.data) for post in network.posts] * 2
    arrived: list[Delta] = []
    for _ in range(len(waiting) + 1):
        chance.shuffle(waiting)
        for delta in waiting:
            outcome, fresh = apply(fresh, delta)
            if outcome is not Outcome.NEED:
                arrived.append(delta)
        waiting = [delta for delta in waiting if delta not in arrived]
    assert not waiting, "what a write builds on is a write as well, so the last one finds its base"
    assert fresh is not None and fresh.same_state(merged)
    fresh.check()


def test_a_delta_is_applied_once() -> None:
    """Who covers its base applies a delta; who has its stamp, or a later one of its writer, knows it."""
    base = born(a=b"1")
    after, stamp = base.write(B, {"a": b"2"}, {"n": 1}, now_ms=0)
    delta = Delta.of(after, KEY, base, stamp, names=["a"], counted=["n"])
    assert (delta.base, delta.values, delta.additions) == (base.heads, {"a": b"2"}, {"n": Addition(*stamp, 1)})
    outcome, applied = apply(base, delta)
    assert outcome is Outcome.APPLIED and applied is not None and applied.same_state(after)
    assert apply(applied, delta) == (Outcome.KNOWN, applied)


def test_a_delta_without_its_base_changes_nothing() -> None:
    """Who misses a write that a delta builds on needs the record; so does who never heard of the session."""
    base = born(a=b"1")
    missed = wrote(base, C, a=b"2")
    after, stamp = missed.write(B, {"b": b"3"}, now_ms=0)
    delta = Delta.of(after, KEY, missed, stamp, names=["b"], counted=())
    assert apply(base, delta) == (Outcome.NEED, base)
    assert apply(None, delta) == (Outcome.NEED, None)
    assert merge(base, after).same_state(after)


def test_a_delta_from_before_a_later_assignment_does_not_take_it_back() -> None:
    """A late delta moves the version on, and leaves a field that meanwhile has a higher stamp."""
    base = born(a=b"1")
    early, stamp = base.write(B, {"a": b"early", "b": b"new"}, now_ms=0)
    late = wrote(wrote(base, C, a=b"2"), C, a=b"3")
    outcome, after = apply(late, Delta.of(early, KEY, base, stamp, names=["a", "b"], counted=()))
    assert outcome is Outcome.APPLIED and after is not None
    assert (after.fields["a"].value, after.fields["b"].value) == (b"3", b"new")
    assert after.heads == (Stamp(2, B), Stamp(3, C))


@pytest.mark.parametrize("writer", [A, C])
def test_increments_count_only_under_the_assignment_they_were_made_on(writer: int) -> None:
    """Two assignments may have the same counter: which of the two is meant is a matter of the writer as well."""
    base = born(a=b"1")
    ours, theirs = wrote(base, B, n=b"\x05"), wrote(base, writer, n=b"\x64")
    assert ours.fields["n"].counter == theirs.fields["n"].counter
    counted, stamp = ours.write(B, {}, {"n": 1}, now_ms=0)
    delta = Delta.of(counted, KEY, ours, stamp, names=(), counted=["n"])
    both = merge(ours, theirs)
    outcome, after = apply(both, delta)
    assert outcome is Outcome.APPLIED and after is not None
    assert after.fields["n"].read() == ((b"\x05", 1) if writer == A else (b"\x64", 0))
    assert after.same_state(merge(both, counted))


def test_a_first_increment_stands_under_itself() -> None:
    """To the byte: a store's scripts write the same."""
    base = born(a=b"1")
    counted, stamp = base.write(B, {}, {"n": 1}, now_ms=0)
    _, after = apply(base, Delta.of(counted, KEY, base, stamp, names=(), counted=["n"]))
    assert after is not None
    assert after.fields["n"] == Entry(1, stamp.counter, REMOVED, ((1, stamp.counter, 1),))
    assert after.pack() == counted.pack()


def test_a_write_replaces_only_what_its_writer_knew() -> None:
    """A parallel assignment, which came first, stays beside it, and beside a removal."""
    base = born(a=b"1")
    for value in (b"2", REMOVED):
        after, stamp = base.write(B, {"a": value}, now_ms=0)
        delta = Delta.of(after, KEY, base, stamp, names=["a"], counted=())
        parallel = wrote(base, C, a=b"3")
        outcome, both = apply(parallel, delta)
        assert outcome is Outcome.APPLIED and both is not None and both.same_state(merge(parallel, after))
        assert both.fields["a"].read() == (b"3", 0)


def test_a_delta_names_the_writers_of_what_it_replaces() -> None:
    """The last write of each of them joins the heads, as it has no head; 12 bytes, and nothing if it is the writer's own."""
    base = wrote(born(a=b"1"), C, b=b"1")
    assert base.heads == (Stamp(2, C),)
    for writer, names, stamps in ((B, "a", (Stamp(1, A), Stamp(2, C))), (A, "a", base.heads), (B, "b", base.heads)):
        after, stamp = base.write(writer, {names: b"2"}, now_ms=0)
        delta = Delta.of(after, KEY, base, stamp, names=[names], counted=())
        assert delta.base == stamps
        assert Delta.parse(delta.pack()) == delta
        outcome, applied = apply(base, delta)
        assert outcome is Outcome.APPLIED and applied is not None and applied.same_state(after)
        assert applied.heads == after.heads == (stamp,)


def test_without_a_time_a_write_is_a_touch_at_zero() -> None:
    """Where times are kept apart from the record, as in a row of a database, they are left alone."""
    base = born(a=b"1")
    early = base.shift(-base.touched_ms - 10)
    after, stamp = early.write(B, {"a": b"2"}, now_ms=-10)
    _, applied = apply(early, Delta.of(after, KEY, early, stamp, names=["a"], counted=()))
    assert applied is not None and applied.touched_ms == 0


# -- bytes -----------------------------------------------------------------------------------------------------------------


def test_a_delta_travels_as_bytes() -> None:
    """What is packed here is parsed there, with the types it had."""
    parsed_ = Delta.parse(GIVEN.pack())
    assert parsed_ == GIVEN
    assert isinstance(parsed_.stamp, Stamp) and isinstance(parsed_.base[0], Stamp)
    assert len(Delta(KEY, (Stamp(9, A),), Stamp(10, B), {"n": b"1"}).pack()) <= 40


def test_what_a_delta_looks_like_on_the_wire() -> None:
    """Servers of other releases read it: arrays all through, each part at its place."""
    delta = Delta(KEY, (Stamp(9, A),), Stamp(10, B), {"n": b"1"}, {"m": Addition(8, A, -2)})
    assert msgspec.msgpack.decode(delta.pack()) == [KEY, [[9, A]], [10, B], {"n": b"1"}, {"m": [8, A, -2]}]


def forged(**changes: Any) -> Delta:
    return msgspec.structs.replace(GIVEN, **changes)


@pytest.mark.parametrize(
    ("delta", "says"),
    [
        (forged(key=b""), "key"),
        (forged(key=b"k" * 17), "key"),
        (forged(values={str(n): b"1" for n in range(FIELDS_MAX)}), "limits"),
        (forged(base=tuple(Stamp(1, n) for n in range(WRITERS_MAX + 1))), "limits"),
        (forged(base=(Stamp(0, A),)), "range"),
        (forged(base=(Stamp(1, -1),)), "range"),
        (forged(stamp=Stamp(COUNTER_MAX + 1, A)), "range"),
        (forged(stamp=Stamp(6, 1 << WRITER_BITS)), "range"),
        (forged(stamp=Stamp(0, A), base=(), additions={}), "range"),
        (forged(base=(Stamp(4, A), Stamp(5, A))), "twice"),
        (forged(base=(Stamp(6, A),)), "above"),
        (forged(base=(Stamp(7, A),)), "above"),
        (forged(additions={"n": Addition(6, A, 1)}), "'n'"),
        (forged(additions={"n": Addition(7, B, 1)}), "'n'"),
        (forged(additions={"n": Addition(-1, A, 1)}), "'n'"),
        (forged(additions={"n": Addition(0, A, 1)}), "'n'"),
        (forged(additions={"n": Addition(5, -1, 1)}), "'n'"),
        (forged(additions={"n": Addition(5, A, TOTAL_MAX + 1)}), "'n'"),
        (forged(additions={"n": Addition(5, A, -TOTAL_MAX - 1)}), "'n'"),
        (forged(additions={"a": Addition(5, A, 1)}), "'a'"),
    ],
)
def test_every_broken_rule_of_a_delta_is_named(delta: Delta, says: str) -> None:
    """A delta that nobody who follows the protocol sends is refused at the border, by a sentence that says why."""
    with pytest.raises(RecordError, match=says):
        Delta.parse(delta.pack())


def test_a_delta_at_its_limits_is_let_in() -> None:
    """The limits themselves are allowed, and so are a first write and a count from nothing."""
    for delta in (
        forged(base=(), stamp=Stamp(1, 0), additions={"n": Addition(0, 0, TOTAL_MAX)}),
        forged(base=(), stamp=Stamp(COUNTER_MAX, (1 << WRITER_BITS) - 1)),
        forged(values={str(n): b"1" for n in range(FIELDS_MAX - 1)}),
        forged(base=tuple(Stamp(1, n) for n in range(WRITERS_MAX))),
    ):
        assert Delta.parse(delta.pack()) == delta
    small = forged(values={"a": bytes(70_000)})
    longest = forged(values={"a": bytes(BYTES_MAX - len(small.pack()) + 70_000)})
    assert len(longest.pack()) == BYTES_MAX
    assert Delta.parse(longest.pack()) == longest


def test_bytes_that_are_no_delta() -> None:
    """One kind of error for what is too long, nested without an end, cut off, no UTF-8, or a record."""
    packed = GIVEN.pack()
    deep = bytes([packed[0] + 1]) + packed[1:] + b"\x91" * 100_000
    no_text = packed.replace(b"\xa1a", b"\xa1\xff")
    for data in (bytes(BYTES_MAX + 1), deep, packed[:-1], no_text, b"", born(a=b"1").pack()):
        with pytest.raises(RecordError):
            Delta.parse(data)


@given(copies(1), st.lists(MUTATION, min_size=1, max_size=4))
def test_damaged_deltas_are_refused_or_applied(one: list[Record], mutations: list[tuple[str, int, int]]) -> None:
    """Whatever a damaged delta says, a record it is applied to stays a record that others let in."""
    (record,) = one
    if record.state == ENDED:
        return
    written, stamp = record.write(C, {"a": b"1", "b": b"2"}, {"n": 1}, now_ms=0)
    data = Delta.of(written, KEY, record, stamp, names=["a", "b"], counted=["n"]).pack()
    try:
        delta = Delta.parse(mutated(data, mutations))
    except RecordError:
        return
    assert Delta.parse(delta.pack()) == delta
    for holder in (record, written):
        outcome, after = apply(holder, delta)
        assert after is not None and Record.parse(after.pack()) == after
        assert (after is holder) == (outcome is not Outcome.APPLIED)
        assert merge(holder, after).same_state(after)
