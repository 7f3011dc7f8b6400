"""The table as one copy among several: changes get in by the rules, and never make it larger than it may be."""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace

from sessile import codec
from sessile.delta import Delta, Outcome
from sessile.errors import SessionLimit
from sessile.record import ENDED, LIVE, TIME_MAX_MS, WRITERS_MAX, Record, Stamp
from sessile.replication.replica import DIGEST_BYTES, Replica, digest_of
from sessile.table import Table

KEY, OTHER = b"\x01" * 16, b"\x02" * 16


def make_replica(sessions_max: int = 10) -> Replica:
    table = Table(sessions_max=sessions_max, bytes_max=100_000, rotation_grace_ms=1_000, tombstone_keep_ms=1_000)
    return Replica(table, Counter())


def make(writer: int = 7, **values: int) -> Record:
    born = Record.create(now_ms=100, idle_ms=1_000, deadline_ms=10_000)
    return born.write(writer, {name: codec.encode(value) for name, value in values.items()}, now_ms=100)[0]


def test_a_write_is_taken_by_the_rule_of_deltas() -> None:
    """Applied on its base, known the second time, needed without one; and it is a touch."""
    replica = make_replica()
    record = make(a=1)
    after, stamp = record.write(7, {"b": codec.encode(2)}, now_ms=100)
    delta = Delta.of(after, KEY, record, stamp, names=["b"], counted=())
    assert replica.apply(delta, 500) == (Outcome.NEED, None)
    replica.merge(KEY, record, 0)
    outcome, held = replica.apply(delta, 500)
    assert outcome is Outcome.APPLIED and held is not None and held.touched_ms == 500
    assert replica.get(KEY) == held
    assert replica.apply(delta, 600) == (Outcome.KNOWN, held)


def test_a_full_table_takes_no_new_session_but_every_end() -> None:
    """A new record is refused and counted; an end always finds room, also of a session that is not held."""
    replica = make_replica(sessions_max=1)
    assert replica.merge(KEY, make(a=1), 0) is not None
    assert replica.merge(OTHER, make(a=1), 0) is None
    ended = replica.merge(KEY, make(a=1).end(ENDED, 200), 0)
    assert ended is not None and ended.state == ENDED
    assert replica.merge(OTHER, make(a=1).end(ENDED, 200), 0) is not None
    assert replica.table.state(OTHER) == ENDED and replica._counts["no_room"] == 1


def test_a_copy_of_a_session_whose_end_is_remembered_becomes_its_tombstone() -> None:
    """Also when the tombstone left long ago: whoever sent the copy is to learn of the end."""
    replica = make_replica()
    replica.merge(KEY, make(a=1).end(ENDED, 200), 0)
    replica.table.drop(KEY)
    merged = replica.merge(KEY, make(a=2), 900)
    assert merged is not None and (merged.state, merged.ended_ms, merged.fields) == (ENDED, 900, {})
    assert replica.get(KEY) == merged


def test_a_write_that_finds_no_room_changes_nothing() -> None:
    """The limit's error comes through, and the copy stays what it was."""
    replica = Replica(
        Table(sessions_max=10, bytes_max=700, rotation_grace_ms=1_000, tombstone_keep_ms=1_000), Counter()
    )
    record = make(a=1)
    replica.merge(KEY, record, 0)
    after, stamp = record.write(7, {"b": codec.encode("x" * 2_000)}, now_ms=100)
    with pytest.raises(SessionLimit):
        replica.apply(Delta.of(after, KEY, record, stamp, names=["b"], counted=()), 500)
    assert replica.get(KEY) == record


def test_a_record_that_no_other_server_would_take_is_not_held() -> None:
    """It is counted, and what is held stays what it was."""
    replica = make_replica()
    record = make(a=1)
    replica.merge(KEY, record, 0)
    crowded = replace(record, version={7: 1, **dict.fromkeys(range(10, WRITERS_MAX + 10), 1)})
    assert replica.merge(KEY, crowded, 0) is None
    assert replica.get(KEY) == record and replica._counts["too_large"] == 1


def test_records_of_peers_are_checked_and_put_on_our_clock() -> None:
    """Nonsense is none and counted, and so is a clock out of all range; times move by the difference of the clocks."""
    replica = make_replica()
    record = make(a=1)
    read = replica.read(record.pack(), 50)
    assert read is not None and (read.touched_ms, read.deadline_ms) == (150, 10_050)
    assert replica.read(b"nonsense", 0) is None
    assert replica.read(record.pack(), TIME_MAX_MS + 1) is None
    assert (
        replica.read(record.pack(), TIME_MAX_MS) is not None and replica.read(record.pack(), -TIME_MAX_MS) is not None
    )
    assert replica._counts["bad_records"] == 2


def test_clashes_are_counted() -> None:
    """Equal stamps with different bytes cannot come of writers that follow the protocol."""
    replica = make_replica()
    replica.merge(KEY, make(a=1), 0)
    replica.merge(KEY, make(a=2), 0)
    assert replica._counts["clashes"] == 1


def test_touches_only_move_forward_and_only_what_lives() -> None:
    """An older touch, one of an ended session and one of an unknown one change nothing."""
    replica = make_replica()
    replica.merge(KEY, make(a=1), 0)
    replica.touch(KEY, 50)
    assert replica.get(KEY) == make(a=1)
    replica.touch(KEY, 700)
    held = replica.get(KEY)
    assert held is not None and held.touched_ms == 700
    replica.touch(OTHER, 700)
    replica.merge(KEY, make(a=1).end(ENDED, 800), 0)
    replica.touch(KEY, 900)
    held = replica.get(KEY)
    assert held is not None and held.touched_ms == 700


def test_a_touch_finds_room_in_a_full_table() -> None:
    """A greater time may take a byte more."""
    replica = make_replica()
    replica.merge(KEY, make(a=1), 0)
    replica.table._bytes_max = 1
    replica.touch(KEY, 1 << 33)
    held = replica.get(KEY)
    assert held is not None and held.touched_ms == 1 << 33


def test_tombstones_are_the_ended_ones() -> None:
    """Not the living; that tombstones are kept beyond their time is for the table to say."""
    replica = make_replica()
    replica.merge(KEY, make(a=1), 0)
    replica.merge(OTHER, make(a=1).end(ENDED, 800), 0)
    assert [key for key, _ in replica.tombstones()] == [OTHER]
    assert replica.table.state(KEY) == LIVE
    replica.clear()
    assert list(replica.table) == [OTHER], "what has ended, has ended"


def test_digests_are_of_key_version_and_state_alone() -> None:
    """Equal where the same is held, whatever the times and the order of writers; different for anything else."""
    one, _ = make(a=1).write(9, {}, now_ms=100)
    other = Record(
        one.state, one.idle_ms, one.deadline_ms, 900, 0, "", {9: 2, 7: 1}, (0,), one.fields
    )  # the same writers in another order
    assert digest_of(KEY, one) == digest_of(KEY, other) < 1 << (8 * DIGEST_BYTES)
    seen = {digest_of(KEY, one), digest_of(OTHER, one), digest_of(KEY, one.end(ENDED, 1)), digest_of(KEY, make(a=1))}
    assert len(seen) == 4
    assert Stamp(1, 7) < Stamp(2, 9)


def test_digests_tell_writers_apart() -> None:
    """Two copies that each lack the other's write have equal counts, and are not alike."""
    assert digest_of(KEY, make(7, a=1)) != digest_of(KEY, make(8, a=1))
    base = make(a=1)
    one, other = (base.write(writer, {"b": b"\x01"}, now_ms=100)[0] for writer in (8, 9))
    assert sorted(one.version.values()) == sorted(other.version.values())
    assert digest_of(KEY, one) != digest_of(KEY, other)
