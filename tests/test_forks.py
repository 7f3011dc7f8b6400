from __future__ import annotations

import gc
import os
import warnings
import weakref

from sessile.forks import call_after_fork


class Told:
    def __init__(self) -> None:
        self.times = 0

    def after_fork(self) -> None:
        self.times += 1


def times_in_a_child(told: Told) -> int:
    """How often it was told there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of a fork beside threads of other tests
        pid = os.fork()
    if pid == 0:
        os._exit(told.times)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_is_told_and_its_parent_is_not() -> None:
    """Once in each child, however many there are."""
    told = Told()
    call_after_fork(told.after_fork)
    assert [times_in_a_child(told) for _ in range(2)] == [1, 1]
    assert told.times == 0


def test_a_hook_keeps_nobody_alive() -> None:
    """An object is gone when its users let go of it, and forking goes on without it."""
    gone, there = Told(), Told()
    for told in (gone, there):
        call_after_fork(told.after_fork)
    find = weakref.ref(gone)
    del gone, told
    gc.collect()
    assert find() is None
    assert times_in_a_child(there) == 1
