"""What the parts of a node share: its configuration, its copies, the others, and what it wants done.

The parts (`pushes`, `pulls`, `repair`, `tombstones`, `directory`) are told of events by `node.py` and act through this.
"""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from sessile.errors import WireError
from sessile.replication.events import Effect, Note, Send
from sessile.replication.replica import Replica
from sessile.replication.wire import encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from sessile.replication.config import NodeConfig
    from sessile.replication.membership import Membership
    from sessile.replication.messages import Message, Sequenced
    from sessile.replication.peer import Peer
    from sessile.replication.placement import Placement
    from sessile.table import Table
    from sessile.token import SessionKey

__all__ = ["Context"]

REMEDY: Final = "end that session; give every server the same session_bytes_max and fields_max, and the same release"


class Context:
    """The state that a node's parts have in common."""

    def __init__(
        self,
        config: NodeConfig,
        table: Table,
        membership: Membership,
        placement: Placement,
        *,
        rng: Random,
        now_ms: int,
        waiting_bytes: Callable[[int], int] = lambda _: 0,
    ) -> None:
        self.config = config
        self.counts: Counter[str] = Counter()
        self.replica = Replica(table, self.counts)
        self.membership = membership
        self.placement = placement
        self.rng = rng
        self.now_ms = now_ms
        self.waiting_bytes = waiting_bytes
        """How much of what was sent on a link has not left this process."""
        self.peers: dict[str, Peer] = {}
        """By name, in the order in which they greeted."""
        self.writer = 0
        """The tag under which this process writes; 0 before its first write."""
        self.is_leaving = False
        self.has_met_all = False
        """Whether this node has been linked to every member that it knows of and can reach."""
        self.is_settled_in = False
        """Whether it has been sent their ends as well."""
        self.handed: dict[SessionKey, bytes | None] = {}
        """What others hold already of a node that leaves: the very objects of its table."""
        self._effects: list[Effect] = []
        self._alarms: list[tuple[int, int, Callable[[], None]]] = []
        self._alarms_set = 0
        self._has_refused = False

    # -- effects -----------------------------------------------------------------------------------------------------

    def do(self, effect: Effect) -> None:
        self._effects.append(effect)

    def note(self, event: str, **about: object) -> None:
        self._effects.append(Note(event, about))

    def take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def send(self, peer: Peer, message: Message, *, is_spare: bool = False) -> int:
        """Send one message and return its size. A message that no receiver would accept is counted and not sent: 0."""
        try:
            frame = encode(message)
        except WireError as error:
            self.refuse("oversized", str(error))
            return 0
        self._effects.append(Send(peer.link, frame, is_spare))
        return len(frame)

    def refuse(self, count: str, problem: str, key: SessionKey = b"") -> None:
        """Count a refused record of one session, and log the first one; the link and other sessions are not affected."""
        self.counts[count] += 1
        if not self._has_refused:
            self._has_refused = True
            self.note("record refused", key=key.hex(), problem=problem[:200], remedy=REMEDY)

    def send_sequenced(
        self,
        peer: Peer,
        message: Sequenced,
        held: Callable[[], None],
        denied: Callable[[int], None],
        *,
        is_end: bool = False,
    ) -> bool:
        """Send a message whose receipt matters.

        Returns False if it was not sent: too much is outstanding already, so that repair is due, or no receiver would accept
        it. Ends have as much room again for themselves: they are small, and a request waits until every member has each.
        """
        if peer.outstanding_bytes > self.config.queue_bytes_max * (2 if is_end else 1):
            if not peer.is_overflowed:
                peer.is_overflowed = True
                self.counts["overflows"] += 1
            return False
        size = self.send(peer, message)
        if not size:
            return False
        peer.sequence(size, self.now_ms, held, denied)
        return True

    # -- time --------------------------------------------------------------------------------------------------------

    def alarm(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Have `action` called once so many ms have passed; it must bear that it is no longer needed."""
        self._alarms_set += 1
        heappush(self._alarms, (self.now_ms + delay_ms, self._alarms_set, action))

    def ring(self) -> None:
        """Call every action whose time has come."""
        while self._alarms and self._alarms[0][0] <= self.now_ms:
            heappop(self._alarms)[2]()

    @property
    def next_alarm_ms(self) -> int | None:
        return self._alarms[0][0] if self._alarms else None
