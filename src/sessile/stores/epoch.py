"""What it means that a store has nothing of a session of which a copy is alive here.

A store keeps the end of a session until the session's own deadline. So a session that is not there did not end: the store
dropped it because it had not heard of its use, or lost its data, and is given the copy.

Unless it may have let go of the end before its time, as a server does that evicts when its memory is full. Such a store holds
a *mark*, drawn once, which it does not evict: with the same mark it still has its data, and what is not there counts as
ended; with another one it lost everything, ends too, and the copies are all that there is. Where even the mark may be
evicted, or nothing can be found out, there is no mark: what is not there has ended. That is the safe side: a user logs in
once more, and nobody's logout is undone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sessile.stores.base import Absence

__all__ = ["Epoch"]


class Epoch:
    """The mark of the store's data, as this server knows it."""

    def __init__(self) -> None:
        self.mark = b""
        """Of the data from which, or with which, every copy here was made; empty where there is none, or not yet."""

    def is_end(self, absence: Absence) -> bool:
        """Whether a session that the store has not is to be taken for one that has ended."""
        return absence.may_forget_ends and not self.is_other(absence.mark)

    def is_other(self, mark: bytes) -> bool:
        """Whether this mark says that the store lost the data that was known here."""
        return bool(mark and self.mark and mark != self.mark)
