"""A node that was away asks what ended meanwhile before it answers for old copies.

A process that was stopped, or whose machine slept, comes back with copies of sessions that may have ended meanwhile. From the
end of its lease (`pulse.py`) until every member that it can reach has sent it the sessions that ended, it is sure of no live
session: its engine asks another holder, and other nodes do not rely on its answers. A member that sends nothing for
`PATIENCE_MS` is not waited for, and none for longer than `LONGEST_MS`.

What is asked for follows from what was *answered*. For each member the node knows until when that member has told it every end:
until now while they are linked, at most until an absence began, and at most until their link was lost. Only a complete answer
makes this later. How long a link seemed silent says nothing: after a stop, a process first reads what was sent before it.

An answer may hold millions of ends without tombstones (`telling.py`). Each is remembered as it comes. Then the copies that are
held here are held against them, some thousand at a time. The answer counts as complete when that is done.
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
"""Who has sent nothing of its answer in so long is not waited for: it is gone, or on the other side of a partition."""
LONGEST_MS: Final = 60_000
"""No answer is waited for any longer, though it still arrives."""
SLICE: Final = 5_000
"""So many keys of the table are looked at in one go."""
SLICE_PAUSE_MS: Final = 10
INTERRUPTED_MS: Final = 1_000
"""An answer of which nothing came for so long may have been interrupted: the copies are held against what has come of it."""
_NOW: Final = NEVER_MS
"""A member of which this is said tells this node of every end as it is made."""


class _Whole(NamedTuple):
    """A question for all ends that was asked over the present link and is not answered completely."""

    number: int
    known_ms: int
    """Until when its answer covers the ends of that member."""


class Tombstones:
    """Who has still to tell this node what ended; `changed(key, record)` hears of each that was told."""

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
        """Member → until when it has told this node every end. Who never answered completely is not in it."""
        self._whole: dict[str, _Whole] = {}
        self._heard_ms: dict[str, int] = {}
        """Peer → when a part of an answer of it came, or was worked on, last."""
        self._has_new_marks = False
        """Whether ends without tombstones came that the copies here were not held against."""
        self._marks_ms = 0
        self._keys: Iterator[SessionKey] | None = None
        """Those that are still to be held against the ends that are remembered."""
        self._looked: list[tuple[Peer, int]] = []
        """The answers that are complete when `_keys` have been looked at, each with its number."""
        self._unlooked: list[tuple[Peer, int]] = []
        """Those for which all copies must be looked at once more after that."""

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
        """A link is there: ask, since one side may know of ends that the other does not."""
        if peer.is_new:
            self._told_ms.pop(peer.name, None)
        self._ask(peer)

    def _ask(self, peer: Peer) -> None:
        """Ask for all ends, unless this member has told them all before, or is about to."""
        name, now_ms = peer.name, self._context.now_ms
        whole = self._whole.get(name)
        until_ms = self._told_ms.get(name, None if whole is None else whole.known_ms)
        if until_ms is None:
            self._whole[name] = _Whole(self._absences, _NOW)
        ago_ms = -1 if until_ms is None else max(now_ms - until_ms, 0)
        self._context.send(peer, TombstonesAsked(self._absences, ago_ms))

    def link_lost(self, peer: Peer) -> None:
        """What was under way over this link did not arrive. It may have been dead for a while before that was noticed."""
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
        """This node drops its table: everybody has to tell everything."""
        self._told_ms.clear()

    def gone(self, name: str) -> None:
        """This member will not tell."""
        self._missing.discard(name)
        self._check()

    def have_told(self, since_ms: int) -> bool:
        """Whether every peer has told all ends, or is not waited for; the waiting began then."""
        return not any(
            name not in self._told_ms and self._is_waited_for(name, since_ms) for name in self._context.peers
        )

    def _is_waited_for(self, name: str, since_ms: int) -> bool:
        now_ms = self._context.now_ms
        heard_ms = max(since_ms, self._heard_ms.get(name, since_ms))
        return now_ms < heard_ms + PATIENCE_MS and now_ms < since_ms + LONGEST_MS

    def _give_up(self, absence: int) -> None:
        """Wait no longer for those that have sent nothing for a while."""
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
        """Take over what ended."""
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
        """An answer is there, and the copies here were held against it."""
        name = peer.name
        if self._context.peers.get(name) is not peer:  # over a link that is lost: it is asked again over the next one
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
        """Remember ends of which there are no tombstones."""
        if len(marks) % MARK.size:
            raise WireError(f"ends without tombstones take {MARK.size} bytes each, and {len(marks)} bytes came")
        context = self._context
        if marks and context.replica.table.ends.take(marks, context.now_ms):
            self._marks_ms = context.now_ms
            if not self._has_new_marks:
                self._has_new_marks = True
                context.alarm(INTERRUPTED_MS, self._look_after)

    def _look_after(self) -> None:
        """Look through the table for ends that came, though the rest of their answer did not."""
        left_ms = self._marks_ms + INTERRUPTED_MS - self._context.now_ms
        if self._has_new_marks and (left_ms > 0 or self._keys is not None):
            self._context.alarm(max(left_ms, SLICE_PAUSE_MS), self._look_after)
        elif self._has_new_marks:
            self._look_through()

    def _look_through(self) -> None:
        """Begin to hold every copy against the ends that are remembered."""
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
        for peer, _ in (*self._looked, *self._unlooked):  # they have done their part
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
