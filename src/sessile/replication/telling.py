"""The answers of a node to peers that ask which sessions have ended.

A short absence must cost little: often it was caused by a lack of processor time. So an answer lists only the ends that this
node has learned since the time at which the peer may have begun to miss some. It lists all ends that are remembered here if
the peer asks for all, or if the list of recent ends does not reach back to that time.

There may be many millions of ends. So an answer is sent in pieces: one piece every `PAUSE_MS`, to each peer in its turn, and
none while much data waits to be sent on the peer's link. So a slow receiver is not flooded. Ends that are made or learned here
while an answer is under way need not be in it: they are sent to linked peers at once.
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
"""Pause between two pieces of `PIECE_BYTES`: 6 MB a second, over all peers together."""
CROWDED_BYTES: Final = 2**20
"""No piece is added while more than this waits on a link: far below `connection.WAITING_BYTES_MAX`, which closes it."""
RECENT_MAX: Final = 10_000
"""At most this many ends are listed in the order in which they were learned."""


class _Answer:
    """The answer that is being sent to one peer."""

    __slots__ = ("messages", "peer", "waiting")

    def __init__(self, peer: Peer, messages: Iterator[TombstonesTold]) -> None:
        self.peer = peer
        self.messages = messages
        """The messages not sent yet."""
        self.waiting: TombstonesAsked | None = None
        """The peer's latest question since. Earlier ones are not answered, because this one reaches back as far."""


class Telling:
    """The answers of one node."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._recent: deque[tuple[int, SessionKey]] = deque()
        """The ends that were made or learned here since `_recent_since_ms`, each with its time."""
        self._recent_since_ms = context.now_ms
        self._answers: dict[str, _Answer] = {}
        """Name of the peer → the answer to it, in the order of their turns."""
        self._is_ticking = False
        self._parted_ms: dict[str, int] = {}
        """Member whose link was lost → since when it may have missed ends. It may not notice this: its clock may stop."""

    def learned(self, key: SessionKey) -> None:
        """Note an end that was made here or came from a peer."""
        self._recent.append((self._context.now_ms, key))
        if len(self._recent) > RECENT_MAX:
            self._recent_since_ms = self._recent.popleft()[0] + 1

    def link_lost(self, peer: Peer) -> None:
        """Note that what was sent lately over this link may not have arrived."""
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
            self._go_on(answer)  # most answers have one piece
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

    # -- contents -----------------------------------------------------------------------------------------------------

    def _messages(self, peer: Peer, asked: TombstonesAsked) -> Iterator[TombstonesTold]:
        is_all, keys = self._asked_for(peer, asked.ago_ms)
        return self._answer(is_all, keys, asked.number)

    def _asked_for(self, peer: Peer, ago_ms: int) -> tuple[bool, list[SessionKey]]:
        """Whether to send all ends, including those without tombstones; and the keys whose tombstones to send."""
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

        Ends without tombstones (marks) come last: a tombstone that is dropped meanwhile is then sent as a mark.
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
        """The tombstones of these keys, as they stand when they are sent."""
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
