"""Touches: uses of a session that change nothing but reset its idle timeout at the other holders.

A use is sent at once: if this node crashed first, the other holders would not know that the session was used. Uses of many
sessions within `GATHER_MS` go in one message. They are not acknowledged. A pass of repair visits every copy anyway, and sends
again what a link may have lost: it tells each other holder how long ago the session was last used, if that was after the last
pass that reached this holder. Digests do not show the difference, since each node's times are on its own clock. Recent uses of
sessions that this node does not hold are remembered, and sent again over each new link to a holder.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from sessile.replication.messages import Touched

if TYPE_CHECKING:
    from sessile.replication.context import Context
    from sessile.replication.peer import Peer
    from sessile.token import SessionKey

__all__ = ["Touches"]

TOUCHES_MAX: Final = 1_000
"""At most this many uses in one message."""
VIEW_MS: Final = 30_000
"""When the placement changes, a new holder that has a copy may have missed the uses of the time before, this long."""
UNHELD_MAX: Final = 10_000
"""The most sessions not held here whose last use is remembered."""
GATHER_MS: Final = 5
"""After a message, uses are gathered for this long."""
NEVER_MS: Final = -(2**63)


class Touches:
    """The uses that this node has to send, and up to which time each member has been sent them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._fresh: dict[SessionKey, int] = {}
        """Used since the last flush: key → when."""
        self._unheld: OrderedDict[SessionKey, int] = OrderedDict()
        """The last uses, within `VIEW_MS`, of sessions that this node does not hold: key → when."""
        self._due_ms = NEVER_MS
        """The earliest time of the next flush."""
        self._told_ms: dict[str, int] = {}
        """Member → the time up to which it has been sent every use of the sessions that both hold."""

    def touch(self, key: SessionKey, touched_ms: int) -> None:
        """Note a use of a session here."""
        if not self._fresh:
            self._context.alarm(max(0, self._due_ms - self._context.now_ms), self.flush)
        self._fresh[key] = touched_ms

    def flush(self) -> None:
        """Send the other holders every use since the last flush."""
        context = self._context
        fresh, self._fresh = self._fresh, {}
        self._due_ms = context.now_ms + GATHER_MS
        told: dict[str, list[tuple[SessionKey, int]]] = {}
        for key, touched_ms in fresh.items():
            if context.replica.table.get(key) is None:
                self._remember(key, touched_ms)
            for name in context.placement.others(key):
                told.setdefault(name, []).append((key, touched_ms))
        for name, items in told.items():
            peer = context.peers.get(name)
            if peer is not None:
                self.tell(peer, items)

    def _remember(self, key: SessionKey, touched_ms: int) -> None:
        """Note the use of a session that is not held here; forget old ones."""
        unheld = self._unheld
        unheld[key] = touched_ms
        unheld.move_to_end(key)
        long_ago_ms = self._context.now_ms - VIEW_MS
        while unheld and (len(unheld) > UNHELD_MAX or next(iter(unheld.values())) < long_ago_ms):
            unheld.popitem(last=False)

    def linked(self, peer: Peer) -> None:
        """Send a peer over a new link the uses that the one before may have lost, and that no pass of repair will send."""
        others, long_ago_ms = self._context.placement.others, self._context.now_ms - VIEW_MS
        self.tell(
            peer, [each for each in self._unheld.items() if each[1] >= long_ago_ms and peer.name in others(each[0])]
        )

    def tell(self, peer: Peer, items: list[tuple[SessionKey, int]]) -> None:
        """Send one peer when these sessions were used."""
        now_ms = self._context.now_ms
        for at in range(0, len(items), TOUCHES_MAX):
            part = tuple((key, now_ms - touched_ms) for key, touched_ms in items[at : at + TOUCHES_MAX])
            self._context.send(peer, Touched(part))

    # -- what may have been lost -------------------------------------------------------------------------------------

    def since_ms(self, name: str) -> int:
        """The time since which this member may have missed uses."""
        return self._told_ms.get(name, NEVER_MS)

    def told(self, peer: Peer, upto_ms: int) -> None:
        """Note that a pass of repair has sent the peer every use before `upto_ms`, unless the link has changed since.

        The newest uses do not count: if the link is lost soon, they may not have arrived.
        """
        if self._context.peers.get(peer.name) is peer:
            self._told_ms[peer.name] = upto_ms - self._doubt_ms

    def view_changed(self) -> None:
        """The placement changed: a new holder of a session may not have been sent its latest uses."""
        upto_ms = self._context.now_ms - VIEW_MS
        members = {info.name for info in self._context.membership.infos()}
        self._told_ms = {name: min(told_ms, upto_ms) for name, told_ms in self._told_ms.items() if name in members}

    def begins_empty(self, name: str) -> None:
        """This member holds no record: every record that it is sent from now on has its time of use."""
        self._told_ms[name] = self._context.now_ms

    def forget(self, name: str) -> None:
        """This member restarted: what it was sent before does not count any more."""
        self._told_ms.pop(name, None)

    @property
    def _doubt_ms(self) -> int:
        """The longest time from a use until it is sent, and from then until a lost link closes."""
        return 2 * self._context.config.timings.dead_after_ms + GATHER_MS
