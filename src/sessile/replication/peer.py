"""One linked node as this one sees it: what was sent to it and not acknowledged yet, and how quick it is.

Sequenced messages are counted on both sides; what waits for acknowledgement is kept in order, with what is to be done once
it is known to be held. The queue is bounded: what does not fit is not sent, and repair catches up.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.token import SessionKey

__all__ = ["Outstanding", "Peer"]

_USUAL_MS: Final = 2.0
"""What an acknowledgement is taken to need before the first one came."""


class Outstanding(NamedTuple):
    """A sequenced message that is not acknowledged yet."""

    number: int
    size: int
    sent_ms: int
    held: Callable[[], None]
    """Called when its receiver has acknowledged it, unless it was denied."""
    denied: Callable[[int], None]
    """Called with the reason when its receiver did not take it."""


class Peer:
    """A node with which a link is up and greetings are exchanged."""

    __slots__ = (
        "acked", "is_fresh", "is_new", "is_overflowed", "link", "name", "outstanding", "outstanding_bytes", "received",
        "received_acked", "repairing", "sent", "told_ms", "usual_ms", "writer",
    )  # fmt: skip

    def __init__(self, name: str, link: int, writer: int) -> None:
        self.name = name
        self.link = link
        self.writer = writer
        """The tag in the stamps of what it writes."""
        self.is_new = True
        """This incarnation of it greets for the first time: nothing is known of it from before."""
        self.told_ms: int | None = None
        """When it was sent all of an answer to what it asked of ends over this link; None before."""
        self.is_fresh = False
        """It greeted for the first time, and holds nothing yet."""
        self.sent = self.acked = 0
        """How many sequenced messages were sent to it, and how many of them it acknowledged."""
        self.received = self.received_acked = 0
        """How many came from it, and how many of them it was told."""
        self.outstanding: deque[Outstanding] = deque()
        self.outstanding_bytes = 0
        self.is_overflowed = False
        """Something was not sent because too much is outstanding: repair is due."""
        self.usual_ms = _USUAL_MS
        """How long its acknowledgements take."""
        self.repairing: OrderedDict[SessionKey, None] = OrderedDict()
        """Keys of the records that repair still has to send to it, each once, in order."""

    def __repr__(self) -> str:
        return f"<Peer {self.name} on {self.link}, {self.outstanding_bytes} bytes outstanding>"

    def sequence(self, size: int, now_ms: int, held: Callable[[], None], denied: Callable[[int], None]) -> None:
        """Count a sequenced message that is sent now."""
        self.sent += 1
        self.outstanding.append(Outstanding(self.sent, size, now_ms, held, denied))
        self.outstanding_bytes += size

    def take_acked(self, upto: int, now_ms: int) -> list[Outstanding]:
        """What an acknowledgement settles, in order; raises ValueError for one that cannot be."""
        if not self.acked <= upto <= self.sent:
            raise ValueError(f"acknowledges message {upto} of {self.sent}")
        settled = []
        while self.outstanding and self.outstanding[0].number <= upto:
            one = self.outstanding.popleft()
            self.outstanding_bytes -= one.size
            settled.append(one)
        if settled:
            self.usual_ms += (max(now_ms - settled[-1].sent_ms, 0) - self.usual_ms) / 8
        self.acked = upto
        return settled

    def take_denied(self, number: int) -> Outstanding:
        """The message that was denied; raises ValueError if there is none."""
        for place, one in enumerate(self.outstanding):
            if one.number == number:
                del self.outstanding[place]
                self.outstanding_bytes -= one.size
                return one
        raise ValueError(f"denies message {number}, which does not wait")
