"""The queue of sessions whose changes the store may lack, in the order in which they will be sent.

An end is queued until its session's deadline, however long the store is away; it is never dropped to save room. The number of
queued live sessions is bounded. Only keys are kept here: when a session is sent, its record comes from the table.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessile.token import SessionKey

__all__ = ["LOST_MAX", "Lost"]

LOST_MAX: Final = 200_000
"""At most this many live sessions are queued. Beyond it the oldest is dropped, and counted in `given_up`."""


class Lost:
    """The keys of the queued sessions.

    Args:
        has_ended: whether the end of a session is still remembered; called now and then for the queued ends.
    """

    def __init__(self, has_ended: Callable[[SessionKey], bool]) -> None:
        self.given_up = 0
        """How many live sessions were dropped from the full queue."""
        self._has_ended = has_ended
        self._live: OrderedDict[SessionKey, None] = OrderedDict()
        self._ends: dict[SessionKey, None] = {}
        self._thin_out_at = LOST_MAX
        """With more ends than this, forgotten ones are dropped. It is then set to at least twice the number left."""

    def __len__(self) -> int:
        return len(self._live) + len(self._ends)

    def __contains__(self, key: object) -> bool:
        return key in self._live or key in self._ends

    def __iter__(self) -> Iterator[SessionKey]:
        """Ends first, before live sessions that may contradict them."""
        return iter([*self._ends, *self._live])

    @property
    def ends(self) -> int:
        """How many ended sessions are queued."""
        return len(self._ends)

    def add(self, key: SessionKey, *, is_end: bool) -> None:
        """Queue this session."""
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
        """Remove this session: the store has all its changes, or its record is no longer held."""
        self._live.pop(key, None)
        self._ends.pop(key, None)
