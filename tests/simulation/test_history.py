"""The model: what a session holds after given writes, by the rules a reader of the documentation would give."""

from __future__ import annotations

import pytest

from sessile.record import ENDED, Record, Stamp
from sessile.simulation.history import GONE, LIST, SET, Chronicle, End, Write, is_within, joined


def chronicle(*writes: Write) -> Chronicle:
    made = Chronicle(b"k" * 16, "", 0)
    made.writes = {write.stamp: write for write in writes}
    return made


ONE = Write(Stamp(1, 7), {7: 1}, {"a": 1}, {}, 0)
TWO = Write(Stamp(2, 8), {7: 1, 8: 2}, {"a": 2, "b": 1}, {"n": (Stamp(2, 8), 3)}, 0)
PARALLEL = Write(Stamp(2, 7), {7: 2}, {"a": GONE}, {"n": (Stamp(2, 7), 4)}, 0)


def test_the_last_assignment_counts_and_every_increment() -> None:
    """Of parallel ones the higher stamp; what a remover had not seen stays; a version that covers less shows less."""
    made = chronicle(ONE, TWO, PARALLEL)
    assert made.state({7: 1}) == {"a": 1}
    assert made.state({7: 1, 8: 2}) == {"a": 2, "b": 1, "n": 3}
    assert made.state({7: 2}) == {"n": 4}
    assert made.state({7: 2, 8: 2}) == {"a": 2, "b": 1, "n": 7}


def test_an_increment_counts_only_on_what_it_was_added_to() -> None:
    """An assignment after it starts anew, and so does a parallel one."""
    later = Write(Stamp(3, 7), {7: 3}, {"n": 100}, {}, 0)
    on_it = Write(Stamp(4, 7), {7: 4}, {}, {"n": (Stamp(3, 7), 1)}, 0)
    made = chronicle(PARALLEL, later, on_it, TWO)
    assert made.state({7: 4})["n"] == made.state({7: 4, 8: 2})["n"] == 101
    assert made.counted_from({7: 4, 8: 2}, "n", Stamp(9, 9)) == Stamp(3, 7)
    assert made.counted_from({7: 2}, "n", Stamp(9, 9)) == Stamp(2, 7)
    assert made.counted_from({7: 1}, "n", Stamp(9, 9)) == Stamp(9, 9)


def test_items_stay_until_a_write_that_had_received_them_removes_them() -> None:
    """Of a set and of a list; an assignment hides them, and a removal takes what it knew."""
    add = Write(
        Stamp(1, 7), {7: 1}, {"s": SET, "l": LIST}, {}, 0, items={("s", 1): True, ("s", 2): True, ("l", 3): True}
    )
    drop = Write(Stamp(2, 8), {7: 1, 8: 2}, {}, {}, 0, items={("s", 1): False})
    again = Write(Stamp(2, 7), {7: 2}, {"s": SET}, {}, 0, items={("s", 1): True})
    made = chronicle(add, drop, again)
    assert made.state({7: 1}) == {"s": (1, 2), "l": (3,)}
    assert made.state({7: 1, 8: 2})["s"] == (2,)
    assert made.state({7: 2, 8: 2})["s"] == made.state({7: 2})["s"] == (2, 1), "what is added anew comes last"
    clear = Write(Stamp(3, 8), {7: 1, 8: 3}, {"s": GONE}, {}, 0, cleared={"s": {7: 1, 8: 2}})
    assert chronicle(add, drop, again, clear).state({7: 2, 8: 3}) == {"s": (1,), "l": (3,)}
    assert made.items({7: 2, 8: 2}, {"s": {7: 1}}) == {"l": [3], "s": [1]}


def test_heads_stand_for_all_they_build_on() -> None:
    """A head that nobody wrote is an error."""
    made = chronicle(ONE, TWO)
    assert made.closure([Stamp(2, 8)]) == {7: 1, 8: 2}
    with pytest.raises(KeyError):
        made.closure([Stamp(9, 9)])
    assert joined([{1: 2}, {1: 1, 2: 5}]) == {1: 2, 2: 5}
    assert is_within({1: 1}, {1: 2}) and not is_within({1: 3}, {1: 2})


def test_who_holds_an_end_holds_every_write_before_it() -> None:
    """An ended record covers all of its session; the first end that is not lost is the session's."""
    live = Record.create(now_ms=0, idle_ms=1, deadline_ms=1)
    assert not ONE.is_in(live) and ONE.is_in(live.end(ENDED, 1)) and End.is_in(live.end(ENDED, 1))
    made = chronicle(ONE)
    made.ends = [End(ENDED, 1), End(ENDED, 2)]
    made.ends[0].is_lost = True
    assert made.end is made.ends[1]
    made.cookies = {"sid": "x", "sid_v": "y"}
    assert made.header == b"sid=x; sid_v=y"
    assert "1 writes" in repr(made) and "End at 1" in repr(made) and "1@7" in repr(ONE)
