"""Checks that no server opens a session after its end was answered, except across a partition while it lasts.

An end is answered when every member that its process can reach has it. After that a server may open the session only if a fault
of the network has kept the end from it, and only until that fault is over and links are up again. Nothing else is an excuse: not
that the server was stopped, slow, late or full, that other servers came or went, that the end was long ago, or that the request
began before it. So this checker looks at the network alone:

1. A process that has known of the end never opens the session again, and takes no write to it.
2. A process whose connections have been whole since before the end was made does not open the session.
3. A process whose connections have been whole for `SETTLED_MS` does not open the session, if another such process knows the end.
4. Once all was healed and quiet after the end, no process opens the session.

An end that only crashed processes knew of is lost; nothing else loses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessile.delta import Delta
from sessile.record import ROTATED
from sessile.simulation.checkers.scene import SETTLED_MS, Checker, knows_end

if TYPE_CHECKING:
    from sessile.backend import Acknowledged, Pulled
    from sessile.record import Version
    from sessile.simulation.asking import Pull, Push
    from sessile.simulation.checkers.scene import Scene
    from sessile.simulation.history import Chronicle, End
    from sessile.simulation.process import Process
    from sessile.simulation.serving import Request
    from sessile.token import SessionKey
    from sessile.visit import Step

__all__ = ["Ends"]


class Ends(Checker):
    """Checks every session that is opened, and every write, against the rules above."""

    name = "ends"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._knew: dict[Process, set[SessionKey]] = {}
        """Process → the ends that it has known of; never iterated."""
        self._settled: set[SessionKey] = set()
        """The sessions that had ended when all was healed and quiet; never iterated."""

    # -- which processes know of an end ------------------------------------------------------------------------------

    def answered(self, request: Request, question: Pull | Push, result: Pulled | Acknowledged) -> None:
        del result
        assert request.process is not None, "a request that waits runs at a process"
        has_ended = request.ended is not None and request.ended[0] == question.key
        for process in self.scene.living() if has_ended else (request.process,):
            self._note(process, question.key)

    def is_quiet(self) -> None:
        for key, chronicle in self.scene.history.chronicles.items():
            if chronicle.end is not None:
                self._settled.add(key)
                for process in self.scene.living():
                    self._note(process, key)

    def _note(self, process: Process, key: SessionKey) -> None:
        if knows_end(process, key):
            self._knew.setdefault(process, set()).add(key)

    # -- opened and written sessions ---------------------------------------------------------------------------------

    def opened(self, request: Request) -> None:
        process, key = request.process, request.key
        chronicle = None if key is None else self.scene.history.chronicles.get(key)
        if chronicle is None or key is None or process is None or request.record is None:
            return
        if request.is_read_only:
            if not any(each.state == ROTATED for each in chronicle.ends):
                self.find(f"{request} looks back at {chronicle}, which was not rotated")
            return
        if chronicle.ends:
            self._judge(request, process, chronicle)

    def committed(self, request: Request, steps: list[Step], before: Version) -> None:
        del before
        for step in steps:
            if isinstance(step.change, Delta):
                chronicle = self.scene.history.chronicles.get(step.key)
                assert request.process is not None, "a request that commits runs at a process"
                if chronicle is not None and chronicle.ends:
                    self._judge_write(request, request.process, chronicle)

    def _judge_write(self, request: Request, process: Process, chronicle: Chronicle) -> None:
        """A request that opened a session before its end may write to it at a process that does not know the end yet."""
        if chronicle.key in self._knew.get(process, ()):
            self.find(f"{request} writes to {chronicle}, whose end was known at {process}")

    def _judge(self, request: Request, process: Process, chronicle: Chronicle) -> None:
        key = chronicle.key
        if key in self._knew.get(process, ()):
            self.find(f"{request} opens {chronicle}, whose end was known at {process}")
            return
        end = chronicle.end
        if end is None:
            return
        if key in self._settled:
            self.find(f"{request} opens {chronicle}, which had ended when all was quiet")
            return
        if end.acknowledged_ms is None or request.came_ms <= end.acknowledged_ms:
            return
        linked_ms = self.scene.linked_for_ms(process.place)
        if linked_ms >= self.scene.now_ms - end.made_ms + SETTLED_MS:
            self.find(f"{request} opens {chronicle}, whose end was acknowledged at {end.acknowledged_ms}")
        elif linked_ms >= SETTLED_MS and (knower := self._knower(process, key, end)) is not None:
            self.find(f"{request} opens {chronicle}, whose end {knower} knows of, and the two are linked")

    def _knower(self, process: Process, key: SessionKey, end: End) -> Process | None:
        """Another process that has known of the end, and could have sent it, for long enough."""
        scene = self.scene
        if scene.now_ms - end.made_ms < SETTLED_MS:
            return None
        for other in scene.living():
            is_there = scene.linked_for_ms(other.place) >= SETTLED_MS and scene.smooth_for_ms(other.place) >= SETTLED_MS
            if other is not process and is_there and knows_end(other, key):
                return other
        return None
