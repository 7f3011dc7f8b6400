"""What this node's engine changed, on its way to the other holders, and who waits until they have it.

A change goes to every other holder, an end to every member. Whoever waits is answered when every change that this node
made to the session is held as `ack` demands, or when `ack_timeout` has passed. A holder that takes long, and three times
as long as usual, is not waited for alone: the next member in the session's order gets the change as well. A change that
was denied for want of its base is followed by the whole record, and counts as held only when that is.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Final

from sessile.backend import Acknowledged, Ended
from sessile.backend import Whole as Born
from sessile.delta import Delta
from sessile.record import LIVE
from sessile.replication.events import Answer
from sessile.replication.intake import DENIALS, NEED, message_of
from sessile.replication.membership import Standing
from sessile.replication.messages import Whole, Writing

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.backend import Change
    from sessile.replication.context import Context
    from sessile.replication.messages import Sequenced
    from sessile.replication.peer import Peer
    from sessile.token import SessionKey

__all__ = ["Pushes"]

_REACHABLE: Final = {Standing.ALIVE, Standing.LEAVING}
OPEN_MAX: Final = 50_000
"""So many changes may wait for confirmation; the oldest beyond that are left to repair."""
QUIET_MS: Final = 2_000
"""How long a node that is no holder keeps what it wrote after all holders have it: a request may still go on with it."""


class _Push:
    """A change on its way."""

    __slots__ = ("ack", "confirmed", "is_end", "key", "refused", "sent_to")

    def __init__(self, key: SessionKey, ack: str, *, is_end: bool) -> None:
        self.key = key
        self.ack = ack
        self.is_end = is_end
        self.sent_to: set[str] = set()
        """Who was sent it and has not refused it."""
        self.confirmed: set[str] = set()
        """Who holds it."""
        self.refused: set[str] = set()
        """The members that denied it: no room, leaving, or beyond limits. A member is not asked twice over one link."""


class _Wait:
    """Somebody who waits for the changes to a session."""

    __slots__ = ("pushes", "ticket", "until_ms")

    def __init__(self, ticket: int, pushes: list[_Push]) -> None:
        self.ticket = ticket
        self.pushes = pushes
        self.until_ms = 0
        """When it is told that too few have confirmed, at the latest."""


class Pushes:
    """The changes of this node that not everybody who should hold them has confirmed."""

    def __init__(self, context: Context, drop: Callable[[SessionKey], None]) -> None:
        self._context = context
        self._drop = drop
        self._open: dict[SessionKey, list[_Push]] = {}
        self._open_count = 0
        self._doubtful: OrderedDict[SessionKey, None] = OrderedDict()
        """Sessions with a change that nobody confirmed and nobody is expected to."""
        self._waits: dict[SessionKey, list[_Wait]] = {}
        self.answered_ms = -1_000_000
        """When somebody who waited was last answered."""

    def __len__(self) -> int:
        return self._open_count

    def is_settled(self, key: SessionKey) -> bool:
        """Whether every change of this node to the session is held as was demanded."""
        pushes = self._open.get(key)
        return pushes is None or all(self._is_satisfied(push) for push in pushes)

    def is_open(self, key: SessionKey) -> bool:
        """Whether a change of this node to the session is not yet with everybody who should hold it."""
        return key in self._open

    def is_confirmed(self, key: SessionKey) -> bool:
        """Whether somebody holds every change of this node to the session."""
        return key not in self._doubtful and all(push.confirmed for push in self._open.get(key, ()))

    # -- from the engine ---------------------------------------------------------------------------------------------

    def push(self, ticket: int, key: SessionKey, change: Change | None, ack: str) -> None:
        """Send a change, if there is one, and answer the ticket in time."""
        if change is not None:
            self._send(_Push(key, ack, is_end=change.__class__ is Ended), change)
        waited = [push for push in self._open.get(key, ()) if not self._is_satisfied(push)]
        if not waited:
            self._reply(ticket, Acknowledged.YES)
            return
        for push in waited:
            if push.refused and self._is_hopeless(push):
                self._reply(ticket, Acknowledged.NO)
                return
        wait = _Wait(ticket, waited)
        self._waits.setdefault(key, []).append(wait)
        self._allow_time(key, wait)

    def _allow_time(self, key: SessionKey, wait: _Wait) -> None:
        """Start the timeout of a wait: `ack_timeout`, but for an end at least until a silent member's lease is over."""
        context = self._context
        timeout_ms = context.config.ack_timeout_ms
        for push in wait.pushes:
            if push.is_end and timeout_ms < context.config.end_timeout_ms:
                timeout_ms = context.config.end_timeout_ms
        wait.until_ms = context.now_ms + timeout_ms
        context.alarm(timeout_ms, partial(self._give_up, key, wait))

    def _send(self, push: _Push, change: Change) -> None:
        context = self._context
        message = self._message(change)
        if message is None:
            return
        targets = self._targets(push)
        self._remember(push)
        usual_ms = 0.0
        for name in targets:
            peer = context.peers.get(name)
            if peer is not None:
                self._send_to(push, peer, message)
                usual_ms = max(usual_ms, peer.usual_ms)
        self._close_if_held(push)
        if push.ack != "none" and not push.is_end and targets:
            delay_ms = max(context.config.second_target_ms, round(3 * usual_ms))
            context.alarm(delay_ms, partial(self._one_more, push, partial(self._again, change), delay_ms))

    def _again(self, change: Change) -> Sequenced | None:
        """The message of a change that is sent again: meanwhile this node may have announced another tag."""
        return message_of(change, self._context.writer) if isinstance(change, Delta) else self._whole(change.key)

    def _message(self, change: Change) -> Sequenced | None:
        context = self._context
        if isinstance(change, Delta):
            writer = change.stamp.writer
            if writer != context.writer:
                context.writer = writer
                for peer in context.peers.values():
                    context.send(peer, Writing(writer))
            return message_of(change, context.writer)
        assert isinstance(change, Born | Ended), f"{change!r} is no change"
        return self._whole(change.key)

    def _whole(self, key: SessionKey) -> Whole | None:
        packed = self._context.replica.table.get(key)
        return None if packed is None else Whole(self._context.now_ms, ((key, packed),))

    def _targets(self, push: _Push) -> tuple[str, ...]:
        """Everybody who should hold the change, but this node."""
        context = self._context
        if push.is_end:
            return context.membership.known()  # who lost its link a moment ago is told when it is back
        return context.placement.others(push.key)

    def _send_to(self, push: _Push, peer: Peer, message: Sequenced) -> None:
        denied = partial(self._denied, push, peer.name)
        if isinstance(message, Whole):  # whatever was written before is in it, also what the queue had no room for
            held = partial(self._held_all, push, tuple(self._open.get(push.key, ())), peer.name)
        else:
            held = partial(self._held, push, peer.name)
        if self._context.send_sequenced(peer, message, held, denied, is_end=push.is_end):
            push.sent_to.add(peer.name)

    def _send_if_linked(self, push: _Push, name: str, message: Sequenced) -> None:
        peer = self._context.peers.get(name)
        if peer is not None:
            self._send_to(push, peer, message)

    def _one_more(self, push: _Push, make: Callable[[], Sequenced | None], delay_ms: int) -> None:
        """Those who have it take long to say so: one more member may."""
        if push not in self._open.get(push.key, ()) or self._is_satisfied(push):
            return
        context = self._context
        for name in context.placement.order(push.key):
            if name in context.peers and name not in push.sent_to | push.confirmed | push.refused:
                message = make()
                if message is not None:
                    context.counts["second_targets"] += 1
                    self._send_to(push, context.peers[name], message)
                    context.alarm(delay_ms, partial(self._one_more, push, make, delay_ms))
                return

    # -- from the others ---------------------------------------------------------------------------------------------

    def _held(self, push: _Push, name: str) -> None:
        push.confirmed.add(name)
        self._close_if_held(push)
        self._answer(push.key)

    def _held_all(self, push: _Push, others: tuple[_Push, ...], name: str) -> None:
        """That node holds a whole record, and so each of these changes."""
        self._held(push, name)
        for other in others:
            if other is not push:
                self._held(other, name)

    def _denied(self, push: _Push, name: str, why: int) -> None:
        self._context.counts[f"denied_{DENIALS[why]}"] += 1
        whole = self._whole(push.key)
        push.sent_to.discard(name)
        if why != NEED:
            push.refused.add(name)
        if whole is not None and why == NEED:
            self._send_if_linked(push, name, whole)
        elif whole is not None and not push.sent_to - push.confirmed:
            self._one_more(push, partial(self._whole, push.key), self._context.config.second_target_ms)
        self._close_if_held(push)  # others may have confirmed it, and only this answer was lacking
        self._answer(push.key)

    def link_lost(self, name: str) -> None:
        """What was sent over a lost link and not acknowledged may not have arrived: it is sent anew over the next one."""
        for pushes in self._open.values():
            for push in pushes:
                push.sent_to.discard(name)
                push.refused.discard(name)

    def send_lacking(self) -> None:
        """Send what is not held enough to those who should hold it; nobody waits for a member that is gone.

        To be called when members or links came or went, and when a queue that was full is empty again.
        """
        for key, pushes in list(self._open.items()):
            for push in list(pushes):
                whole = self._whole(key)
                if whole is None:  # it ran out of time
                    self._forget(push)
                    self._doubt(key)
                    continue
                if not self._is_satisfied(push):
                    for name in self._targets(push):
                        if name not in push.sent_to | push.confirmed | push.refused:
                            self._send_if_linked(push, name, whole)
                    if push.refused and not push.is_end and not push.sent_to - push.confirmed:
                        self._one_more(push, partial(self._whole, key), self._context.config.second_target_ms)
                self._close_if_held(push)
            self._answer(key)

    def restarted(self, name: str) -> None:
        """That node has nothing of what it had: what it confirmed as well does not count any more."""
        for pushes in self._open.values():
            for push in pushes:
                push.confirmed.discard(name)

    def confirmed_by_repair(self, key: SessionKey, name: str) -> None:
        """That node holds all that is held here of the session."""
        self._doubtful.pop(key, None)
        for push in list(self._open.get(key, ())):
            self._held(push, name)

    def was_away(self) -> None:
        """This node's own loop was late: others are not to blame for what they have not confirmed."""
        for key, waits in self._waits.items():
            for wait in waits:
                self._allow_time(key, wait)

    # -- who has what ------------------------------------------------------------------------------------------------

    def _is_satisfied(self, push: _Push) -> bool:
        if not push.is_end:
            if push.ack == "none":
                return True
            if not push.confirmed and self._context.placement.others(push.key):
                return False
            if push.ack != "all":
                return True
        elif not self._context.has_met_all:
            return False  # a member that this node is not linked to yet may hold a copy
        standing = self._context.membership.standing
        return all(name in push.confirmed or standing(name) not in _REACHABLE for name in self._targets(push))

    def _is_hopeless(self, push: _Push) -> bool:
        """Whether the refusals of members leave too few that could satisfy `ack`."""
        if push.is_end or not push.refused or self._is_satisfied(push):
            return False
        placement = self._context.placement
        if push.ack == "all":
            return not push.refused.isdisjoint(placement.others(push.key))
        return push.refused.issuperset(name for name in placement.names if name != placement.me)

    def _remember(self, push: _Push) -> None:
        if push.key in self._open:
            for older in [other for other in self._open[push.key] if other.refused]:
                if self._is_hopeless(older):  # whoever takes this one has the other as well
                    self._forget(older)
        self._open.setdefault(push.key, []).append(push)
        self._open_count += 1
        if self._open_count > OPEN_MAX:
            self._context.counts["overflows"] += 1
            oldest = next(iter(self._open))
            self._forget(self._open[oldest][0])

    def _forget(self, push: _Push) -> None:
        pushes = self._open.get(push.key, [])
        if push in pushes:
            pushes.remove(push)
            self._open_count -= 1
            if not pushes:
                del self._open[push.key]

    def _close_if_held(self, push: _Push) -> None:
        """Enough hold it, and nobody who was sent it has still to say so: what may be lacking anywhere, repair brings."""
        if push.sent_to <= push.confirmed and self._is_satisfied(push):
            self._forget(push)
            context = self._context
            if not push.confirmed:
                self._doubt(push.key)
            if not push.is_end and push.key not in self._open and not context.placement.is_holder(push.key):
                packed = context.replica.table.get(push.key)
                context.alarm(QUIET_MS, partial(self._quiet, push, packed))

    def _doubt(self, key: SessionKey) -> None:
        """Nobody else is known to hold a change; of too many, the oldest are taken to be held."""
        self._doubtful[key] = None
        if len(self._doubtful) > OPEN_MAX:
            self._doubtful.popitem(last=False)

    def _quiet(self, push: _Push, packed: bytes | None) -> None:
        """All holders had the last change of this node, which is none of them: it need not hold the session.

        Unless the copy is another one by now: somebody may rely on this node to hold what changed.
        """
        context = self._context
        key = push.key
        if (
            packed is not None
            and context.replica.table.get(key) is packed
            and context.replica.table.state(key) == LIVE  # that it has ended, everybody remembers
            and key not in self._open
            and not context.placement.is_holder(key)
            and push.confirmed.issuperset(context.placement.others(key))
        ):
            self._drop(key)

    # -- who waits ---------------------------------------------------------------------------------------------------

    def _answer(self, key: SessionKey) -> None:
        waits = self._waits.get(key)
        if not waits:
            return
        for wait in list(waits):
            lacking = [push for push in wait.pushes if not self._is_satisfied(push)]
            if not lacking:
                self._end(key, wait, Acknowledged.YES)
            elif any(self._is_hopeless(push) for push in lacking):
                self._end(key, wait, Acknowledged.NO)

    def _give_up(self, key: SessionKey, wait: _Wait) -> None:
        if wait in self._waits.get(key, ()) and wait.until_ms <= self._context.now_ms:
            self._context.counts["ack_timeouts"] += 1
            self._end(key, wait, Acknowledged.NO)

    def _end(self, key: SessionKey, wait: _Wait, result: Acknowledged) -> None:
        waits = self._waits[key]
        waits.remove(wait)
        if not waits:
            del self._waits[key]
        self._reply(wait.ticket, result)

    def _reply(self, ticket: int, result: Acknowledged) -> None:
        self.answered_ms = self._context.now_ms
        self._context.do(Answer(ticket, result))
