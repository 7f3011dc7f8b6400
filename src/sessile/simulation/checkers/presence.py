"""What is there is found: no answer of "no such session", of stale data or of 503 while a copy could have been had.

Said only of processes that are calm: between them nothing keeps one from asking the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessile.record import LIVE
from sessile.simulation.checkers.losses import may_have_expired
from sessile.simulation.checkers.scene import Checker, is_calm, record_of

if TYPE_CHECKING:
    from sessile.record import Heads
    from sessile.simulation.history import Chronicle
    from sessile.simulation.process import Process
    from sessile.simulation.serving import Request

__all__ = ["Presence"]


class Presence(Checker):
    """Looks for the copy that a request did not find."""

    name = "presence"

    def opened(self, request: Request) -> None:
        chronicle = self._living(request)
        if chronicle is None or not (request.record is None or request.is_stale):
            return
        holder = self._holder(request, chronicle, request.presented)
        if holder is not None:
            what = "nothing" if request.record is None else f"stale {request.record.version}"
            self.find(f"{request} with {request.presented} finds {what} of {chronicle}, and {holder} holds it")

    def responded(self, request: Request, status: int, cookies: list[bytes]) -> None:
        del cookies
        if status == 503 and self.scene.is_all_well():
            holder = None
            chronicle = self._living(request)
            if request.record is None and chronicle is not None:
                holder = self._holder(request, chronicle, request.presented)
            is_degraded = request.is_degraded and not self.scene.options.rooms
            if holder is not None or is_degraded:
                self.find(f"{request} is answered with 503 while all is well; {holder} holds the session")
        if status == 409 and request.key is not None:
            chronicle = self.scene.history.chronicles.get(request.key)
            if chronicle is not None and not chronicle.ends and not may_have_expired(self.scene, chronicle):
                self.find(f"{request} is answered with 409, and nobody ended or rotated {chronicle}")
        if status == 500:
            self.find(f"{request} is answered with 500")

    def _living(self, request: Request) -> Chronicle | None:
        """The session that a request names, if nobody ended it, it has time left, and crashes have not taken it.

        What others kept for their own questions may bring it back even then, but not when it was last used.
        """
        chronicle = None if request.key is None else self.scene.history.chronicles.get(request.key)
        if chronicle is None or chronicle.ends or may_have_expired(self.scene, chronicle):
            return None
        return None if all(write.is_lost for write in chronicle.writes.values()) else chronicle

    def _holder(self, request: Request, chronicle: Chronicle, heads: Heads) -> Process | None:
        """Somebody with a copy that covers these heads, whom the request's process could have asked."""
        assert request.process is not None, "a request is served by somebody"
        if not is_calm(self.scene, request.process):
            return None
        for process in self.scene.living():
            record = record_of(process, chronicle.key)
            if record is not None and record.state == LIVE and record.covers(heads) and is_calm(self.scene, process):
                return process
        return None
