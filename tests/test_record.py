"""The laws of the record, over states that replicas can come to, and its rules one by one."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sessile.delta import Delta, Outcome, apply
from sessile.record import ENDED, LIVE, REMOVED, ROTATED, Entry, Record, Stamp, merge
from tests.record_model import A, B, C, Network, born, copies, networks, wrote

KEY = b"k" * 16


def value_of(record: Record, name: str) -> tuple[bytes, int]:
    return record.fields[name].value, record.fields[name].added


# -- the laws ------------------------------------------------------------------------------------------------------------


@given(networks())
def test_replicas_say_what_the_model_says(network: Network) -> None:
    """Whatever is written, delivered, merged and ended in whatever order, each record is what its writes amount to.

    The network itself compares every replica with the model after every step, and every delta's outcome too.
    """
    assert not network.clashes, "writers that follow the protocol bring no clash about"


@given(copies(2))
def test_merge_is_commutative(two: list[Record]) -> None:
    """It does not matter who merges whom."""
    one, other = two
    assert merge(one, other).same_state(merge(other, one))
    assert times(merge(one, other)) == times(merge(other, one))


@given(copies(3))
def test_merge_is_associative(three: list[Record]) -> None:
    """It does not matter in which order copies come together."""
    one, two, three_ = three
    left, right = merge(merge(one, two), three_), merge(one, merge(two, three_))
    assert left.same_state(right)
    assert times(left) == times(right)


@given(copies(2))
def test_merge_is_idempotent(two: list[Record]) -> None:
    """Merging what is already in changes nothing, not even the bytes."""
    one, other = two
    assert merge(one, one) == one
    joined = merge(one, other)
    assert merge(joined, other) == joined
    assert merge(one, joined).same_state(joined)


@given(copies(2))
def test_a_merged_record_covers_both(two: list[Record]) -> None:
    """A join holds every write of both, and nothing else."""
    one, other = two
    joined = merge(one, other)
    joined.check()
    assert joined.covers(one.heads) and joined.covers(other.heads)
    writers = one.version.keys() | other.version.keys()
    assert joined.version == {w: max(one.version.get(w, 0), other.version.get(w, 0)) for w in writers}


@given(networks())
def test_everybody_agrees_in_the_end(network: Network) -> None:
    """When each delta has reached everybody, and who needed the record got it, and ends were told, all are the same."""
    for post in network.posts:
        for replica in network.replicas:
            if network.deliver(replica, post) is Outcome.NEED:
                network.join(replica, network.replicas[post.sender])
    for replica in network.replicas:  # an end is told as a whole
        for other in network.replicas:
            network.join(replica, other)
    first = network.replicas[0].record
    assert first is not None
    for replica in network.replicas:
        assert replica.record is not None and replica.record.same_state(first)


@given(copies(2), st.sampled_from([ROTATED, ENDED]))
def test_ended_never_unends(two: list[Record], state: int) -> None:
    """No merge, no delta and no weaker end brings an ended session back; an ended one has no fields."""
    one, other = two
    ended = one.end(state, 7_777)
    for after in (merge(ended, other), merge(other, ended), ended.end(ROTATED, 8_888), ended.touch(10**9)):
        assert after.state >= state
        assert after.state != ENDED or not after.fields
        after.check()
    if other.state != LIVE:
        return
    written, stamp = other.write(C, {"a": b"late"}, now_ms=0)
    outcome, after_delta = apply(ended, Delta.of(written, KEY, other, stamp, names=["a"], counted=()))
    assert after_delta is not None
    assert after_delta.state == ended.state
    if outcome is Outcome.APPLIED:
        assert after_delta.covers([stamp])
        assert after_delta.fields.keys() >= ended.fields.keys()
        assert after_delta.state != ENDED or not after_delta.fields


@given(copies(1), st.integers(-(10**15), 10**15))
def test_a_shift_there_and_back_changes_nothing(one: list[Record], by_ms: int) -> None:
    """Times become durations and times again; the end of a session that has not ended is no time."""
    (record,) = one
    shifted = record.shift(by_ms)
    assert shifted.shift(-by_ms) == record
    assert shifted.same_state(record) and shifted.expires_ms() == record.expires_ms() + by_ms
    assert shifted.ended_ms == (record.ended_ms + by_ms if record.state else 0)
    assert Record.parse(shifted.pack()) == shifted


@given(copies(1), st.lists(st.integers(0, 10**6), min_size=1))
def test_times_merge_to_the_latest_touch_and_the_earliest_limit(one: list[Record], at_ms: list[int]) -> None:
    """Touches merge by max, limits by min, and none of them moves a version."""
    (record,) = one
    replaced = [msgspec.structs.replace(record, touched_ms=ms, idle_ms=ms // 2, deadline_ms=3 * ms) for ms in at_ms]
    joined = replaced[0]
    for other in replaced[1:]:
        joined = merge(joined, other)
    assert (joined.touched_ms, joined.idle_ms, joined.deadline_ms) == (max(at_ms), min(at_ms) // 2, 3 * min(at_ms))
    assert joined.same_state(record)
    assert record.touch(at_ms[0]).touched_ms == max(record.touched_ms, at_ms[0])


def times(record: Record) -> tuple[int, ...]:
    return record.idle_ms, record.deadline_ms, record.touched_ms, record.ended_ms


# -- single rules, by example ----------------------------------------------------------------------------------------------


def test_parallel_writes_to_different_fields_both_stay() -> None:
    """Two requests that write different fields lose nothing, and leave two heads."""
    base = born(a=b"1", b=b"1")
    joined = merge(wrote(base, B, a=b"2"), wrote(base, C, b=b"3"))
    assert {name: value_of(joined, name) for name in joined.names()} == {"a": (b"2", 0), "b": (b"3", 0)}
    assert joined.heads == (Stamp(2, B), Stamp(2, C))
    assert wrote(joined, A, a=b"4").heads == (Stamp(3, A),)


def test_the_greater_stamp_wins_a_field() -> None:
    """Of two parallel assignments the higher counter wins, and of equal counters the higher writer."""
    base = born(a=b"1")
    equal = merge(wrote(base, B, a=b"from B"), wrote(base, C, a=b"from C"))
    assert value_of(equal, "a") == (b"from C", 0)
    later = merge(wrote(wrote(base, B, b=b"-"), B, a=b"later"), wrote(base, C, a=b"from C"))
    assert value_of(later, "a") == (b"later", 0)


def test_a_removal_removes_what_its_writer_knew_and_leaves_nothing() -> None:
    """No tombstone: against writes its remover had seen the field stays away, and a parallel or later write stays."""
    base = born(a=b"1", b=b"1")
    removed = wrote(base, B, a=REMOVED)
    assert list(removed.fields) == list(merge(removed, base).fields) == list(merge(base, removed).fields) == ["b"]
    assert sorted(merge(base, wrote(removed, A, a=b"2")).names()) == ["a", "b"]
    parallel = wrote(base, C, a=b"2")
    for joined in (merge(removed, parallel), merge(parallel, removed)):
        assert joined.fields["a"].read() == (b"2", 0)
        assert list(wrote(joined, A, a=REMOVED).fields) == ["b"]


def test_a_lower_assignment_stays_until_it_is_seen() -> None:
    """The case for which a removed field once kept its stamp: all orders of merging end the same.

    X and Z assign at once, X the higher; Y sees X alone and removes it. Z's assignment, which Y never saw, stays.
    """
    base = born(a=b"1")
    high, low = wrote(base, C, a=b"X"), wrote(base, B, a=b"Z")
    removed = wrote(high, A, a=REMOVED)
    orders = [merge(merge(high, low), removed), merge(high, merge(removed, low)), merge(merge(high, removed), low)]
    assert all(each.same_state(orders[0]) and each.fields["a"].read() == (b"Z", 0) for each in orders)
    both = merge(high, low)
    assert both.fields["a"].read() == (b"X", 0) and len(both.fields["a"].assignments()) == 2
    assert merge(wrote(both, A, a=REMOVED), both).fields == {}
    assert len(merge(wrote(both, A, a=b"2"), both).fields["a"].assignments()) == 1, (
        "a later write replaces all it has seen"
    )


def test_both_copies_may_have_removed_what_the_other_has() -> None:
    """Of two parallel assignments each copy knows one, and removed the other."""
    base = born(a=b"1")
    one, other = wrote(base, B, a=b"2"), wrote(base, C, a=b"3")
    joined = merge(merge(one, wrote(other, C, a=REMOVED)), merge(other, wrote(one, B, a=REMOVED)))
    assert joined.fields == {}


def test_removing_what_nobody_wrote_leaves_nothing() -> None:
    """Neither here nor at who gets the delta."""
    base = born(a=b"1")
    record, stamp = base.write(B, {"x": REMOVED, "a": b"2"}, now_ms=0)
    assert list(record.fields) == ["a"]
    assert Delta.of(record, KEY, base, stamp, names=["x", "a"], counted=()).values == {"a": b"2"}


def test_many_names_that_come_and_go_leave_no_more_than_one() -> None:
    """A record stays as small as what it holds, however many names were in it."""
    record = born(a=b"1")
    size = len(record.pack())
    for number in range(300):
        for value in (b"1", REMOVED):
            record, _ = record.write(A, {f"name {number}": value}, now_ms=0)
    assert list(record.fields) == ["a"] and len(record.pack()) <= size + 2


def test_parallel_increments_all_count() -> None:
    """Increments by different writers add up, also of a name that nobody assigned."""
    base = born(n=b"\x05")
    copies_ = [wrote(base, writer, {"n": 1, "fresh": 10}) for writer in (A, B, C)]
    joined = merge(merge(copies_[0], copies_[1]), copies_[2])
    assert value_of(joined, "n") == (b"\x05", 3)
    assert value_of(joined, "fresh") == (REMOVED, 30)
    assert joined.fields["fresh"].is_present and len(joined.fields["fresh"].assignments()) == 3
    assert value_of(wrote(joined, B, {"fresh": 1}), "fresh") == (REMOVED, 31)


def test_an_assignment_and_a_removal_reset_a_counter() -> None:
    """What was added before is gone with what it was added to; later increments count from the new value."""
    counted = wrote(wrote(born(n=b"\x05"), B, {"n": 2}), B, {"n": 1})
    assert value_of(counted, "n") == (b"\x05", 3)
    assigned = wrote(counted, C, n=b"\x09")
    assert value_of(assigned, "n") == (b"\x09", 0)
    assert value_of(wrote(assigned, B, {"n": 4}), "n") == (b"\x09", 4)
    removed = wrote(counted, C, n=REMOVED)
    assert "n" not in removed.fields
    assert value_of(wrote(removed, B, {"n": 4}), "n") == (REMOVED, 4)


def test_an_increment_under_a_lost_assignment_is_lost_with_it() -> None:
    """A parallel assignment with a higher stamp does not inherit increments it never saw."""
    base = born(n=b"\x05")
    added, stamp = base.write(B, {}, {"n": 7}, now_ms=0)
    assigned = wrote(base, C, n=b"\x01")
    assert value_of(merge(added, assigned), "n") == (b"\x01", 0)
    _, by_delta = apply(assigned, Delta.of(added, KEY, base, stamp, names=(), counted=["n"]))
    assert by_delta is not None and by_delta.same_state(merge(added, assigned))


def test_a_write_takes_a_counter_above_all_it_has_seen() -> None:
    """A Lamport clock: above the record's counters and above what the request's token names."""
    base = born(a=b"1")
    assert base.write(B, {"a": b"2"}, now_ms=0)[1] == (2, B)
    assert base.write(B, {"a": b"2"}, now_ms=0, above=41)[1] == (42, B)
    assert base.write(B, {"a": b"2"}, now_ms=2_000)[0].touched_ms == 2_000
    assert base.write(B, {"a": b"2"}, now_ms=0)[0].touched_ms == base.touched_ms, "a clock is not set back"


def test_equal_stamps_with_different_bytes_are_reported() -> None:
    """Two writers that share a tag are a counted error, and all copies agree on one of their values."""
    base = born(a=b"1")
    one, other = wrote(base, B, a=b"x", b=b"same"), wrote(base, B, a=b"y", b=b"same")
    clashes: list[str] = []
    assert value_of(merge(one, other, clashes), "a") == (b"y", 0)
    assert clashes == ["a"]
    assert merge(one, other).same_state(merge(other, one)), "nobody has to listen"


def test_equal_stamps_with_different_sums_are_reported() -> None:
    """The same for a counter: one increment of one writer cannot come to two sums."""
    base = born(n=b"\x05")
    one, other = wrote(base, B, {"n": 1}), wrote(base, B, {"n": 2})
    clashes: list[str] = []
    assert merge(one, other, clashes).same_state(merge(other, one))
    assert clashes == ["n"]


def test_the_subject_and_the_first_end_stay() -> None:
    """Whom a session is bound to survives a merge; an end that is told twice keeps its first time."""
    record = Record.create(now_ms=0, idle_ms=1, deadline_ms=1, subject="ann")
    assert record.subject == merge(record, record).subject == "ann"
    rotated = record.write(A, {"a": b"1"}, now_ms=0)[0].end(ROTATED, 10)
    assert (rotated.state, rotated.ended_ms, list(rotated.names())) == (ROTATED, 10, ["a"])
    ended = rotated.end(ENDED, 20)
    assert (ended.state, ended.ended_ms, ended.fields, ended.version) == (ENDED, 10, {}, rotated.version)
    assert rotated.shift(5).ended_ms == 15


def test_same_state_sees_every_difference_but_times() -> None:
    """Two copies are the same when state, subject, version, heads and fields are; local times do not count."""
    base = born(a=b"1")
    assert base.same_state(base.touch(10**9).shift(77))
    other_heads = msgspec.structs.replace(merge(wrote(base, B, a=b"2"), wrote(base, C, a=b"3")), head_places=(1,))
    for other in (
        base.end(ROTATED, 0),
        msgspec.structs.replace(base, subject="ann"),
        wrote(base, B, a=b"1"),
        msgspec.structs.replace(base, fields={}),
        msgspec.structs.replace(base, fields={"a": Entry(0, 1, b"2")}),
        msgspec.structs.replace(base, fields={"a": Entry(0, 1, b"1", ((0, 1, 1),))}),
    ):
        assert not base.same_state(other) and not other.same_state(base)
    assert not other_heads.same_state(merge(wrote(base, B, a=b"2"), wrote(base, C, a=b"3")))


def test_has_heads_takes_no_other_version_for_its_own() -> None:
    """The short cut for one writer says the same as the whole comparison."""
    one = born(a=b"1")
    two = merge(wrote(one, B, a=b"2"), wrote(one, C, a=b"3"))
    assert one.has_heads((Stamp(1, A),))
    beyond = (Stamp(1, A), Stamp(1, B))
    assert not any(one.has_heads(heads) for heads in ((), (Stamp(2, A),), (Stamp(1, B),), two.heads, beyond))
    assert two.has_heads((Stamp(2, B), Stamp(2, C)))
    assert not any(two.has_heads(heads) for heads in ((), (Stamp(2, B),), one.heads))
    assert born().has_heads(()) and born().heads == ()


def test_increments_under_equal_counters_of_two_writers_are_not_mixed() -> None:
    """Two assigned at once, by the same count: what was added to the one that lost is lost, wherever copies meet."""
    base = born(n=b"\x05")
    low, high = sorted((B, C))
    lost = wrote(wrote(base, low, n=b"\x01"), A, {"n": 100})
    stays = wrote(base, high, n=b"\x02")
    grown, stamp = stays.write(A + 1, {}, {"n": 7}, now_ms=0)
    for joined in (merge(lost, grown), merge(grown, lost)):
        assert value_of(joined, "n") == (b"\x02", 7)
    delta = Delta.of(lost, KEY, base, Stamp(lost.version[A], A), names=(), counted=["n"])
    assert (delta.additions["n"].counter, delta.additions["n"].writer) == (lost.fields["n"].counter, low)
    outcome, by_delta = apply(merge(wrote(base, low, n=b"\x01"), grown), delta)
    assert outcome is Outcome.APPLIED and by_delta is not None and value_of(by_delta, "n") == (b"\x02", 7)
    assert stamp.writer == A + 1


def test_of_two_additions_of_one_writer_the_later_counts_and_of_equal_ones_the_greater() -> None:
    """The order of merging does not matter, not even where two writers share a tag."""
    base = born(n=b"\x05")
    one, other = wrote(base, B, {"n": 3}), wrote(base, B, {"n": 9})
    later = wrote(one, B, {"n": -2})
    for first, second, total in ((one, other, 9), (one, later, 1), (other, later, 1)):
        clashes: list[str] = []
        assert merge(first, second, clashes).fields["n"].added == merge(second, first).fields["n"].added == total
        assert clashes == (["n"] if second is other else [])


@given(copies(3))
def test_what_is_left_out_since_a_version_is_what_its_holder_has(three: list[Record]) -> None:
    """Whoever has that version, or meanwhile a later one, lacks nothing by it; with no version it is the whole record."""
    one, other, third = three
    clashes: list[str] = []
    for later in (other, merge(other, third)):
        told = Record.parse(one.since(other.version).pack())
        assert merge(later, told, clashes).same_state(merge(later, one))
    assert not clashes and one.since({}) == one
    assert not any(each.value for each in one.since(one.version).fields.values())


@given(copies(2))
def test_times_alone_change_nothing_else(two: list[Record]) -> None:
    """They are the answer to somebody who lacks nothing of a live session."""
    one, other = two
    if other.state == LIVE:
        joined = merge(one, Record.parse(other.times().pack()))
        assert joined.same_state(one) and times(joined) == times(merge(one, other))


def test_a_counter_that_began_twice_is_the_sum() -> None:
    """Two servers that each count a name first begin two counters; an assignment that is beside them is read instead."""
    base = born(a=b"1")
    one, other = wrote(base, B, {"n": 2}), wrote(base, C, {"n": 40})
    joined = merge(one, other)
    assert joined.fields["n"].read() == (REMOVED, 42)
    assert merge(joined, wrote(base, A, n=b"\x07")).fields["n"].read() == (b"\x07", 0)
    assert wrote(merge(joined, wrote(base, A, n=b"\x07")), B, {"n": 1}).fields["n"].read() == (b"\x07", 1)
    removed = merge(joined, wrote(one, A, n=REMOVED))
    assert removed.fields["n"].read() == (REMOVED, 40), "what B began was removed, what C began in parallel stays"


def test_a_name_counted_in_an_early_version_can_be_counted_on() -> None:
    """It stands under no assignment, and every version covers that: whoever has it not has removed it."""
    early = msgspec.structs.replace(born(a=b"1"), fields={"n": Entry(0, 0, REMOVED, ((0, 1, 5),))})
    assert Record.parse(early.pack()) == early
    counted = wrote(early, B, {"n": 2})
    assert counted.fields["n"].read() == (REMOVED, 7)
    assert merge(early, counted).same_state(counted) and merge(early, wrote(early, B, n=REMOVED)).fields == {}


def test_of_sums_of_one_writer_the_first_may_be_negative() -> None:
    """A sum that the other copy does not know is taken as it is, and no clash."""
    clashes: list[str] = []
    counted = wrote(born(), A, {"n": -3})
    other = wrote(born(), B, {"n": 1})
    assert merge(other, counted, clashes).fields["n"].added == -2
    assert merge(counted, wrote(counted, A, {"n": 2}), clashes).fields["n"].added == -1
    assert not clashes
