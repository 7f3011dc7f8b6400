"""Which sessions ended, and until when that matters: exact, in order, and bounded."""

from __future__ import annotations

from array import array
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.ends import END_BYTES, MARGIN_MS, MARK, SHARD_MIN, SHARDS, Ends

LATER_MS = 2 * MARGIN_MS


def key(number: int) -> bytes:
    return bytes([number % 3]) + number.to_bytes(15, "big")


def sweep_all(ends: Ends, now_ms: int) -> None:
    for _ in range(SHARDS):
        ends.sweep(now_ms)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.booleans()), max_size=40))
def test_it_is_a_dictionary_of_times(steps: list[tuple[int, int, bool]]) -> None:
    """Whatever is added and swept: what matters still is there, what does not is gone, and the later time counts."""
    ends, model = Ends(bytes_max=1_000_000), dict[bytes, int]()
    for number, minutes, is_sweep in steps:
        time_ms = minutes * LATER_MS
        if is_sweep:
            sweep_all(ends, time_ms)
            model = {one: until_ms for one, until_ms in model.items() if until_ms + MARGIN_MS + 1000 > time_ms}
        else:
            ends.add(key(number), time_ms)
            model[key(number)] = max(model.get(key(number), 0), time_ms)
    assert [number for number in range(10) if key(number) in ends] == [n for n in range(10) if key(n) in model]
    assert len(ends) == len(model) and ends.held_bytes == END_BYTES * len(model)
    for one, until_ms in model.items():
        remembered_ms = ends.until_ms(one)
        assert remembered_ms is not None and until_ms + MARGIN_MS <= remembered_ms <= until_ms + MARGIN_MS + 1000
    assert ends.until_ms(key(11)) is None


def test_an_empty_one_is_false() -> None:
    """So that asking it costs nothing where nothing has ended."""
    ends = Ends(bytes_max=1_000_000)
    assert not ends and key(1) not in ends
    ends.add(key(1), 0)
    assert ends and key(1) in ends


def test_its_memory_is_bounded() -> None:
    """Beyond the bound the ends go that matter for the shortest time, and are counted."""
    ends = Ends(bytes_max=SHARDS * END_BYTES * 80)
    count = 1_000
    for number in range(count):
        ends.add(bytes(14) + number.to_bytes(2, "big"), (number * 7 % count) * 1_000)
    assert len(ends) + ends.forgotten == count and len(ends) <= 80
    assert all(
        bytes(14) + number.to_bytes(2, "big") in ends for number in range(count) if number * 7 % count > count - 50
    )


def test_a_full_shard_lets_an_eighth_go() -> None:
    """At the bound all are remembered; one more, and the eighth goes that matters for the shortest time."""
    ends = Ends(bytes_max=SHARDS * END_BYTES * 80)
    for number in range(80):
        ends.add(bytes(15) + bytes([number]), number * 1_000)
    assert (len(ends), ends.forgotten) == (80, 0)
    ends.add(bytes(15) + bytes([80]), 0)
    assert (len(ends), ends.forgotten) == (71, 10)
    assert array("Q").itemsize + array("I").itemsize == END_BYTES


def test_half_of_a_key_tells_sessions_apart() -> None:
    """Every one of its last 64 bits counts."""
    ends = Ends(bytes_max=1_000_000)
    ends.add(bytes(16), 0)
    assert not any(bytes(8) + (1 << bit).to_bytes(8, "big") in ends for bit in range(64))


def test_a_time_out_of_range_is_the_nearest_that_can_be_kept() -> None:
    """A peer's nonsense breaks nothing: a deadline before all time is over, one after all time stays."""
    ends = Ends(bytes_max=1_000_000)
    ends.add(key(0), -(2**53))
    ends.add(key(1), 2**53)
    sweep_all(ends, 10**12)
    assert key(0) not in ends and key(1) in ends


def test_what_is_remembered_is_told_and_taken() -> None:
    """In pieces, with its times counted from now on each side's own clock; what does not matter any more is left out."""
    ends, others = Ends(bytes_max=1_000_000), Ends(bytes_max=1_000_000)
    for number in range(10):
        ends.add(key(number), number * LATER_MS)
    now_ms, shift_ms = 3 * LATER_MS, 10**7
    pieces = list(ends.told(now_ms, batch=4))
    assert max(len(piece) for piece in pieces) == 4 * MARK.size
    assert [others.take(piece, now_ms + shift_ms) for piece in pieces] == [True, True]
    assert [others.take(piece, now_ms + shift_ms) for piece in pieces] == [False, False], "known by now"
    assert len(others) == 7
    for number in range(10):
        until_ms = others.until_ms(key(number))
        assert until_ms == (None if number < 3 else (ends.until_ms(key(number)) or 0) + shift_ms)


@pytest.mark.parametrize("until_ms", [0, 1, 999, 1_000, 10**9 + 1, 2 * 10**12])
def test_an_end_is_remembered_to_the_second(until_ms: int) -> None:
    """However late the time is, it is kept to the next second and no longer."""
    ends = Ends(bytes_max=1_000_000)
    ends.add(key(1), until_ms)
    remembered_ms = ends.until_ms(key(1))
    assert remembered_ms is not None and until_ms + MARGIN_MS < remembered_ms <= until_ms + MARGIN_MS + 1000
    sweep_all(ends, remembered_ms - 1)
    assert key(1) in ends
    sweep_all(ends, remembered_ms)
    assert key(1) not in ends


@given(
    st.lists(st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 10**7)), max_size=40),
    st.integers(1, 7),
    st.integers(0, 10**6),
)
def test_what_one_tells_another_one_takes(entries: list[tuple[bytes, int]], batch: int, ahead_ms: int) -> None:
    """Whatever still matters, in pieces of a bounded size, and for as long on the other one's clock."""
    now_ms = 5_000_000
    ends, other = Ends(bytes_max=1_000_000), Ends(bytes_max=1_000_000)
    for each, until_ms in entries:
        ends.add(each, until_ms)
    told = list(ends.told(now_ms, batch=batch))
    assert all(len(piece) == MARK.size * batch for piece in told[:-1])
    assert all(0 < len(piece) <= MARK.size * batch for piece in told)
    assert all(other.take(piece, now_ms + ahead_ms) for piece in told)
    left = {each: (ends.until_ms(each) or 0) for each, _ in entries if (ends.until_ms(each) or 0) > now_ms}
    assert len(other) == len(left) and all(each in other for each in left)
    for each, until_ms in left.items():
        taken_ms = other.until_ms(each)
        assert taken_ms is not None and abs(taken_ms - until_ms - ahead_ms) <= 1_000


def test_an_end_whose_second_has_come_is_not_told() -> None:
    """It matters no more; what is told of a time beyond all times is the last that can be kept."""
    ends, key_ = Ends(bytes_max=1_000_000), key(1)
    ends.add(key_, 10**9)
    until_ms = ends.until_ms(key_) or 0
    assert list(ends.told(until_ms, batch=10)) == []
    (piece,) = ends.told(until_ms - 1, batch=10)
    assert MARK.unpack(piece)[2] == 2
    late = Ends(bytes_max=1_000_000)
    late.take(MARK.pack(key_[0], MARK.unpack(piece)[1], 2**32 - 1), 10**12)
    assert late.until_ms(key_) == (2**31 - 1) * 1_000


@pytest.mark.parametrize("held", [0, 1, 40, 3_000])
@pytest.mark.parametrize("count", [1, 2, 40, 3_000])
@pytest.mark.parametrize("is_sorted", [False, True])
def test_however_many_are_taken_at_once_they_are_entered_alike(held: int, count: int, *, is_sorted: bool) -> None:
    """One by one, behind the others or among them: each once, in order, for the longer of two times."""
    one, other, rng = Ends(bytes_max=10**8), Ends(bytes_max=10**8), Random(held + count)
    marks = list({rng.getrandbits(64): None for _ in range(held + count)})
    for mark in marks[:held]:
        for ends in (one, other):
            ends.take(MARK.pack(7, mark, 500), 0)
    entries = [(mark, rng.choice((100, 900))) for mark in marks[held // 2 : held + count]]
    rng.shuffle(entries)
    if is_sorted:
        entries.sort()
    assert one.take(b"".join(MARK.pack(7, mark, left_s) for mark, left_s in entries), 0)
    for mark, left_s in entries:
        other.take(MARK.pack(7, mark, left_s), 0)
    assert (list(one._marks[7]), list(one._until[7])) == (sorted(marks), list(other._until[7]))
    assert len(one) == len(other) == held + count
    assert not one.take(b"".join(MARK.pack(7, mark, 900) for mark, _ in entries), 0)
    assert set(one._until[7]) <= {500, 900}


def test_a_list_that_is_too_long_leaves_those_that_matter_longest() -> None:
    """A shard holds no more than it may, however many come at once."""
    ends = Ends(bytes_max=0)
    assert ends.take(b"".join(MARK.pack(0, mark, mark + 1) for mark in range(10 * SHARD_MIN)), 0)
    assert len(ends) == len(ends._marks[0]) == SHARD_MIN
    assert ends.forgotten == 9 * SHARD_MIN
    assert list(ends._marks[0]) == list(range(9 * SHARD_MIN, 10 * SHARD_MIN))


def test_a_replacement_is_remembered_as_such() -> None:
    """Whichever server tells of it, in whatever order; another end of the same session changes nothing in that."""
    ends, late = Ends(bytes_max=1_000_000), Ends(bytes_max=1_000_000)
    for number in range(4):
        ends.add(key(number), LATER_MS * (1 + number % 2), is_replaced=number in {1, 2})
    ends.add(key(1), 3 * LATER_MS)
    ends.add(key(3), 0, is_replaced=True)
    late.add(key(2), 0)
    for piece in ends.told(1_000, batch=3):
        late.take(piece, 5_000)
    for each in (ends, late):
        assert [each.is_replaced(key(number)) for number in range(5)] == [False, True, True, True, False]
    assert late.until_ms(key(1)) == (ends.until_ms(key(1)) or 0) + 4_000
    assert ends.until_ms(key(3)) == 2 * LATER_MS + MARGIN_MS + 1_000
    sweep_all(ends, LATER_MS + MARGIN_MS + 1_000)
    assert [ends.is_replaced(key(number)) for number in range(4)] == [False, True, False, True]
    assert not Ends(bytes_max=1).is_replaced(key(1))
