"""When faults and requests are over, the copies become alike, and then they are what the history says.

`disquiet` says what is not yet as it must be; the world asks it until it says nothing, for as long as repair may take. Every
member then sees the same members; every session is held by its holders and by nobody else, in one state; ended ones are
remembered as such by all; the directory lists what lives; nothing waits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from sessile.engine import TOUCH_FRACTION
from sessile.record import LIVE, Record
from sessile.simulation.checkers.losses import may_have_expired
from sessile.simulation.checkers.scene import Checker, knows_end, record_of
from sessile.simulation.history import is_within

if TYPE_CHECKING:
    from sessile.simulation.checkers.scene import Scene
    from sessile.simulation.history import Chronicle, Use
    from sessile.simulation.process import Process
    from sessile.simulation.serving import Request
    from sessile.token import SessionKey

__all__ = ["Quiet", "disquiet"]


TOLD_MS: Final = 300
"""Every holder has been sent a use or a write after this time."""
USE_SLACK_MS: Final = 50
"""What clocks that differ, and the time that a message takes, add to the time of a use."""
ON_ITS_WAY_MS: Final = 20
"""For this long after a use its message may not have left the server, or may be lost with the machine."""


class Quiet(Checker):
    """Once all is quiet, every server shows every session with all that was written to it."""

    name = "quiet"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.is_on = False
        """Whether it is quiet, and only the world's own requests come."""

    def is_quiet(self) -> None:
        self.is_on = True
        if "jumps" not in self.scene.options.faults:
            for chronicle in self.scene.history.chronicles.values():
                self._look_at_use(chronicle)

    def dies(self, process: Process) -> None:
        self._take_uses(process)

    def leaves(self, process: Process, *, is_clean: bool) -> None:
        self._take_uses(process, hands_over=is_clean)

    def starts_over(self, process: Process) -> None:
        self._take_uses(process)

    def _take_uses(self, process: Process, *, hands_over: bool = False) -> None:
        """Uses that nobody else knows of go with the process: they are not acknowledged.

        Those are its own, if it could not tell of them, and those that it alone knew of, if they were told by processes that
        died before, or were not told, since word of a use before them was enough: one that leaves in good order hands these over.
        """
        rest = [other for other in self.scene.living() if other is not process]
        for chronicle in self.scene.history.chronicles.values():
            lost = set()
            for use in chronicle.uses:
                if use.process is process:
                    is_lost = not self._was_told(use)
                else:
                    is_told = use.is_told and use.process in rest
                    is_lost = not hands_over and not is_told and self._knows(process, chronicle, use)
                if is_lost and not any(self._knows(other, chronicle, use) for other in rest):
                    lost.add(use)
            if lost:
                chronicle.uses = [use for use in chronicle.uses if use not in lost]

    def _was_told(self, use: Use) -> bool:
        """Whether word of a use must have reached another holder by now: only faults or too little time can prevent it."""
        scene, process = self.scene, use.process
        ago_ms = scene.now_ms - use.at_ms
        place = process.place
        if ago_ms < ON_ITS_WAY_MS or min(scene.linked_for_ms(place), scene.smooth_for_ms(place)) <= ago_ms:
            return False
        linked = process.node.peers
        names = {peer.name for peer in use.peers if linked.get(peer.name) is peer}
        return any(other.name in names and other is not process for other in scene.living())

    def _knows(self, process: Process, chronicle: Chronicle, use: Use) -> bool:
        """Whether a process counts from that use, but for what need not be told."""
        return self._unused_ms(process, chronicle) <= self._allowed_ms(use.told_ms)

    def _allowed_ms(self, used_ms: int) -> int:
        """For how long a holder may take a session for unused that was used then."""
        return self.scene.now_ms - used_ms + self.scene.options.idle // TOUCH_FRACTION + USE_SLACK_MS

    @staticmethod
    def _unused_ms(process: Process, chronicle: Chronicle) -> float:
        """For how long a session was not used as this process sees it; infinite where it holds none."""
        record = record_of(process, chronicle.key)
        return math.inf if record is None else process.clock() - record.touched_ms

    def _look_at_use(self, chronicle: Chronicle) -> None:
        """Check that every holder knows when a session was last used, but for uses that are too frequent to be sent."""
        scene = self.scene
        if chronicle.ends or may_have_expired(scene, chronicle):
            return
        uses = [use for use in chronicle.uses if self._has_arrived(use)]
        allowed_ms = self._allowed_ms(max((use.told_ms for use in uses), default=chronicle.born_ms))
        for process in scene.living():
            if process.is_paused or not process.node.placement.is_holder(chronicle.key):
                continue  # messages wait for it; or it is about to drop its copy, and asks a holder before it serves it
            found_ms = self._unused_ms(process, chronicle)
            if allowed_ms < found_ms < math.inf:
                unused_ms = scene.now_ms - chronicle.used_ms
                self.find(f"{process} holds {chronicle} as unused for {found_ms} ms; it was used {unused_ms} ms ago")
                return

    def _has_arrived(self, use: Use) -> bool:
        """Whether word of a use is not on its way any more; one that was sent during delays may take long."""
        scene = self.scene
        ago_ms = scene.now_ms - use.at_ms
        is_delayed = any(scene.linked_for_ms(process.place) <= ago_ms for process in scene.living())
        return ago_ms >= TOLD_MS and not (is_delayed and scene.is_under_way())

    def opened(self, request: Request) -> None:
        chronicle = None if request.key is None else self.scene.history.chronicles.get(request.key)
        if not self.is_on or chronicle is None or request.record is None or request.is_read_only:
            return
        if may_have_expired(self.scene, chronicle):  # what others dropped by then is not lost
            return
        if self._is_kept_by_others(chronicle):
            return
        for write in chronicle.writes.values():
            if self.scene.now_ms - write.made_ms < TOLD_MS:
                continue  # a long request goes on when all is quiet
            if not write.is_lost and not is_within(write.closure, request.record.version) and write.copies:
                self.find(f"{request} sees {request.record.version}, without {write}, when all is quiet")
                return

    def _is_kept_by_others(self, chronicle: Chronicle) -> bool:
        """Whether no holder has room for the session: those that keep it instead do not tell each other of it."""
        if not self.scene.options.rooms:
            return False
        living = self.scene.living()
        holders = [process for process in living if process.node.placement.is_holder(chronicle.key)]
        return all(record_of(process, chronicle.key) is None for process in holders)


def disquiet(scene: Scene) -> str:
    """What is not as it must be when all is quiet; empty if nothing is."""
    living = scene.living()
    names = tuple(sorted(process.name for process in living))
    for process in living:
        node = process.node
        if node.placement.names != names:
            return f"{process} takes {node.placement.names} for the members, not {names}"
        if len(node.peers) != len(names) - 1:
            return f"{process} is linked to {sorted(node.peers)} only"
        requests = [request for request in process.requests if not (request.status and request.work.is_long)]
        under_way = {name: count for name, count in node.waiting.items() if name != "pushes" or not scene.options.rooms}
        if requests or process.waiting or any(under_way.values()):
            return f"{process} has {under_way} and {len(requests)} requests under way"
        if not node.is_trusting:
            return f"{process} does not trust its copies"
    keys: dict[SessionKey, None] = {}
    for process in living:
        keys.update(dict.fromkeys(process.engine.table))
    for key in keys:
        problem = _uneven(scene, key, living)
        if problem:
            return problem
    return _wrong_lists(scene, living, keys)


def _uneven(scene: Scene, key: SessionKey, living: list[Process]) -> str:
    """How copies of one session differ from each other, or lie where they should not.

    A server may have no room for a session; then another one may keep the copy. There is always room for an end.
    Such other ones offer what they keep to the holders alone: while no holder has a copy, theirs are not made alike.
    Tombstones whose time is over are not compared either: one that is still held waits for members that are away.
    """
    held = {process.name: (process, record_of(process, key)) for process in living}
    if all(record is None or _is_past(process, record) for process, record in held.values()):
        return ""
    records = [record for _, record in held.values() if record is not None]
    is_ended = any(record.state != LIVE for record in records)
    holders = list(held) if is_ended else living[0].node.placement.holders(key)
    kept = [name for name, (_, record) in held.items() if record is not None]
    is_apart = not any(name in holders for name in kept)
    first: Record | None = None
    is_short = not is_ended and any(scene.is_small(process.place) for process, _ in held.values())
    for name, (process, record) in held.items():
        if record is None:
            if name in holders and not (scene.is_small(process.place) and not is_ended) and not knows_end(process, key):
                return f"{process} lacks its copy of {key.hex()[:8]}"
        elif name not in holders and not is_short:
            return f"{process} keeps a copy of {key.hex()[:8]}, which is for {holders}"
        elif first is None:
            first = record
        elif not is_apart and not record.same_state(first):
            return f"copies of {key.hex()[:8]} differ: {process} holds {record}, another {first}"
    return ""


def _is_past(process: Process, record: Record) -> bool:
    """Whether this is a tombstone whose time is over."""
    return record.state != LIVE and process.engine.table.is_over(record, process.clock())


def _wrong_lists(scene: Scene, living: list[Process], keys: dict[SessionKey, None]) -> str:
    """Where the directory is not true."""
    if not scene.options.directory:
        return ""
    alive = set()
    for key in keys:
        records = [record_of(process, key) for process in living]
        if any(record is not None and record.state == LIVE for record in records):
            alive.add(key)
    for process in living:
        listed = set(process.node.directory)
        if listed != alive and not (scene.options.rooms and listed <= alive):  # its first holder lists a session
            return f"{process} lists {len(listed)} sessions, and {len(alive)} live: {len(listed ^ alive)} are wrong"
    return ""
