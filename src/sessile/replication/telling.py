"""What a node tells of ended sessions to a peer that asks.

A short absence must cost little, or its questions would take even more from a process that is short of processor time. So an
answer lists only the ends that this node has learned since the time from which the peer may have missed some. It lists all
ends that are remembered here if the peer asks for all, or if the list of those learned lately does not reach back so far.

All ends may be many millions. So an answer leaves in pieces: one piece of one answer every `PAUSE_MS`, to each peer in its turn,
and none while much waits to be sent on its link. A receiver that is slower than this is therefore not flooded. What was made
or learned here while an answer is under way need not be in it: that is sent to linked peers as it comes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from sessile.record import LIVE
from sessile.replication.messages import TombstonesTold

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sessile.replication.context import Context
    from sessile.replication.messages import TombstonesAsked
    from sessile.replication.peer import Peer
    from sessile.token import SessionKey

__all__ = ["Telling"]

BATCH_BYTES: Final = 64 * 2**10
BATCH_MARKS: Final = 5_000
"""Ends without tombstones in one message: 64 KB."""
PIECE_BYTES: Final = 128 * 2**10
PAUSE_MS: Final = 20
"""So much of answers is sent at once, and so long after it comes more: 6 MB a second, to all peers together."""
CROWDED_BYTES: Final = 2**20
"""While more waits to be sent on a link, no piece is added: far from where a link is closed (`connection.WAITING_BYTES_MAX`)."""
RECENT_MAX: Final = 10_000
"""At most this many ends are listed in the order in which they were learned."""


class _Answer:
    """What is being told to one peer."""

    __slots__ = ("messages", "peer", "waiting")

    def __init__(self, peer: Peer, messages: Iterator[TombstonesTold]) -> None:
        self.peer = peer
        self.messages = messages
        """Those that are still to be sent."""
        self.waiting: TombstonesAsked | None = None
        """What it has asked since. An earlier question than this is not answered: this one reaches back as far."""


class Telling:
    """The answers of one node."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._recent: deque[tuple[int, SessionKey]] = deque()
        """The ends that were made or learned here since `_recent_since_ms`, each with its time."""
        self._recent_since_ms = context.now_ms
        self._answers: dict[str, _Answer] = {}
        """By the name of the peer, in the order of their turns."""
        self._is_ticking = False
        self._parted_ms: dict[str, int] = {}
        """Since when a member whose link was lost may not have been told. It need not know: a machine's clock may stand still."""

    def learned(self, key: SessionKey) -> None:
        """Note an end that was made here or came from a peer."""
        self._recent.append((self._context.now_ms, key))
        if len(self._recent) > RECENT_MAX:
            self._recent_since_ms = self._recent.popleft()[0] + 1

    def link_lost(self, peer: Peer) -> None:
        """What was under way over this link may not have arrived."""
        context = self._context
        answer = self._answers.get(peer.name)
        if answer is not None and answer.peer is peer:
            del self._answers[peer.name]
        since_ms = context.now_ms - context.config.timings.dead_after_ms
        if peer.told_ms is None or peer.told_ms >= since_ms:  # an earlier time, if there is one, still counts
            since_ms = self._parted_ms.get(peer.name, since_ms)
        members = {info.name for info in context.membership.infos()}
        self._parted_ms = {name: ms for name, ms in self._parted_ms.items() if name in members}
        self._parted_ms[peer.name] = since_ms

    def take_asked(self, peer: Peer, message: TombstonesAsked) -> None:
        """Begin to send the ends that are remembered here."""
        answer = self._answers.get(peer.name)
        if answer is None:
            answer = self._answers[peer.name] = _Answer(peer, self._messages(peer, message))
            self._go_on(answer)  # most are over with that
            self._set_alarm()
        else:
            if answer.waiting is not None and answer.waiting.ago_ms < 0:
                message = replace(message, ago_ms=-1)
            answer.waiting = message

    # -- pieces ------------------------------------------------------------------------------------------------------

    def _go_on(self, answer: _Answer) -> None:
        """Send the next piece."""
        context, peer = self._context, answer.peer
        size = 0
        while size < PIECE_BYTES:
            message = next(answer.messages)
            size += context.send(peer, message)
            if not message.is_last:
                continue
            peer.told_ms = context.now_ms
            if answer.waiting is None:
                del self._answers[peer.name]
                return
            answer.messages, answer.waiting = self._messages(peer, answer.waiting), None

    def _tick(self) -> None:
        """Send a piece to the first peer that can take one; its next turn comes after those of the others."""
        self._is_ticking = False
        for name in list(self._answers):
            answer = self._answers.pop(name)
            self._answers[name] = answer
            if self._context.waiting_bytes(answer.peer.link) <= CROWDED_BYTES:
                self._go_on(answer)
                break
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._answers and not self._is_ticking:
            self._is_ticking = True
            self._context.alarm(PAUSE_MS, self._tick)

    # -- what is told ------------------------------------------------------------------------------------------------

    def _messages(self, peer: Peer, asked: TombstonesAsked) -> Iterator[TombstonesTold]:
        is_all, keys = self._asked_for(peer, asked.ago_ms)
        return self._answer(is_all, keys, asked.number)

    def _asked_for(self, peer: Peer, ago_ms: int) -> tuple[bool, list[SessionKey]]:
        """The keys of the ends to send to a peer that knows every older end; and whether these are all, so that marks follow."""
        context = self._context
        since_ms = context.now_ms - ago_ms
        if peer.told_ms is None:
            since_ms = min(since_ms, self._parted_ms.get(peer.name, since_ms))
        since_ms -= context.config.overlap_ms
        if ago_ms < 0 or since_ms < self._recent_since_ms:
            return True, list(context.replica.table.ended())
        return False, self._learned_since(since_ms)

    def _learned_since(self, since_ms: int) -> list[SessionKey]:
        keys: dict[SessionKey, None] = {}
        for learned_ms, key in reversed(self._recent):
            if learned_ms < since_ms:
                break
            keys[key] = None
        return list(keys)

    def _answer(self, is_all: bool, keys: Iterable[SessionKey], number: int) -> Iterator[TombstonesTold]:  # noqa: FBT001
        """The messages of an answer, each made when it is sent.

        Marks come after tombstones: a tombstone that is dropped meanwhile leaves its mark, and is told as one of them.
        """
        context = self._context
        items: list[tuple[bytes, bytes]] = []
        size = 0
        for key, packed in self._packed(keys):
            items.append((key, packed))
            size += len(packed)
            if size > BATCH_BYTES:
                yield TombstonesTold(context.now_ms, tuple(items), is_last=False, number=number)
                items, size = [], 0
        marks = b""
        for more in context.replica.table.ends.told(context.now_ms, batch=BATCH_MARKS) if is_all else ():
            if marks:
                yield TombstonesTold(context.now_ms, (), is_last=False, number=number, marks=marks)
            marks = more
        yield TombstonesTold(context.now_ms, tuple(items), is_last=True, number=number, marks=marks)

    def _packed(self, keys: Iterable[SessionKey]) -> Iterator[tuple[SessionKey, bytes]]:
        """Their tombstones, as they are when they are sent."""
        context = self._context
        table = context.replica.table
        for key in keys:
            packed, state = table.get(key), table.state(key)
            if packed is None:
                record = table.remembered(key, context.now_ms)
                if record is not None:
                    yield key, record.pack()
            elif state != LIVE:  # after starting over, a live record may be held
                yield key, packed
