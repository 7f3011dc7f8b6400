"""When an address is dialled, step by step."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from sessile.replication.dials import BACKOFF_MAX_MS, Dials

A, B = "a:7400", "b:7400"


def test_one_dial_at_a_time() -> None:
    """What is under way is not begun again, and does not ask to be woken, until it ended."""
    dials = Dials(Random(1))
    assert dials.start([A, B], 1_000) == (A, B)
    assert dials.start([A, B], 9_000) == () and dials.next_ms([A, B], 99) == 99
    dials.failed(B, 9_000)
    dials.succeeded(A)
    assert dials.start([A, B], 9_000) == (A,)
    assert 9_050 <= dials.next_ms([A, B], 99) <= 9_100


@given(seed=st.integers(0, 999))
def test_each_failure_puts_off_the_next_dial(seed: int) -> None:
    """100 ms, 200, 400, … 2 s, each up to a half less by chance, however often it fails."""
    dials = Dials(Random(seed))
    for failures in range(40):
        longest_ms = min(100 << failures, BACKOFF_MAX_MS)
        dials.failed(A, 0)
        assert longest_ms / 2 <= dials.next_ms([A], 99) <= longest_ms
        assert dials.start([A], dials.next_ms([A], 99) - 1) == ()


def test_chance_spreads_dials() -> None:
    """Two nodes that lose a third at once do not come back to it at once."""
    due = set()
    for seed in range(20):
        dials = Dials(Random(seed))
        dials.failed(A, 0)
        due.add(dials.next_ms([A], 99))
    assert len(due) > 10


def test_a_dial_comes_up_to_a_half_earlier() -> None:
    """Chance takes nothing, or a half."""
    for drawn, due_ms in ((0.0, 100), (0.5, 75), (1.0, 50)):
        rng = Random(1)
        rng.random = lambda drawn=drawn: drawn  # type: ignore[method-assign, misc]
        dials = Dials(rng)
        dials.failed(A, 0)
        assert dials.next_ms([A], 99) == due_ms


def test_a_lost_link_is_dialled_at_once_unless_it_was_brief() -> None:
    """A link that lived makes up for all failures; one that breaks again and again is dialled ever later."""
    dials = Dials(Random(1))
    for _ in range(5):
        dials.lost(A, 1_000, is_brief=True)
    assert dials.next_ms([A], 99) >= 1_800 and not dials.is_untried(A)
    dials.lost(A, 1_000, is_brief=False)
    assert dials.start([A], 1_000) == (A,) and dials.is_untried(A)
    dials.succeeded(A)
    dials.lost(A, 2_000, is_brief=False, patience_ms=62)
    assert dials.next_ms([A], 99) == 2_062


def test_what_the_last_dial_said() -> None:
    """Refused is what was refused the last time; untried is where nothing has failed."""
    dials = Dials(Random(1))
    assert dials.is_untried(A) and not dials.is_refused(A)
    dials.failed(A, 0, is_refused=True)
    assert not dials.is_untried(A) and dials.is_refused(A)
    dials.failed(A, 0)
    assert not dials.is_refused(A)
    dials.failed(A, 0, is_refused=True)
    dials.succeeded(A)
    assert not dials.is_refused(A)


def test_addresses_that_are_nobodys_are_forgotten() -> None:
    """But not while a dial is under way, or it would be begun a second time."""
    dials = Dials(Random(1))
    dials.failed(A, 0)
    dials.start([B], 0)
    dials.keep([])
    assert dials.is_untried(A) and dials.start([B], 0) == ()
    dials.succeeded(B)
    dials.keep([])
    assert dials._dials == {}
