"""Until when a node may serve its copies without asking: the lease that its own beats give it.

Theory of operation. A logout is answered when every member that may serve the session without asking has confirmed its end.
Nobody can wait for a process that does not run, so both sides count from one moment, each on its own clock:

* A node beats to every peer it is linked to, and notes the time *before* the beat leaves. For `lease_ms` from then it may
  serve what it holds without asking.
* A peer hears the beat later than that, never earlier. For `suspect_after_ms` from then it answers no logout that the node
  has not confirmed. If the link closes meanwhile, the peer waits as long from the moment at which it closed.

`lease_ms` is shorter than `suspect_after_ms` by a margin, for clocks that run at different rates and for rounding. So the
lease is over before the first logout is answered without the node, whatever happens to either process: one that stops, or
whose event loop does not get its turn, finds its lease over when it goes on. That needs no message and no event loop: any
thread compares two numbers.

A node whose lease ran out *was away*. Before its lease begins anew, every member that it can reach tells it what ended
(`tombstones.py`). Its beats cannot hide the absence: `Node.handle` looks at the lease before it does anything else, a beat
included.

What the lease does not cover is a network that is cut: both sides run, beat, and hear nothing. Then each side goes on with
what it holds, and an end takes effect on the other side when the cut heals. Nor does it cover a virtual machine whose
clock stands still while it is stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sessile.replication.member import Timings

__all__ = ["Pulse"]


class Pulse:
    """The lease of one node. Other threads read `sure_until_ms`; whoever runs the node writes."""

    __slots__ = ("_is_trusted", "_lease_ms", "beaten_ms", "ends_ms", "sure_until_ms")

    def __init__(self, timings: Timings, now_ms: int) -> None:
        self._lease_ms = timings.lease_ms
        self._is_trusted = True
        self.beaten_ms = now_ms
        """When this node last beat."""
        self.ends_ms = now_ms + self._lease_ms
        """From this time on others may have answered logouts without this node."""
        self.sure_until_ms = self.ends_ms
        """Before this time copies may be served without asking; 0 while this node may have missed ends."""

    @property
    def is_trusted(self) -> bool:
        """Whether this node knows of every end that it was away for."""
        return self._is_trusted

    def beat(self, now_ms: int) -> None:
        """A beat to every peer is about to leave."""
        self.beaten_ms = now_ms
        self.ends_ms = now_ms + self._lease_ms
        if self._is_trusted:
            self.sure_until_ms = self.ends_ms

    def distrust(self) -> None:
        """This node was away, or has left: it is certain of nothing."""
        self._is_trusted = False
        self.sure_until_ms = 0

    def trust(self) -> None:
        """It has been told what ended."""
        self._is_trusted = True
        self.sure_until_ms = self.ends_ms
