"""Anti-entropy: members compare their copies, and send each other what is lacking, in bounded pieces.

A *pass* walks over all keys, some at a time. For the records that both this node and a peer should hold, it computes a digest
of each of 256 buckets. Records that this node holds without being a holder are offered to the holders. Where digests differ,
both sides offer their records in those buckets. The receiver of an offer asks for the records that it lacks or has in another
state, and gets them whole, as many at a time as the window allows. A copy that this node need not hold is dropped once every
holder has it.

Every member that has a copy takes part, whether or not it is a holder; every member should hold every tombstone. A pass runs
after each event that may have let copies differ, and at intervals. While records stream, to a newcomer (`seeding.py`) or from
others, a pass is put off, since it would find records missing that are on their way.
"""

from __future__ import annotations

import struct
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from sessile.errors import WireError
from sessile.record import LIVE, Record
from sessile.replication.intake import NO_ROOM
from sessile.replication.messages import Differ, Digest, Offered, Wanted, Whole
from sessile.replication.replica import DIGEST_BYTES, KEY_BYTES, digest_of
from sessile.replication.seeding import Seeding
from sessile.replication.touches import NEVER_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sessile.replication.context import Context
    from sessile.replication.peer import Peer
    from sessile.replication.touches import Touches
    from sessile.token import SessionKey

__all__ = ["BUCKETS", "Repair"]

BUCKETS: Final = 256
"""A key's bucket is its first byte."""
PASS_KEYS: Final = 250
"""At most this many records per step. A step takes about a millisecond, in which nothing else runs."""
PASS_PAUSE_MS: Final = 1
WALK_PAUSE_MS: Final = 3
"""Pause between two steps, so that a pass takes at most a quarter of a processor."""
STREAM_MS: Final = 100
"""For this long after several records came in one message, more are expected."""
PUT_OFF_MS: Final = 3_000
"""A pass is put off for at most this long."""
OFFER_ENTRIES: Final = 1_000
"""A received offer may have at most this many entries."""
OFFERED_ENTRIES: Final = 250
"""At most this many entries are sent in one offer: about a millisecond's work to answer."""
BATCH_BYTES: Final = 16 * 2**10
OFFERS_MAX: Final = 4
"""At most this many offers to one peer may be unanswered; further ones wait."""
_ENTRY_BYTES: Final = KEY_BYTES + DIGEST_BYTES
_DIGEST: Final = struct.Struct(f">{BUCKETS}Q")


class _Pass:
    """One walk over all keys."""

    def __init__(
        self,
        keys: list[SessionKey],
        listing: dict[str, set[int]],
        peers: dict[Peer, int],
        *,
        began_ms: int,
        announces: bool,
    ) -> None:
        self.keys: Iterator[SessionKey] = iter(keys)
        self.began_ms = began_ms
        self.peers = peers
        """Peer → the time since which it may have missed uses."""
        self.since_ms = {peer.name: since_ms for peer, since_ms in peers.items()}
        self.touched: dict[str, list[tuple[SessionKey, int]]] = {}
        """Peer → the uses that it is sent after this step."""
        self.listing = listing
        """Peer → the buckets of which every record is offered to it."""
        self.announces = announces
        self.digests: dict[str, list[int]] = {}
        self.offers: dict[str, list[bytes]] = {}

    def count(self, name: str, key: SessionKey, digest: int, touched_ms: int = NEVER_MS) -> None:
        """Enter a record that both this node and the peer should hold; a tombstone has no `touched_ms`."""
        self.digests.setdefault(name, [0] * BUCKETS)[key[0]] ^= digest
        if touched_ms > self.since_ms.get(name, touched_ms):
            self.touched.setdefault(name, []).append((key, touched_ms))
        if key[0] in self.listing.get(name, ()):
            self.offer(name, key, digest)

    def offer(self, name: str, key: SessionKey, digest: int) -> None:
        self.offers.setdefault(name, []).append(key + digest.to_bytes(DIGEST_BYTES, "big"))


class Repair:
    """This node's part in keeping copies alike.

    Args:
        context: shared by the parts of the node.
        drop: drops a copy that this node need not hold.
        is_open: whether a change of this node to the session is still waiting for confirmations.
        confirmed: called when a peer has everything that is held here of a session.
        look: called with the key of every copy that a pass visits.
        touches: sends uses to peers; a pass sends again what a link may have lost.
    """

    def __init__(
        self,
        context: Context,
        *,
        drop: Callable[[SessionKey], None],
        is_open: Callable[[SessionKey], bool],
        confirmed: Callable[[SessionKey, str], None],
        look: Callable[[SessionKey], None],
        touches: Touches,
    ) -> None:
        self._context = context
        self._drop = drop
        self._is_open = is_open
        self._confirmed = confirmed
        self._look = look
        self._touches = touches
        self._pass: _Pass | None = None
        self._seeding = Seeding(context, pump=self.pump, over=self.start)
        self._is_due = self._announces = False
        self._due_ms = self._streamed_ms = -PUT_OFF_MS
        self._listing: dict[str, set[int]] = {}
        self._theirs: dict[str, bytes] = {}
        """The digests that peers sent and that have not been compared yet."""
        self._offers: dict[str, dict[int, bytes]] = {}
        """Peer → the entries of the offers it has not answered."""
        self._unoffered: dict[str, deque[bytes]] = {}
        """Peer → the entries not offered to it yet."""
        self._offer_numbers = 0
        self._quiet: dict[SessionKey, tuple[int, set[str], int]] = {}
        """Copies to hand over: key → digest, the members not known to have it, and how many members there were."""
        self._full: set[str] = set()
        """The peers that had no room for records that this node hands over while it leaves."""
        context.alarm(context.config.repair_every_ms, self._again)

    @property
    def is_idle(self) -> bool:
        """Whether no pass is under way or due, and nothing waits to be sent."""
        peers = self._context.peers.values()
        return (
            self._pass is None
            and not self._is_due
            and not self._seeding
            and not any(self._offers.values())
            and not any(self._unoffered.values())
            and not any(peer.repairing for peer in peers)
        )

    def _again(self) -> None:
        self.start()
        context = self._context
        every = context.config.repair_every_ms
        context.alarm(every + context.rng.randrange(every // 4 + 1), self._again)

    def start(self, *, announces: bool = True) -> None:
        """Start a pass, after the one under way if there is one. With `announces`, it sends digests to all peers."""
        self._announces = self._announces or announces
        if not self._is_due:
            self._is_due = True
            self._due_ms = self._context.now_ms
            if self._pass is None:
                self._context.alarm(PASS_PAUSE_MS, self._begin)

    def seed(self, peer: Peer) -> None:
        """Send a new peer, which holds nothing, its share of the records. Copies are compared with it afterwards."""
        self._seeding.begin(peer)

    def records_came(self, count: int) -> None:
        """A peer sent this many records in one message."""
        if count > 1:
            self._streamed_ms = self._context.now_ms

    def _begin(self) -> None:
        if self._pass is not None or not self._is_due:
            return
        now_ms = self._context.now_ms
        is_streaming = self._seeding or any(self._unoffered.values()) or now_ms < self._streamed_ms + STREAM_MS
        if is_streaming and now_ms < self._due_ms + PUT_OFF_MS:
            self._context.alarm(STREAM_MS // 2, self._begin)
            return
        context = self._context
        peers = {
            peer: self._touches.since_ms(name) for name, peer in context.peers.items() if name not in self._seeding
        }
        keys = list(context.replica.table)
        self._pass = _Pass(keys, self._listing, peers, began_ms=context.now_ms, announces=self._announces)
        self._is_due = self._announces = False
        self._listing = {}
        self._quiet = {}
        self._context.counts["repair_passes"] += 1
        self._walk()

    def _walk(self) -> None:
        going = self._pass
        assert going is not None, "the walk goes on as long as there is one"
        for _ in range(PASS_KEYS):
            key = next(going.keys, None)
            if key is None:
                self._tell_touches(going)
                self._finish(going)
                return
            self._visit(going, key)
        self._tell_touches(going)
        self._context.alarm(WALK_PAUSE_MS, self._walk)

    def _tell_touches(self, going: _Pass) -> None:
        for peer in going.peers:  # nothing is sent over a link that was lost meanwhile
            self._touches.tell(peer, going.touched.pop(peer.name, []))

    def _visit(self, going: _Pass, key: SessionKey) -> None:
        context = self._context
        packed = context.replica.table.get(key)
        if packed is None:
            return
        self._look(key)
        record = Record.unpack(packed)
        if not context.is_leaving and context.replica.table.is_over(record, context.now_ms):
            return  # a peer that has dropped it already must not get it again
        digest = digest_of(key, record)
        if record.state != LIVE:
            for name in context.peers:
                going.count(name, key, digest)
            if context.is_leaving and context.handed.get(key) is not packed:  # it may be the last to know
                self._hand_over(going, key, digest, context.peers)
            return
        placement = context.placement
        if placement.rest is not None:
            for name in placement.rest:
                going.count(name, key, digest, record.touched_ms)
            return
        holders = placement.order(key)[: placement.copies]  # not `holders`: its cache is for keys in use
        if placement.me in holders:
            for name in holders:
                if name != placement.me:
                    going.count(name, key, digest, record.touched_ms)
        elif context.handed.get(key) is not packed:
            self._hand_over(going, key, digest, holders)

    def _hand_over(self, going: _Pass, key: SessionKey, digest: int, names: Iterable[str]) -> None:
        """Offer a copy that this node need not hold to these members, and note it until all of them have it."""
        missing = set(names)
        self._quiet[key] = (digest, missing, len(missing))
        for name in sorted(missing):
            going.offer(name, key, digest)

    def _finish(self, going: _Pass) -> None:
        context = self._context
        self._pass = None
        for peer in going.peers:
            self._touches.told(peer, going.began_ms)
        for name, peer in context.peers.items():
            mine = going.digests.get(name) or [0] * BUCKETS
            packed = _DIGEST.pack(*mine)
            theirs = self._theirs.pop(name, None)
            if name in self._seeding:
                continue
            if theirs is not None and theirs != packed:
                pairs = zip(_DIGEST.unpack(theirs), mine, strict=True)
                differ = {bucket for bucket, (their, my) in enumerate(pairs) if their != my}
                context.send(peer, Differ(bytes(sorted(differ))))
                self._listing.setdefault(name, set()).update(differ)
                self.start(announces=False)
            if going.announces:
                context.send(peer, Digest(packed))
            self._offer(peer, going.offers.get(name, []))
        if self._is_due:
            context.alarm(PASS_PAUSE_MS, self._begin)

    def _offer(self, peer: Peer, entries: list[bytes]) -> None:
        waiting = self._unoffered.setdefault(peer.name, deque())
        if len(waiting) * OFFERED_ENTRIES > len(self._context.replica.table):
            waiting.clear()  # it answers so slowly that these offers are outdated
        for at in range(0, len(entries), OFFERED_ENTRIES):
            waiting.append(b"".join(entries[at : at + OFFERED_ENTRIES]))
        self._offer_more(peer)

    def _offer_more(self, peer: Peer) -> None:
        offers = self._offers.setdefault(peer.name, {})
        waiting = self._unoffered.setdefault(peer.name, deque())
        while waiting and len(offers) < OFFERS_MAX:
            self._offer_numbers += 1
            entries = offers[self._offer_numbers] = waiting.popleft()
            self._context.send(peer, Offered(self._offer_numbers, entries))

    # -- from peers --------------------------------------------------------------------------------------------------

    def take_digest(self, peer: Peer, message: Digest) -> None:
        if len(message.buckets) != BUCKETS * DIGEST_BYTES:
            raise WireError(f"a digest has {BUCKETS * DIGEST_BYTES} bytes, not {len(message.buckets)}")
        if peer.name not in self._seeding:
            self._theirs[peer.name] = message.buckets
            self.start(announces=False)

    def take_differ(self, peer: Peer, message: Differ) -> None:
        self._listing.setdefault(peer.name, set()).update(message.buckets)
        self.start(announces=False)

    def take_offered(self, peer: Peer, message: Offered) -> None:
        """Ask for the offered records that this node lacks or has in another state."""
        entries = message.entries
        if len(entries) % _ENTRY_BYTES or len(entries) > _ENTRY_BYTES * OFFER_ENTRIES:
            raise WireError("an offer is not made of entries, or has too many")
        wanted = []
        for at in range(0, len(entries), _ENTRY_BYTES):
            key = entries[at : at + KEY_BYTES]
            held = self._context.replica.get(key)
            if held is None or digest_of(key, held) != _digest(entries, at):
                wanted.append(key)
        self._context.send(peer, Wanted(message.number, b"".join(wanted)))

    def take_wanted(self, peer: Peer, message: Wanted) -> None:
        """Send the records of an offer that the peer wants. It has the others."""
        entries = self._offers.get(peer.name, {}).pop(message.number, None)
        if entries is None or len(message.keys) % KEY_BYTES:
            raise WireError("an answer to an offer that was not made")
        wanted = {message.keys[at : at + KEY_BYTES] for at in range(0, len(message.keys), KEY_BYTES)}
        used: list[tuple[SessionKey, int]] = []
        for at in range(0, len(entries), _ENTRY_BYTES):
            key = entries[at : at + KEY_BYTES]
            if key in wanted:
                peer.repairing[key] = None
                continue
            held = self._context.replica.get(key) if key in self._quiet else None
            if held is not None and held.state == LIVE:  # its copy may have an older time of use
                used.append((key, held.touched_ms))
            self._has(peer.name, key, _digest(entries, at))
        self._touches.tell(peer, used)
        self._offer_more(peer)
        self.pump(peer)

    def pump(self, peer: Peer) -> None:
        """Send a peer more of the records in `repairing`, as far as the window allows.

        Call this whenever room in the window is freed, even by a change: changes under way fill the window as well.
        """
        context = self._context
        table = context.replica.table
        while peer.repairing and peer.outstanding_bytes < context.config.repair_window_bytes:
            items: list[tuple[bytes, bytes]] = []
            size = 0
            while peer.repairing and size < BATCH_BYTES:
                key, _ = peer.repairing.popitem(last=False)
                packed = table.get(key)
                if packed is not None:
                    items.append((key, packed))
                    size += len(packed)
            if items and not self._send(peer, items) and peer.is_overflowed:
                for key, _ in reversed(items):
                    peer.repairing[key] = None
                    peer.repairing.move_to_end(key, last=False)
                return

    def _send(self, peer: Peer, items: list[tuple[bytes, bytes]]) -> bool:
        def held() -> None:
            for key, packed in items:
                self._took(peer.name, key, packed)

        whole = Whole(self._context.now_ms, tuple(items))
        is_sent = self._context.send_sequenced(peer, whole, held, partial(self._denied, peer.name))
        if is_sent:
            self._context.counts["repaired"] += len(items)
        return is_sent

    def _denied(self, name: str, why: int) -> None:
        """A peer has no room. A leaving node does not wait for this peer, if another one holds the record."""
        if why == NO_ROOM and self._context.is_leaving:
            self._full.add(name)

    def link_lost(self, name: str) -> None:
        """Offers over a lost link are void."""
        self._seeding.link_lost(name)
        self._offers.pop(name, None)
        self._unoffered.pop(name, None)
        self._theirs.pop(name, None)
        self._listing.pop(name, None)

    # -- copies to hand over -----------------------------------------------------------------------------------------

    def _took(self, name: str, key: SessionKey, packed: bytes) -> None:
        """A peer holds the session in the state of these bytes."""
        if key not in self._quiet and packed is self._context.replica.table.get(key):  # almost always
            self._confirmed(key, name)
        else:
            self._has(name, key, digest_of(key, Record.unpack(packed)))

    def _has(self, name: str, key: SessionKey, digest: int) -> None:
        """A peer holds the session in the state that had this digest."""
        held = self._context.replica.get(key)
        if held is None or digest_of(key, held) != digest:
            if key in self._quiet:  # the holder sent back a newer state: offer that one
                self.start(announces=False)
            return
        self._confirmed(key, name)
        quiet = self._quiet.get(key)
        if quiet is None or quiet[0] != digest:
            return
        _, missing, count = quiet
        missing.discard(name)
        placement = self._context.placement
        is_spare = not placement.is_holder(key) and not self._is_open(key)
        is_handed = not missing or (missing <= self._full and len(missing) < count)
        if is_handed and is_spare and (held.state == LIVE or self._context.is_leaving):
            del self._quiet[key]
            self._drop(key)


def _digest(entries: bytes, at: int) -> int:
    return int.from_bytes(entries[at + KEY_BYTES : at + _ENTRY_BYTES], "big")
