"""Virtual time: what is to happen, in order, and the trace of what has happened.

Two things due in the same millisecond happen in the order in which they were planned. The trace is a hash over every input
of every node and every request's outcome: two runs with one hash were the same run.
"""

from __future__ import annotations

from hashlib import blake2b
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Schedule", "Trace"]


class Schedule:
    """Actions by the virtual millisecond they are due in."""

    __slots__ = ("_count", "_heap", "now_ms")

    def __init__(self) -> None:
        self.now_ms = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, due_ms: int, action: Callable[[], None]) -> None:
        """Have `action` called when `due_ms` has come; at once, after what is planned already, if it has passed."""
        self._count += 1
        heappush(self._heap, (max(due_ms, self.now_ms), self._count, action))

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Have `action` called in so many milliseconds."""
        self.at(self.now_ms + delay_ms, action)

    def run_until(self, end_ms: int) -> None:
        """Let everything happen that is due up to and including `end_ms`; then it is `end_ms`."""
        heap = self._heap
        while heap and heap[0][0] <= end_ms:
            self.now_ms, _, action = heappop(heap)
            action()
        self.now_ms = max(self.now_ms, end_ms)


class Trace:
    """What happened, as a hash, and line by line for whoever wants to read it.

    Args:
        show: is given each line; without it no line is made.
    """

    __slots__ = ("_hash", "show")

    def __init__(self, show: Callable[[str], None] | None = None) -> None:
        self.show = show
        self._hash = blake2b(digest_size=8)

    def add(self, now_ms: int, who: int, what: bytes) -> None:
        """Something happened to process number `who`."""
        self._hash.update(b"%d %d %b\n" % (now_ms, who, what))

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()
