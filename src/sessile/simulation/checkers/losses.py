"""No write, and no end, is lost beyond what its acknowledgement promises.

What a process committed is in its own table; once a push was answered with YES it is in as many as `ack` demands, and that
is looked up at that very moment. From then on it may vanish only with the last process that holds it, and only when as many
of its holders have crashed since as it had copies for certain: one for `ack=none`, a degraded answer and a node that knew
of no other holder; two for `ack=one`; all for `ack=all`. Nothing but a crash ever excuses a loss; who was apart for longer
than ends are remembered, and starts over, has as good as crashed. (A session that ran out of time is not looked at.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessile.backend import Acknowledged, Ended
from sessile.delta import Delta
from sessile.replication.membership import Standing
from sessile.simulation.asking import Push
from sessile.simulation.checkers.scene import Checker, record_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessile.backend import Pulled
    from sessile.replication.peer import Peer
    from sessile.simulation.asking import Pull
    from sessile.simulation.checkers.scene import Scene
    from sessile.simulation.history import Chronicle, End, Write
    from sessile.simulation.process import Process
    from sessile.simulation.serving import Request

__all__ = ["Losses", "may_have_expired"]

NOTICED_MS: Final = 1_500
"""So long after a machine died everybody has noticed."""
_REACHABLE: Final = {Standing.ALIVE, Standing.LEAVING}


class Losses(Checker):
    """Counts copies at acknowledgements, crashes, hand-overs and at the end."""

    name = "losses"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._peers: dict[Request, dict[str, Peer]] = {}
        """Whom a process was linked to when it told of a change."""
        self._died_ms = -NOTICED_MS

    def asked(self, request: Request, question: Pull | Push) -> None:
        assert request.process is not None, "who asks is served"
        if isinstance(question, Push):
            node = request.process.node
            self._peers[request] = {
                name: peer for name, peer in node.peers.items() if node.membership.standing(name) in _REACHABLE
            }

    def answered(self, request: Request, question: Pull | Push, result: Pulled | Acknowledged) -> None:
        if not isinstance(question, Push):
            return
        peers = self._peers.pop(request)
        change = question.change
        is_promised = question.ack != "none" or isinstance(change, Ended)
        if change is None or result is not Acknowledged.YES or not is_promised:
            return
        chronicle = self.scene.history.chronicles[question.key]
        if isinstance(change, Ended):
            assert request.ended is not None, "the history knows of every end"
            item: Write | End = request.ended[1]
            request.ended[1].acknowledged_ms = self.scene.now_ms
        else:
            stamp = change.stamp if isinstance(change, Delta) else change.record.heads[0]
            item = chronicle.writes[stamp]
        assert request.process is not None, "who pushes is served"
        item.copies = self._promised(request.process, question, peers)
        held = len(self._holders(chronicle, item, self.scene.living()))
        if held + item.hits < item.copies and not (item.is_lost or may_have_expired(self.scene, chronicle)):
            self.find(
                f"{request}: {item} of {chronicle} is acknowledged as held by {item.copies}, and {held} hold it; "
                f"{item.hits} that did have crashed"
            )

    def dies(self, process: Process) -> None:
        self._died_ms = self.scene.now_ms
        self._goes(process, is_crash=True)

    def leaves(self, process: Process, *, is_clean: bool) -> None:
        # Who leaves trusts those that have just confirmed what it hands over; that one of them died since, it cannot know.
        was_deceived = self.scene.now_ms - self._died_ms < NOTICED_MS
        self._goes(process, is_crash=not is_clean or was_deceived)

    def starts_over(self, process: Process) -> None:
        self._goes(process, is_crash=True)

    def is_quiet(self) -> None:
        """What nobody holds must have been lost by crashes; from now on what is held has all its copies."""
        living = self.scene.living()
        for chronicle, item in self._items():
            if item.is_lost or may_have_expired(self.scene, chronicle):
                continue
            holders = len(self._holders(chronicle, item, living))
            if not holders:
                # A server that is no holder lets go of what those that crashed had confirmed.
                if item.hits < item.copies and not self._may_have_aged(chronicle):
                    self.find(f"{item} of {chronicle} has vanished, with {item.copies} copies and {item.hits} crashes")
                item.is_lost = True
            item.copies, item.hits = holders, 0

    def _promised(self, process: Process, question: Push, peers: dict[str, Peer]) -> int:
        """How many hold what was just acknowledged, this process included: of those it is linked to all the time."""
        node = process.node
        there = {other.name for other in self.scene.living()}  # one that has left may have confirmed it before
        others = [name for name, peer in node.peers.items() if peers.get(name) is peer]
        others = [name for name in others if name in there and node.membership.standing(name) in _REACHABLE]
        if isinstance(question.change, Ended):
            return 1 + len(others)
        holders = node.placement.others(question.key)
        others = [name for name in others if name in holders]
        at_once = 1 + min(1, len(others))
        if question.ack != "all":
            return at_once
        return max(at_once, len(others) + node.placement.is_holder(question.key))  # others let go of it when it is held

    def _goes(self, process: Process, *, is_crash: bool) -> None:
        others = [other for other in self.scene.living() if other is not process]
        for chronicle, item in self._items():
            if item.is_lost:
                continue
            held = len(self._holders(chronicle, item, others))
            if not is_crash:  # there may be fewer to hold it now
                item.copies = min(item.copies, max(1, held) + item.hits)
            if not self._holders(chronicle, item, [process]):
                continue
            item.hits += is_crash
            if held:
                continue
            item.is_lost = True
            is_old = may_have_expired(self.scene, chronicle) or self._may_have_aged(chronicle)
            if item.hits < item.copies and not is_old:
                how = f"the crash of {process}" if is_crash else f"{process}, which left in good order"
                self.find(f"{item} of {chronicle} went with {how}: {item.copies} copies, {item.hits} crashes")

    def _may_have_aged(self, chronicle: Chronicle) -> bool:
        """Whether copies may have run out of time where word of their session's use did not get through."""
        written_ms = max(write.made_ms for write in chronicle.writes.values())
        return self.scene.now_ms - written_ms > self.scene.options.idle * 8 // 10 and not self.scene.is_all_well()

    def _items(self) -> Iterator[tuple[Chronicle, Write | End]]:
        for chronicle in self.scene.history.chronicles.values():
            for write in chronicle.writes.values():
                yield chronicle, write
            for end in chronicle.ends:
                yield chronicle, end

    @staticmethod
    def _holders(chronicle: Chronicle, item: Write | End, among: list[Process]) -> list[Process]:
        holders = []
        for process in among:
            record = record_of(process, chronicle.key)
            if record is not None and item.is_in(record):
                holders.append(process)
        return holders


def may_have_expired(scene: Scene, chronicle: Chronicle) -> bool:
    """Whether some clock may say that the session ran out of time, or that its end need not be remembered any more."""
    if "jumps" in scene.options.faults and chronicle.ends and scene.options.is_forgetful:
        return True
    if any(scene.now_ms - end.made_ms > scene.options.tombstones * 8 // 10 for end in chronicle.ends):
        return True
    if "jumps" in scene.options.faults:
        return scene.options.idle < 100_000
    idle_ms, now_ms = scene.options.idle, scene.now_ms
    return now_ms - chronicle.used_ms > idle_ms * 8 // 10 or now_ms - chronicle.revived_ms < NOTICED_MS
