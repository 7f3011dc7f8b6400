"""Decides what it means if a session is missing from the store, although this server has a live copy.

A store keeps the end of a session until the session's own deadline. So a missing session has not ended: the store dropped it
because it had not been sent its latest use, or lost its data. The server restores it from the copy.

A store that evicts when its memory is full may have dropped the end as well. Such a store holds a *mark*, a random value that it
does not evict. If the mark is the same, the store still has its data, and a missing session has ended. If the mark has changed,
the store has lost everything, ends included, and only the servers' copies are left. If the mark itself may be evicted, or the
eviction policy is unknown, there is no mark, and a missing session counts as ended. This is the safe choice: a user may have to
log in again, but no logout is undone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sessile.stores.base import Absence

__all__ = ["Epoch"]


class Epoch:
    """The mark of the store, as this server last saw it."""

    def __init__(self) -> None:
        self.mark = b""
        """The mark of the data with which every copy here was compared; empty if the store has none, or was not asked yet."""

    def is_end(self, absence: Absence) -> bool:
        """Whether a session that is missing from the store counts as ended."""
        return absence.may_forget_ends and not self.is_other(absence.mark)

    def is_other(self, mark: bytes) -> bool:
        """Whether this mark shows that the store has lost its data."""
        return bool(mark and self.mark and mark != self.mark)
