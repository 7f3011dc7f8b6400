"""A node that was away asks which sessions ended meanwhile, before it serves its copies.

A process that was stopped, or whose machine slept, comes back with copies of sessions that may have ended meanwhile. Its lease
(`pulse.py`) has expired. Until every member that it can reach has sent it the ended sessions, it is sure of no live session:
its engine asks another holder, and other nodes do not rely on its answers. It does not wait for a member that sends nothing
for `PATIENCE_MS`, and for no member longer than `LONGEST_MS`.

The node asks only for what it may have missed. For each member it keeps the time until which that member has sent it every end:
until now while they are linked, at most until an absence began, and at most until their link was lost. Only a complete answer
makes this time later. It cannot be derived from how long a link was silent, because a process that was stopped first reads what
was sent before the stop.

An answer may hold millions of ends without tombstones (`telling.py`). They are remembered as they arrive. Then the copies that
are held here are compared with them, some thousand per step. Only then does the answer count as complete.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from sessile.ends import MARK
from sessile.errors import WireError
from sessile.record import LIVE
from sessile.replication.member import NEVER_MS
from sessile.replication.messages import TombstonesAsked
from sessile.replication.replica import KEY_BYTES
from sessile.replication.telling import Telling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessile.record import Record
    from sessile.replication.context import Context
    from sessile.replication.messages import TombstonesTold
    from sessile.replication.peer import Peer
    from sessile.token import SessionKey

__all__ = ["LONGEST_MS", "PATIENCE_MS", "Tombstones"]

PATIENCE_MS: Final = 2_000
"""The node stops waiting for a member that has sent no part of its answer for this long: it may be unreachable."""
LONGEST_MS: Final = 60_000
"""The node waits no longer than this for an answer; if it comes later, it is still used."""
SLICE: Final = 5_000
"""At most this many keys of the table per step."""
SLICE_PAUSE_MS: Final = 10
INTERRUPTED_MS: Final = 1_000
"""If no part of an answer came for this long, the copies are compared with the parts that have come."""
_NOW: Final = NEVER_MS
"""A value of `_told_ms`: the member is linked and sends this node every end at once."""


class _Whole(NamedTuple):
    """A question for all ends, sent over the present link and not answered completely yet."""

    number: int
    known_ms: int
    """The time until which the complete answer will cover the ends that the member knows."""


class Tombstones:
    """Which members must still send this node their ends. Calls `changed(key, record)` for each end it is sent."""

    def __init__(
        self, context: Context, changed: Callable[[SessionKey, Record], None], settled: Callable[[], None]
    ) -> None:
        self._context = context
        self._changed = changed
        self._settled = settled
        self.telling = Telling(context)
        self._missing: set[str] = set()
        self._absences = 0
        self._away_ms = 0
        """When the last absence was noticed."""
        self._told_ms: dict[str, int] = {}
        """Member → the time until which it has sent this node every end; missing if it never answered completely."""
        self._whole: dict[str, _Whole] = {}
        self._heard_ms: dict[str, int] = {}
        """Peer → when a part of its answer last arrived or was worked on."""
        self._has_new_marks = False
        """Whether ends without tombstones came with which the copies here were not compared yet."""
        self._marks_ms = 0
        self._keys: Iterator[SessionKey] | None = None
        """The keys of the copies still to be compared with the remembered ends; None if no comparison is under way."""
        self._looked: list[tuple[Peer, int]] = []
        """The answers that are complete when the present comparison is done: peer and number."""
        self._unlooked: list[tuple[Peer, int]] = []
        """The answers that need another comparison after that: peer and number."""

    # -- asking ------------------------------------------------------------------------------------------------------

    def was_away(self, since_ms: int) -> None:
        """Ask every peer for the ends that this node may have missed since then."""
        context = self._context
        context.counts["absences"] += 1
        self._absences += 1
        self._away_ms = context.now_ms
        self._told_ms = {name: min(until_ms, since_ms) for name, until_ms in self._told_ms.items()}
        self._whole = {name: _Whole(one.number, min(one.known_ms, since_ms)) for name, one in self._whole.items()}
        self._missing = set(context.membership.known())
        for peer in context.peers.values():
            self._ask(peer)
        context.alarm(PATIENCE_MS, partial(self._give_up, self._absences))
        self._check()

    def greeted(self, peer: Peer) -> None:
        """Ask a peer that has just been linked, since it may know of ends that this node does not."""
        if peer.is_new:
            self._told_ms.pop(peer.name, None)
        self._ask(peer)

    def _ask(self, peer: Peer) -> None:
        """Ask for the ends since the time until which this member has sent all; for all ends if it never has."""
        name, now_ms = peer.name, self._context.now_ms
        whole = self._whole.get(name)
        until_ms = self._told_ms.get(name, None if whole is None else whole.known_ms)
        if until_ms is None:
            self._whole[name] = _Whole(self._absences, _NOW)
        ago_ms = -1 if until_ms is None else max(now_ms - until_ms, 0)
        self._context.send(peer, TombstonesAsked(self._absences, ago_ms))

    def link_lost(self, peer: Peer) -> None:
        """Note that ends may be missing: the link may have been dead for a while before that was noticed."""
        context, name = self._context, peer.name
        self.telling.link_lost(peer)
        self._whole.pop(name, None)
        self._heard_ms.pop(name, None)
        lost_ms = context.now_ms - context.config.timings.dead_after_ms
        members = {info.name for info in context.membership.infos()}
        self._told_ms = {
            member: min(until_ms, lost_ms) if member == name else until_ms
            for member, until_ms in self._told_ms.items()
            if member in members
        }

    def start_over(self) -> None:
        """Forget what was sent: this node drops its table, so every member must send all its ends."""
        self._told_ms.clear()

    def gone(self, name: str) -> None:
        """Do not wait for this member."""
        self._missing.discard(name)
        self._check()

    def have_told(self, since_ms: int) -> bool:
        """Whether every peer has sent all its ends or, after waiting since `since_ms`, is no longer waited for."""
        return not any(
            name not in self._told_ms and self._is_waited_for(name, since_ms) for name in self._context.peers
        )

    def _is_waited_for(self, name: str, since_ms: int) -> bool:
        now_ms = self._context.now_ms
        heard_ms = max(since_ms, self._heard_ms.get(name, since_ms))
        return now_ms < heard_ms + PATIENCE_MS and now_ms < since_ms + LONGEST_MS

    def _give_up(self, absence: int) -> None:
        """Stop waiting for members that have sent nothing for a while."""
        if absence == self._absences and self._missing:
            self._missing = {name for name in self._missing if self._is_waited_for(name, self._away_ms)}
            self._check()
            if self._missing:
                heard_ms = min(max(self._away_ms, self._heard_ms.get(name, 0)) for name in self._missing)
                due_ms = min(heard_ms + PATIENCE_MS, self._away_ms + LONGEST_MS)
                self._context.alarm(due_ms - self._context.now_ms, partial(self._give_up, absence))

    def _check(self) -> None:
        if not self._missing:
            self._settled()

    # -- answers -----------------------------------------------------------------------------------------------------

    def take_told(self, peer: Peer, message: TombstonesTold) -> None:
        """Take a part of an answer."""
        context = self._context
        self._heard_ms[peer.name] = context.now_ms
        self._take_marks(message.marks)
        for key, data in message.items:
            record = context.replica.read(data, context.now_ms - message.now_ms)
            if record is None or len(key) != KEY_BYTES:
                context.refuse("refused", f"{peer.name} sent a malformed or oversized end", key[:KEY_BYTES])
                continue
            if record.state == LIVE:
                raise WireError(f"{peer.name} tells of an end that is none")
            merged = context.replica.merge(key, record, context.now_ms)
            assert merged is not None, "an end always finds room"
            self._changed(key, merged)
        if not message.is_last:
            return
        if self._has_new_marks:
            self._unlooked.append((peer, message.number))
            if self._keys is None:
                self._look_through()
        elif self._keys is not None:
            self._looked.append((peer, message.number))
        else:
            self._complete(peer, message.number)

    def _complete(self, peer: Peer, number: int) -> None:
        """Note that an answer is complete, and that the copies here were compared with it."""
        name = peer.name
        if self._context.peers.get(name) is not peer:  # its link is lost; the next one brings a new question
            return
        whole = self._whole.get(name)
        if whole is not None and number == whole.number:
            del self._whole[name]
            self._told_ms[name] = whole.known_ms
        elif number == self._absences and name in self._told_ms:
            self._told_ms[name] = _NOW
        if self._told_ms.get(name) == _NOW:
            self.gone(name)

    # -- ends without tombstones -------------------------------------------------------------------------------------

    def _take_marks(self, marks: bytes) -> None:
        """Remember ends without tombstones."""
        if len(marks) % MARK.size:
            raise WireError(f"ends without tombstones take {MARK.size} bytes each, and {len(marks)} bytes came")
        context = self._context
        if marks and context.replica.table.ends.take(marks, context.now_ms):
            self._marks_ms = context.now_ms
            if not self._has_new_marks:
                self._has_new_marks = True
                context.alarm(INTERRUPTED_MS, self._look_after)

    def _look_after(self) -> None:
        """Compare the copies with ends that came, even if the rest of their answer did not come."""
        left_ms = self._marks_ms + INTERRUPTED_MS - self._context.now_ms
        if self._has_new_marks and (left_ms > 0 or self._keys is not None):
            self._context.alarm(max(left_ms, SLICE_PAUSE_MS), self._look_after)
        elif self._has_new_marks:
            self._look_through()

    def _look_through(self) -> None:
        """Begin to compare every copy with the remembered ends."""
        self._has_new_marks = False
        self._looked, self._unlooked = self._unlooked, []
        self._keys = iter(self._context.replica.table)
        self._look_at_some()

    def _look_at_some(self) -> None:
        context = self._context
        assert self._keys is not None, "looking through the table has begun"
        keys = list(islice(self._keys, SLICE))
        for key, record in context.replica.table.end_remembered(keys, context.now_ms):
            self._changed(key, record)
        for peer, _ in (*self._looked, *self._unlooked):  # they need not send more
            if context.peers.get(peer.name) is peer:
                self._heard_ms[peer.name] = context.now_ms
        if len(keys) == SLICE:
            context.alarm(SLICE_PAUSE_MS, self._look_at_some)
            return
        self._keys = None
        looked, self._looked = self._looked, []
        for peer, number in looked:
            self._complete(peer, number)
        if self._unlooked:
            self._look_through()
