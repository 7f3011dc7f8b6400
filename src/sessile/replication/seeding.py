"""Seeding: a newcomer that holds nothing is sent its share of the records at once, before copies are compared.

Repair finds differences, and an empty newcomer lacks everything, so comparing would only delay it. Each session is sent by its
first holder other than the newcomer, so nothing is sent twice while all nodes see the same members. If they do not, repair
finds afterwards what was missed: seeding only makes the newcomer ready sooner.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from sessile.record import LIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessile.replication.context import Context
    from sessile.replication.peer import Peer
    from sessile.token import SessionKey

__all__ = ["Seeding"]

SEED_KEYS: Final = 500
"""At most this many keys per step."""
SEED_PAUSE_MS: Final = 1
AHEAD: Final = 1_000
"""While this many records wait to be sent, no further keys are looked at."""


class Seeding:
    """Sends newcomers their share of the records.

    Args:
        context: shared by the parts of the node.
        pump: sends a peer more of its waiting records, as far as the window allows.
        over: called when everything was sent to a newcomer.
    """

    def __init__(self, context: Context, *, pump: Callable[[Peer], None], over: Callable[[], None]) -> None:
        self._context = context
        self._pump = pump
        self._over = over
        self._seeded: dict[str, Peer] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._seeded

    def __len__(self) -> int:
        return len(self._seeded)

    def begin(self, peer: Peer) -> None:
        """Begin to send records to a peer that has greeted and holds nothing."""
        table = self._context.replica.table
        if not table.sessions:
            return
        self._seeded[peer.name] = peer
        self._context.counts["seeded"] += 1
        keys = iter(table)
        self._context.alarm(SEED_PAUSE_MS, lambda: self._walk(peer, keys))

    def link_lost(self, name: str) -> None:
        """Stop sending to this peer. If it comes back, it greets again."""
        self._seeded.pop(name, None)

    def _walk(self, peer: Peer, keys: Iterator[SessionKey]) -> None:
        if self._seeded.get(peer.name) is not peer:
            return
        if len(peer.repairing) < AHEAD:
            looked = list(islice(keys, SEED_KEYS))
            state = self._context.replica.table.state
            peer.repairing.update((key, None) for key in self._mine(looked, peer.name) if state(key) == LIVE)
            self._pump(peer)
            if not looked and not peer.repairing:
                del self._seeded[peer.name]
                self._over()
                return
        self._context.alarm(SEED_PAUSE_MS, lambda: self._walk(peer, keys))

    def _mine(self, keys: list[SessionKey], name: str) -> list[SessionKey]:
        """The keys that this node sends to the newcomer `name`. Other newcomers send nothing."""
        placement, me = self._context.placement, self._context.config.name
        if placement.rest is not None:  # every member holds everything: the keys are divided among the senders
            senders = [each for each in placement.names if each not in self._seeded]
            place, among = senders.index(me), len(senders)
            return [key for key in keys if key[-1] % among == place]
        order, copies = placement.order, placement.copies
        mine = []
        for key in keys:
            holders = order(key)[:copies]
            if name in holders and next((each for each in holders if each not in self._seeded), "") == me:
                mine.append(key)
        return mine
