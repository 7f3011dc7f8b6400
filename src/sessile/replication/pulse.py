"""The lease of a node: until when it may serve its copies without asking another holder.

Theory of operation. A logout is answered when every member that may serve the session without asking has confirmed its end.
A peer cannot wait for ever for a process that does not run. So both sides count from the same beat, each on its own clock:

* A node sends a beat to every peer it is linked to, and notes the time *before* the beat leaves. For `lease_ms` from then it
  may serve its copies without asking.
* A peer receives the beat later, never earlier. For `suspect_after_ms` from then it answers no logout that the node has not
  confirmed. If the link closes meanwhile, this time counts from the moment at which it closed.

`lease_ms` is shorter than `suspect_after_ms`, by a margin for rounding and for clocks that run at different rates. So the
lease is over before any peer answers a logout without the node, whatever happens to either process. A process that was
stopped, or whose event loop got no turn, finds its lease over when it continues. This needs no message and no event loop: any
thread compares two numbers.

A node whose lease ran out *was away*. Before its lease begins anew, every member that it can reach sends it the sessions that
ended (`tombstones.py`). A beat cannot hide the absence: `Node.handle` checks the lease before anything else.

Two cases are not covered. In a partition both sides run, send beats, and receive none; each side goes on with its copies,
and an end takes effect on the other side when the partition heals. A virtual machine whose clock stands still while it is
stopped does not notice the absence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sessile.replication.member import Timings

__all__ = ["Pulse"]


class Pulse:
    """The lease of one node. Any thread may read `sure_until_ms` and `ends_ms`; only the thread that runs the node writes."""

    __slots__ = ("_is_trusted", "_lease_ms", "beaten_ms", "ends_ms", "sure_until_ms")

    def __init__(self, timings: Timings, now_ms: int) -> None:
        self._lease_ms = timings.lease_ms
        self._is_trusted = True
        self.beaten_ms = now_ms
        """When this node sent its last beat."""
        self.ends_ms = now_ms + self._lease_ms
        """When the lease ends: from then on peers may have answered logouts without this node."""
        self.sure_until_ms = self.ends_ms
        """Copies may be served without asking before this time; 0 while this node may have missed ends."""

    @property
    def is_trusted(self) -> bool:
        """Whether this node has been sent every end that it may have missed."""
        return self._is_trusted

    def beat(self, now_ms: int) -> None:
        """Renew the lease: a beat to every peer is about to leave."""
        self.beaten_ms = now_ms
        self.ends_ms = now_ms + self._lease_ms
        if self._is_trusted:
            self.sure_until_ms = self.ends_ms

    def distrust(self) -> None:
        """End the lease: this node was away, or has left."""
        self._is_trusted = False
        self.sure_until_ms = 0

    def trust(self) -> None:
        """Begin the lease anew: this node has been sent the sessions that ended."""
        self._is_trusted = True
        self.sure_until_ms = self.ends_ms
