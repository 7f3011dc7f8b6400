"""Sessions of which a store may not have all that is known here, in the order in which they are to be brought to it.

An end is never given up for want of room: it waits for as long as it matters, however long the store is away. Of the others
a bounded number waits. Only keys are kept here; what is to be brought is what the table says of them then.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessile.token import SessionKey

__all__ = ["LOST_MAX", "Lost"]

LOST_MAX: Final = 200_000
"""The most live sessions that may wait for a store that is away; of more, the oldest are given up, and counted."""


class Lost:
    """The sessions that wait.

    Args:
        has_ended: whether the end of a session still matters; asked now and then about ends that wait.
    """

    def __init__(self, has_ended: Callable[[SessionKey], bool]) -> None:
        self.given_up = 0
        """How many live ones had to make room."""
        self._has_ended = has_ended
        self._live: OrderedDict[SessionKey, None] = OrderedDict()
        self._ends: dict[SessionKey, None] = {}
        self._thin_out_at = LOST_MAX
        """With this many ends, those that do not matter any more go: not more often than their number doubles."""

    def __len__(self) -> int:
        return len(self._live) + len(self._ends)

    def __contains__(self, key: object) -> bool:
        return key in self._live or key in self._ends

    def __iter__(self) -> Iterator[SessionKey]:
        """Ends first: what contradicts them is among the others."""
        return iter([*self._ends, *self._live])

    @property
    def ends(self) -> int:
        """How many of them have ended."""
        return len(self._ends)

    def add(self, key: SessionKey, *, is_end: bool) -> None:
        """This one waits."""
        if is_end or key in self._ends:
            self._live.pop(key, None)
            self._ends[key] = None
            if len(self._ends) > self._thin_out_at:
                self._ends = {end: None for end in self._ends if self._has_ended(end)}
                self._thin_out_at = max(LOST_MAX, 2 * len(self._ends))
            return
        self._live[key] = None
        if len(self._live) > LOST_MAX:
            self.given_up += 1
            self._live.popitem(last=False)

    def discard(self, key: SessionKey) -> None:
        """It has come to the store, or nothing is known of it any more."""
        self._live.pop(key, None)
        self._ends.pop(key, None)
