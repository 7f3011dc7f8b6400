"""What ended is over: refused at once wherever word of it can be, and never alive again.

An end is acknowledged when every member that its process can reach has it. So from that moment on no process that was calm
since before the end was made may open the session, if the one that made it was calm as well; and one that was not may not
once everything about its trouble is over. A process that once held the tombstone may never open it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessile.record import ROTATED
from sessile.simulation.checkers.scene import SETTLED_MS, Checker, is_calm, record_of

if TYPE_CHECKING:
    from sessile.backend import Acknowledged, Pulled
    from sessile.simulation.asking import Pull, Push
    from sessile.simulation.checkers.scene import Scene
    from sessile.simulation.history import End
    from sessile.simulation.process import Process
    from sessile.simulation.serving import Request
    from sessile.token import SessionKey

__all__ = ["Ends"]


class Ends(Checker):
    """Looks at every session that opens, whether it should."""

    name = "ends"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._knew: dict[Process, set[SessionKey]] = {}
        """Who has held which tombstones; asked, never walked."""
        self._calm: set[End] = set()
        """The ends that nothing stood in the way of."""

    def answered(self, request: Request, question: Pull | Push, result: Pulled | Acknowledged) -> None:
        del result
        process = request.process
        assert process is not None, "who waits is served"
        record = record_of(process, question.key)
        if record is not None and record.state:
            self._knew.setdefault(process, set()).add(question.key)
        if request.ended is not None and request.ended[0] == question.key:
            end = request.ended[1]
            since_ms = self.scene.now_ms - end.made_ms + SETTLED_MS
            if end.acknowledged_ms == self.scene.now_ms and self.scene.calm_for_ms(process.place) >= since_ms:
                self._calm.add(end)

    def starts_over(self, process: Process) -> None:
        self._knew.pop(process, None)

    def opened(self, request: Request) -> None:
        process, key = request.process, request.key
        chronicle = None if key is None else self.scene.history.chronicles.get(key)
        if chronicle is None or key is None or process is None or request.record is None:
            return
        end = chronicle.end
        if request.is_read_only:
            if not any(each.state == ROTATED for each in chronicle.ends):
                self.find(f"{request} looks back at {chronicle}, which was not rotated")
            return
        if key in self._knew.get(process, ()):
            self.find(f"{request} opens {chronicle}, whose tombstone was held at {process}")
        if end is None or end.acknowledged_ms is None:
            return
        now_ms = self.scene.now_ms
        since_ms = now_ms - end.made_ms
        was_calm = self.scene.calm_for_ms(process.place) >= since_ms + SETTLED_MS
        if was_calm and end in self._calm and now_ms > end.acknowledged_ms:
            self.find(f"{request} opens {chronicle}, whose end was acknowledged at {end.acknowledged_ms}")
            return
        if is_calm(self.scene, process) and since_ms > SETTLED_MS:
            for other in self.scene.living():
                record = record_of(other, key)
                if record is not None and record.state and is_calm(self.scene, other):
                    self.find(f"{request} opens {chronicle}, whose tombstone is at {other}, when all is well again")
                    return
