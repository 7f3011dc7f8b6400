"""The sweeping thread: it starts with its object, works on while there is more, and ends with its target."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import Final

import pytest

from sessile.record import Record
from sessile.sweeper import INTERVAL_S, Sweeper, _run
from tests.fakes import FakeClock, make_pair

PATIENCE_S: Final = 20.0
"""How long to wait for what is about to happen at once; no test takes so long unless it fails."""
NEVER_S: Final = 3_600.0
"""An interval that does not pass during a test."""


class Target:
    """Has so many portions of work; tells when the next sweep came."""

    def __init__(self, portions: int = 0) -> None:
        self.left = portions
        self.sweeps = 0
        self.is_done = threading.Event()
        self.threads: set[threading.Thread] = set()

    def sweep(self) -> bool:
        self.sweeps += 1
        self.threads.add(threading.current_thread())
        self.left -= 1
        if self.left <= 0:
            self.is_done.set()
        return self.left > 0


@pytest.fixture
def threads_before() -> set[threading.Thread]:
    return set(threading.enumerate())


def started(before: set[threading.Thread]) -> threading.Thread:
    """The one thread that was not there before."""
    (thread,) = set(threading.enumerate()) - before
    return thread


def test_it_sweeps_again_and_again(threads_before: set[threading.Thread]) -> None:
    """Every interval, in one daemon thread with a name that tells what it is."""
    target = Target(portions=5)
    target.sweep = lambda: Target.sweep(target) and False  # type: ignore[method-assign]  # never more at once
    sweeper = Sweeper(target, interval_s=0.001)
    try:
        assert target.is_done.wait(PATIENCE_S), "five intervals have passed"
        assert target.threads == {started(threads_before)}
        assert started(threads_before).daemon and started(threads_before).name == "sessile-sweeper"
    finally:
        sweeper.stop()


def test_it_waits_before_its_first_sweep(threads_before: set[threading.Thread]) -> None:
    """What was just stored is not due; until an interval has passed nothing is looked at."""
    target = Target()
    sweeper = Sweeper(target, interval_s=NEVER_S)
    assert started(threads_before).is_alive()
    sweeper.stop()
    assert target.sweeps == 0
    assert INTERVAL_S == 1.0


def test_it_works_on_while_there_is_more() -> None:
    """A sweep that says there is more is followed by another at once, and the last one by a wait of an interval."""
    waits: list[float | None] = []

    class Passing(threading.Event):
        """Every wait is over at once; the one after the last sweep is told to stop."""

        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return target.is_done.is_set()

    target = Target(portions=4)
    _run(lambda: target, Passing(), NEVER_S)
    assert waits == [NEVER_S, 0, 0, 0, NEVER_S]
    assert target.sweeps == 4


def test_it_ends_when_its_target_is_gone() -> None:
    """Found gone after a wait, there is nothing to sweep and nothing to wait for."""
    _run(lambda: None, threading.Event(), 0)


def test_stopping_waits_for_its_end(threads_before: set[threading.Thread]) -> None:
    """After `stop` the thread is gone and sweeps no more; a second `stop` does no harm."""
    target = Target(portions=3)
    sweeper = Sweeper(target, interval_s=0.001)
    assert target.is_done.wait(PATIENCE_S)
    sweeper.stop()
    sweeps = target.sweeps
    assert set(threading.enumerate()) <= threads_before
    sweeper.stop()
    assert target.sweeps == sweeps


def test_stopping_does_not_wait_for_work_left(threads_before: set[threading.Thread]) -> None:
    """Among endless work it stops after the portion it is at."""
    target = Target(portions=10**9)
    sweeper = Sweeper(target, interval_s=0)
    sweeper.stop()
    assert set(threading.enumerate()) <= threads_before
    assert target.left > 0


def test_it_dies_with_its_target(threads_before: set[threading.Thread]) -> None:
    """It holds nobody alive: when the target is gone the thread goes at once, however long its interval is."""
    target = Target()
    find = weakref.ref(target)
    sweeper = Sweeper(target, interval_s=NEVER_S)
    thread = started(threads_before)
    del target
    gc.collect()
    assert find() is None, "the sweeper does not keep its target"
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    sweeper.stop()


def test_it_dies_with_a_target_that_is_being_swept(threads_before: set[threading.Thread]) -> None:
    """A target that goes while its own sweep runs is let go of afterwards, between two sweeps."""
    entered, leave = threading.Event(), threading.Event()

    class Slow:
        def sweep(self) -> bool:
            entered.set()
            assert leave.wait(PATIENCE_S)
            return True

    target = Slow()
    find = weakref.ref(target)
    sweeper = Sweeper(target, interval_s=0)
    thread = started(threads_before)
    assert entered.wait(PATIENCE_S)
    del target
    leave.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive() and find() is None
    sweeper.stop()


def test_what_peers_bring_is_swept_as_well(threads_before: set[threading.Thread]) -> None:
    """A server that answers no request, such as one in reserve, may not hold what has expired for ever."""
    clock = FakeClock()
    _, engine = make_pair(clock=clock, idle_timeout=60)
    now_ms = clock()
    record = Record.create(now_ms=now_ms, idle_ms=60_000, deadline_ms=now_ms + 3_600_000)
    with engine.lock:
        engine.table.put(b"k" * 16, record)
    assert started(threads_before).name == "sessile-sweeper"
    clock.advance(120)
    deadline = time.monotonic() + PATIENCE_S
    while len(engine.table) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not len(engine.table)
    engine.close()
