"""The sessions whose changes the store may lack, in the order in which they are to be sent to it.

An end waits as long as it matters, however long the store is away; it is never dropped for want of room. The number of live
sessions that wait is bounded. Only keys are kept here; when a session's turn comes, the table has the record to send.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessile.token import SessionKey

__all__ = ["LOST_MAX", "Lost"]

LOST_MAX: Final = 200_000
"""The most live sessions that wait for a store that is away. Beyond it the oldest is dropped, and counted in `given_up`."""


class Lost:
    """The sessions that wait.

    Args:
        has_ended: whether the end of a session still matters; called now and then for the ends that wait.
    """

    def __init__(self, has_ended: Callable[[SessionKey], bool]) -> None:
        self.given_up = 0
        """How many live sessions were dropped for want of room."""
        self._has_ended = has_ended
        self._live: OrderedDict[SessionKey, None] = OrderedDict()
        self._ends: dict[SessionKey, None] = {}
        self._thin_out_at = LOST_MAX
        """With more ends than this, those that no longer matter are dropped; then it is at least twice what is left."""

    def __len__(self) -> int:
        return len(self._live) + len(self._ends)

    def __contains__(self, key: object) -> bool:
        return key in self._live or key in self._ends

    def __iter__(self) -> Iterator[SessionKey]:
        """Ends first, before live sessions that may contradict them."""
        return iter([*self._ends, *self._live])

    @property
    def ends(self) -> int:
        """How many ended sessions wait."""
        return len(self._ends)

    def add(self, key: SessionKey, *, is_end: bool) -> None:
        """Let this session wait."""
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
        """The store has everything of this session, or the table has nothing of it any more."""
        self._live.pop(key, None)
        self._ends.pop(key, None)
