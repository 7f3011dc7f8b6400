"""The thread that lets expired sessions leave memory without anybody asking.

One daemon thread for an engine, started when the first record is stored and never by building anything. It does bounded
work at a time and holds no engine alive: when the engine is gone, or the process has forked, it is gone too.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Protocol

from sessile.forks import dropped_by

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Sweeper"]

INTERVAL_S = 1.0


class _Sweepable(Protocol):
    def sweep(self) -> bool:
        """Do a bounded part of the work; returns whether there is more to do at once."""


@dropped_by("Engine", "it starts another one when there is something to sweep")
class Sweeper:
    """Calls `sweep` of what it is given, every second and again at once while there is more to do."""

    def __init__(self, target: _Sweepable, *, interval_s: float = INTERVAL_S) -> None:
        self._stop = threading.Event()
        find = weakref.ref(target, lambda _: self._stop.set())
        arguments = (find, self._stop, interval_s)
        self._thread = threading.Thread(target=_run, args=arguments, name="sessile-sweeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stop.set()
        self._thread.join()


def _run(find: Callable[[], _Sweepable | None], stop: threading.Event, interval_s: float) -> None:
    is_more = False
    while not stop.wait(0 if is_more else interval_s):
        target = find()
        if target is None:
            return
        is_more = target.sweep()
        del target
