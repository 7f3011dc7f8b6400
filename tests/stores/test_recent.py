"""What was pushed lately: for how long it is kept, and in how many bytes."""

from __future__ import annotations

from sessile.stores.recent import Recent
from sessile.table import ENTRY_BYTES

SIZE = ENTRY_BYTES + 100


def keys(*numbers: int) -> list[bytes]:
    return [bytes([number]) * 16 for number in numbers]


def noted(recent: Recent, *numbers: int, now_ms: int = 0) -> None:
    for key in keys(*numbers):
        recent.note(key, key[:1] * 100, now_ms)


def test_it_is_there_until_the_window_is_over() -> None:
    """To the millisecond, whether or not something else was pushed meanwhile."""
    recent = Recent(window_ms=1_000, bytes_max=10 * SIZE)
    noted(recent, 1)
    (key,) = keys(1)
    assert recent.get(key, 1_000) == b"\x01" * 100
    assert recent.get(key, 1_001) is None
    noted(recent, 3, now_ms=1_000)
    assert list(recent) == keys(1, 3), "a push at the last moment of the window leaves it there"
    recent = Recent(window_ms=1_000, bytes_max=10 * SIZE)
    noted(recent, 1)
    noted(recent, 2, now_ms=1_001)
    assert list(recent) == keys(2) and recent.held_bytes == SIZE
    assert recent.forgotten == 0, "its time was over"


def test_the_oldest_goes_where_there_is_no_room() -> None:
    """And is counted: after a failover nobody would bring it again."""
    recent = Recent(window_ms=1_000, bytes_max=3 * SIZE)
    noted(recent, 1, 2, 3, 1, 4)
    assert list(recent) == keys(3, 1, 4)
    assert (len(recent), recent.held_bytes, recent.forgotten) == (3, 3 * SIZE, 1)
    assert recent.get(keys(2)[0], 0) is None


def test_a_session_that_is_pushed_again_counts_once() -> None:
    """With what was pushed last."""
    recent = Recent(window_ms=1_000, bytes_max=3 * SIZE)
    (key,) = keys(1)
    for size in (10, 200, 50):
        recent.note(key, bytes(size), 0)
    assert (len(recent), recent.held_bytes, recent.get(key, 0)) == (1, ENTRY_BYTES + 50, bytes(50))


def test_what_is_larger_than_all_room_is_not_kept() -> None:
    """The bound holds whatever comes."""
    recent = Recent(window_ms=1_000, bytes_max=SIZE)
    recent.note(keys(1)[0], bytes(500), 0)
    assert (len(recent), recent.held_bytes, recent.forgotten) == (0, 0, 1)
