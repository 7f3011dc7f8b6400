"""The virtual network: ordered connections between processes that carry bytes, late, or not at all.

What a process writes to a connection in one go arrives in one read, in order, each time after a delay of its own; a few
writes arrive in two pieces. While a direction is blocked what is sent that way stalls, as TCP's retransmissions would, and
dials time out. A broken connection loses what was under way, and its two ends learn of it at different times. A process that
dies lets its kernel say so; a machine that dies says nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING, Final

from sessile.replication.events import DialFailed, LinkDown, LinkUp
from sessile.replication.wire import Frames

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from sessile.simulation.process import Process
    from sessile.simulation.schedule import Schedule

__all__ = ["Network", "Side"]

DIAL_TIMEOUT_MS: Final = 300
BREAK_MS_MAX: Final = 150
"""So long after a connection broke an end may still believe in it."""
CUT_CHANCE: Final = 0.01
"""How often a write arrives in two pieces."""
Direction = tuple[int, int]
"""From the process at one place to the one at another."""


class Side:
    """One end of a connection."""

    __slots__ = ("arrival_ms", "frames", "is_broken", "is_open", "link", "other", "pending", "process", "stalled")

    other: Side

    def __init__(self, process: Process) -> None:
        self.process = process
        self.link = process.new_link(self)
        self.frames = Frames()
        self.is_open = True
        self.is_broken = False
        """What is sent from here is lost."""
        self.arrival_ms = 0
        """When the last of what was sent from here arrives over there."""
        self.pending: deque[tuple[int, list[bytes] | None]] = deque()
        """What is under way from here: when it arrives, and what; None is the end."""
        self.stalled: deque[list[bytes] | None] = deque()


class Network:
    """Connections between processes, by the places that these stand at.

    Args:
        schedule: virtual time.
        rng: chance.
        latency_ms: what a write takes at the most, unless a fault is at work.
        handshake_ms: how long after a dial has come through the two may not speak yet, at the most.
    """

    def __init__(self, schedule: Schedule, rng: Random, latency_ms: int, handshake_ms: int = 0) -> None:
        self._schedule = schedule
        self._rng = rng
        self._latency_ms = latency_ms
        self._handshake_ms = handshake_ms
        self.processes: dict[str, Process] = {}
        """Who listens, by address; a dead one is still entered if it died with its machine."""
        self.extra_ms: Counter[Direction] = Counter()
        self._blocks: Counter[Direction] = Counter()
        self._sides: dict[Side, None] = {}
        """Of each connection that somebody believes in, the side that dialled."""
        self._unaware: list[Side] = []
        """Ends of connections to machines that died."""

    # -- what processes do -------------------------------------------------------------------------------------------

    def dial(self, process: Process, address: str) -> None:
        """Connect; the outcome is an input of the process."""
        place = self._place(address)
        self._schedule.after(self._delay(process.place, place), partial(self._connect, process, address))

    def send(self, side: Side, data: list[bytes] | None) -> None:
        """Write to a connection; None ends it."""
        if side.is_broken:
            return
        if data is not None and self._rng.random() < CUT_CHANCE:
            joined = b"".join(data)
            at = self._rng.randrange(1, len(joined))
            self._send(side, [joined[:at]])
            data = [joined[at:]]
        self._send(side, data)

    def hang_up(self, side: Side) -> None:
        """Close this end, after what was sent."""
        side.is_open = False
        self.send(side, None)
        self._forget(side)

    def has_died(self, process: Process, *, is_silent: bool) -> None:
        """A process is gone; with `is_silent` its machine too, so that nobody hears of it."""
        if not is_silent:
            self.processes.pop(process.name, None)
        for side in process.sides():
            side.is_open = False
            if is_silent:
                side.is_broken = side.other.is_broken = True
                self._unaware.append(side.other)
            else:
                self.send(side, None)
            self._forget(side)

    def machine_is_back(self, name: str) -> None:
        """What was sent to a machine that had died is answered by a reset now."""
        self.processes.pop(name, None)
        told = [side for side in self._unaware if side.other.process.name == name]
        self._unaware = [side for side in self._unaware if side not in told]
        for side in told:
            self._schedule.after(self._rng.randrange(BREAK_MS_MAX), partial(self._down, side))

    # -- what faults do ----------------------------------------------------------------------------------------------

    def is_blocked(self, source: int, target: int) -> bool:
        return self._blocks[source, target] > 0

    def block(self, directions: Iterable[Direction]) -> None:
        """Let nothing pass from the first place of each pair to the second."""
        self._blocks.update(directions)

    def unblock(self, directions: Iterable[Direction]) -> None:
        """Let pass again what another fault does not hold back; what stalled goes on its way."""
        self._blocks.subtract(directions)
        for dialled in list(self._sides):
            for side in (dialled, dialled.other):
                if side.stalled and not self.is_blocked(side.process.place, side.other.process.place):
                    stalled, side.stalled = side.stalled, deque()
                    for data in stalled:  # before whatever is still under way
                        self._hand_over(side, data)

    def connections(self) -> list[Side]:
        """One side of every connection that is whole."""
        return [side for side in self._sides if not side.is_broken and side.is_open and side.other.is_open]

    def is_under_way(self) -> bool:
        """Whether something that was sent, and is not lost, has not arrived yet."""
        ends = (end for side in self._sides for end in (side, side.other))
        return any(end.pending and not end.is_broken for end in ends)

    def break_connection(self, side: Side) -> None:
        """Lose a connection and what is under way on it."""
        for end in (side, side.other):
            end.is_broken = True
            self._schedule.after(self._rng.randrange(BREAK_MS_MAX), partial(self._down, end))
        self._forget(side)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _place(self, address: str) -> int:
        target = self.processes.get(address)
        return -1 if target is None else target.place

    def _delay(self, source: int, target: int) -> int:
        return int(self._rng.random() * (self._latency_ms + 1)) + self.extra_ms[source, target]

    def _connect(self, process: Process, address: str) -> None:
        if process.is_dead:
            return
        target = self.processes.get(address)
        if target is not None:
            is_cut_off = self.is_blocked(process.place, target.place) or self.is_blocked(target.place, process.place)
            if is_cut_off or target.is_dead:
                failed = partial(process.enqueue_input, DialFailed(address))
                self._schedule.after(DIAL_TIMEOUT_MS, failed)
                return
        delay_ms = self._delay(process.place, -1 if target is None else target.place)
        if target is None:
            self._schedule.after(delay_ms, partial(process.enqueue_input, DialFailed(address, is_refused=True)))
            return
        handshake_ms = self._rng.randrange(self._handshake_ms + 1) if self._handshake_ms else 0
        ours, theirs = Side(process), Side(target)
        ours.other, theirs.other = theirs, ours
        theirs.arrival_ms = self._schedule.now_ms + handshake_ms + delay_ms
        self._sides[ours] = None
        self._schedule.after(handshake_ms + delay_ms, partial(self._up, ours, address))
        if handshake_ms:
            self._schedule.after(handshake_ms, partial(self._accepted, theirs))
        else:
            self._accepted(theirs)

    def _accepted(self, side: Side) -> None:
        """The side that was dialled hears of it, unless the connection is lost by now."""
        if side.is_open:
            side.process.enqueue_input(LinkUp(side.link))

    def _up(self, side: Side, address: str) -> None:
        """The outcome of a dial; a connection that is lost by now never was."""
        side.process.enqueue_input(LinkUp(side.link, address) if side.is_open else DialFailed(address))

    def _send(self, side: Side, data: list[bytes] | None) -> None:
        now_ms = self._schedule.now_ms
        at_ms = max(side.arrival_ms, now_ms + self._delay(side.process.place, side.other.process.place))
        pending = side.pending
        if pending and data is not None and at_ms == side.arrival_ms:
            last = pending[-1][1]
            if last is not None:
                last += data
                return
        side.arrival_ms = at_ms
        pending.append((at_ms, data))
        self._schedule.at(at_ms, partial(self._arrive, side))

    def _arrive(self, side: Side) -> None:
        _, data = side.pending.popleft()
        if side.is_broken:
            return
        if side.stalled or self._blocks[side.process.place, side.other.process.place] > 0:
            side.stalled.append(data)
        else:
            self._hand_over(side, data)

    def _hand_over(self, side: Side, data: list[bytes] | None) -> None:
        other = side.other
        if side.is_broken:
            return
        if data is None:
            self._down(other)
        elif other.is_open:
            other.process.enqueue(partial(other.process.receive, other, data))

    def _down(self, side: Side) -> None:
        """This end learns that its connection is gone."""
        self._forget(side)
        if side.is_open:
            side.is_open = False
            side.process.enqueue_input(LinkDown(side.link))

    def _forget(self, side: Side) -> None:
        """Nothing is to be done for the connection any more, unless something of it is stalled."""
        if not side.stalled and not side.other.stalled and not side.other.is_open:
            self._sides.pop(side, None)
            self._sides.pop(side.other, None)
