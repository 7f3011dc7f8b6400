"""What is there is not denied: a node says "nobody has it" of no living session that a member holds which it has heard of.

Whatever is wrong meanwhile: who cannot be reached may have it, so there is no answer then, and that is another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from sessile.backend import Pulled, PullStatus
from sessile.record import LIVE
from sessile.simulation.asking import Pull, Push
from sessile.simulation.checkers.losses import may_have_expired
from sessile.simulation.checkers.scene import Checker, record_of

if TYPE_CHECKING:
    from sessile.backend import Acknowledged
    from sessile.simulation.checkers.scene import Scene
    from sessile.simulation.process import Process
    from sessile.simulation.serving import Request
    from sessile.token import SessionKey

__all__ = ["Denials"]


class Denials(Checker):
    """Looks for the copy of which a node said that there is none."""

    name = "denials"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._holders: WeakKeyDictionary[Pull, list[Process]] = WeakKeyDictionary()
        """A question, and who held a living copy when it was asked."""
        self._remembered: WeakKeyDictionary[Pull, int] = WeakKeyDictionary()
        """How many answers of before its node had given once more when it was asked."""

    def asked(self, request: Request, question: Pull | Push) -> None:
        if isinstance(question, Pull):
            assert request.process is not None, "a request is served by somebody"
            self._holders[question] = [process for process in self.scene.living() if _holds(process, question.key)]
            self._remembered[question] = request.process.node.counts["negatives"]

    def answered(self, request: Request, question: Pull | Push, result: Pulled | Acknowledged) -> None:
        if not isinstance(question, Pull) or not isinstance(result, Pulled) or result.status is not PullStatus.NONE:
            return
        chronicle = self.scene.history.chronicles.get(question.key)
        is_over = chronicle is None or chronicle.ends or may_have_expired(self.scene, chronicle)
        if is_over or self.scene.options.is_forgetful:  # silence is certain after a while there
            return
        assert request.process is not None, "a request is served by somebody"
        if request.process.node.counts["negatives"] > self._remembered.get(question, 0):
            return  # an answer of before, which was judged then; a copy may have come from the dead since
        known = {(info.name, info.incarnation) for info in request.process.node.membership.infos()}
        for process in self._holders.get(question, ()):
            if not process.is_dead and _holds(process, question.key) and (process.name, process.incarnation) in known:
                self.find(f"{request} is told that nobody has {chronicle}, and {process} holds it")
                return


def _holds(process: Process, key: SessionKey) -> bool:
    record = record_of(process, key)
    return record is not None and record.state == LIVE
