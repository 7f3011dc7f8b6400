"""Sessions that were used and not changed: the other holders put back their idle clocks as well.

A use is told at once: a crash of this node in between would take it, and the other holders would go on counting a rest that
is over. Where many sessions are used, what comes within a few milliseconds goes in one message. Nobody acknowledges it. What
a link loses is told again by the passes of repair, which go over all copies anyway: each tells the other holders of a copy
how long ago it was last used, if that was after the last pass that told them. Digests cannot show the difference, since every
node counts by its own clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessile.replication.messages import Touched

if TYPE_CHECKING:
    from sessile.replication.context import Context
    from sessile.replication.peer import Peer
    from sessile.token import SessionKey

__all__ = ["Touches"]

TOUCHES_MAX: Final = 1_000
"""Touches in one message."""
VIEW_MS: Final = 30_000
"""How long ago a member that holds a session from now on may have lacked its uses, though it has a copy."""
GATHER_MS: Final = 5
"""After a telling, uses are gathered for so long."""
NEVER_MS: Final = -(2**63)


class Touches:
    """What this node has to tell of uses, and up to when it has told whom."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._fresh: dict[SessionKey, int] = {}
        """Used since the last telling: key → when."""
        self._due_ms = NEVER_MS
        """When the next telling may be at the earliest."""
        self._told_ms: dict[str, int] = {}
        """Member → it has been told of every earlier use of the sessions that both hold."""

    def touch(self, key: SessionKey, touched_ms: int) -> None:
        """A session was used here."""
        if not self._fresh:
            self._context.alarm(max(0, self._due_ms - self._context.now_ms), self.flush)
        self._fresh[key] = touched_ms

    def flush(self) -> None:
        """Tell the holders of everything that was used since this was last done."""
        context = self._context
        fresh, self._fresh = self._fresh, {}
        self._due_ms = context.now_ms + GATHER_MS
        told: dict[str, list[tuple[SessionKey, int]]] = {}
        for key, touched_ms in fresh.items():
            for name in context.placement.others(key):
                told.setdefault(name, []).append((key, touched_ms))
        for name, items in told.items():
            peer = context.peers.get(name)
            if peer is not None:
                self.tell(peer, items)

    def tell(self, peer: Peer, items: list[tuple[SessionKey, int]]) -> None:
        """Tell one peer when these sessions were used."""
        now_ms = self._context.now_ms
        for at in range(0, len(items), TOUCHES_MAX):
            part = tuple((key, now_ms - touched_ms) for key, touched_ms in items[at : at + TOUCHES_MAX])
            self._context.send(peer, Touched(part))

    # -- what may have been lost -------------------------------------------------------------------------------------

    def since_ms(self, name: str) -> int:
        """This member may not know of uses from this time on."""
        return self._told_ms.get(name, NEVER_MS)

    def told(self, peer: Peer, upto_ms: int) -> None:
        """A pass over all copies that began then has told the peer, if the link is still the same, what it may lack.

        If the link is lost soon, what it carried last may not have arrived.
        """
        if self._context.peers.get(peer.name) is peer:
            self._told_ms[peer.name] = upto_ms - self._doubt_ms

    def view_changed(self) -> None:
        """Others hold other sessions now; who became a holder of one may not have been told lately."""
        upto_ms = self._context.now_ms - VIEW_MS
        members = {info.name for info in self._context.membership.infos()}
        self._told_ms = {name: min(told_ms, upto_ms) for name, told_ms in self._told_ms.items() if name in members}

    def begins_empty(self, name: str) -> None:
        """This member holds nothing: whatever it is sent from now on says when it was used."""
        self._told_ms[name] = self._context.now_ms

    def forget(self, name: str) -> None:
        """What this member was told does not count any more."""
        self._told_ms.pop(name, None)

    @property
    def _doubt_ms(self) -> int:
        """How long a link may have lost what is sent before it closes, and how late a use may be told."""
        return 2 * self._context.config.timings.dead_after_ms + GATHER_MS
