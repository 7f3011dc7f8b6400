"""Sends the changes of this node's engine to the other holders, and answers the requests that wait for acknowledgements.

A change goes to every other holder, an end to every member. A waiting request is answered when every change that this node
made to the session is held as `ack` demands, or when `ack_timeout` has passed. If a holder takes three times as long as usual,
and at least `second_target_ms`, the next member in the session's order gets the change as well. If a member denies a change
because it lacks the base, it is sent the whole record; it holds the change only when it has acknowledged that.
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
"""At most this many changes wait for confirmation. Beyond it, the oldest are left to repair."""
QUIET_MS: Final = 2_000
"""How long a node that is not a holder keeps its copy after all holders have it: a request may still use it."""


class _Push:
    """A change that is being sent."""

    __slots__ = ("ack", "confirmed", "is_end", "key", "refused", "sent_to")

    def __init__(self, key: SessionKey, ack: str, *, is_end: bool) -> None:
        self.key = key
        self.ack = ack
        self.is_end = is_end
        self.sent_to: set[str] = set()
        """The members that were sent it and have not refused it."""
        self.confirmed: set[str] = set()
        """The members that hold it."""
        self.refused: set[str] = set()
        """The members that denied it: no room, leaving, or over their limits. A member is not asked twice over one link."""


class _Wait:
    """A request that waits until changes to a session are held."""

    __slots__ = ("pushes", "ticket", "until_ms")

    def __init__(self, ticket: int, pushes: list[_Push]) -> None:
        self.ticket = ticket
        self.pushes = pushes
        self.until_ms = 0
        """The time at which it is answered that too few members have confirmed."""


class Pushes:
    """The changes of this node that are not confirmed by every member that should hold them."""

    def __init__(self, context: Context, drop: Callable[[SessionKey], None]) -> None:
        self._context = context
        self._drop = drop
        self._open: dict[SessionKey, list[_Push]] = {}
        self._open_count = 0
        self._doubtful: OrderedDict[SessionKey, None] = OrderedDict()
        """Sessions with a change that no member has confirmed, nor is expected to confirm."""
        self._waits: dict[SessionKey, list[_Wait]] = {}
        self.answered_ms = -1_000_000
        """When a ticket was last answered."""

    def __len__(self) -> int:
        return self._open_count

    def is_settled(self, key: SessionKey) -> bool:
        """Whether every change of this node to the session is held as its `ack` demands."""
        pushes = self._open.get(key)
        return pushes is None or all(self._is_satisfied(push) for push in pushes)

    def is_open(self, key: SessionKey) -> bool:
        """Whether a change of this node to the session is still waiting for confirmations."""
        return key in self._open

    def is_confirmed(self, key: SessionKey) -> bool:
        """Whether each change of this node to the session is held by at least one other member."""
        return key not in self._doubtful and all(push.confirmed for push in self._open.get(key, ()))

    # -- from the engine ---------------------------------------------------------------------------------------------

    def push(self, ticket: int, key: SessionKey, change: Change | None, ack: str) -> None:
        """Send a change, if there is one. Answer the ticket when the session is settled, or after the timeout."""
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
        """Start the timeout of a wait: `ack_timeout`; for an end, at least until the lease of a silent member is over."""
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
        """The message for sending a change again. It is made anew, since this node may write under another tag by now."""
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
        """The other members that should hold the change."""
        context = self._context
        if push.is_end:
            return context.membership.known()  # a member whose link is lost is sent it over the next link
        return context.placement.others(push.key)

    def _send_to(self, push: _Push, peer: Peer, message: Sequenced) -> None:
        denied = partial(self._denied, push, peer.name)
        if isinstance(message, Whole):  # it contains all earlier changes, even those that the queue had no room for
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
        """The members that were sent the change take long to confirm it: send it to one more."""
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

    # -- from peers ---------------------------------------------------------------------------------------------

    def _held(self, push: _Push, name: str) -> None:
        push.confirmed.add(name)
        self._close_if_held(push)
        self._answer(push.key)

    def _held_all(self, push: _Push, others: tuple[_Push, ...], name: str) -> None:
        """The node `name` holds a whole record, and so each of these changes."""
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
        self._close_if_held(push)  # others may have confirmed it, so that only this answer was awaited
        self._answer(push.key)

    def link_lost(self, name: str) -> None:
        """A change that was not acknowledged over the lost link may not have arrived: it is sent again over the next one."""
        for pushes in self._open.values():
            for push in pushes:
                push.sent_to.discard(name)
                push.refused.discard(name)

    def send_lacking(self) -> None:
        """Send unsatisfied changes to the members that should hold them, and stop waiting for members that are gone.

        Call this when members or links have changed, and when a queue that was full is empty again.
        """
        for key, pushes in list(self._open.items()):
            for push in list(pushes):
                whole = self._whole(key)
                if whole is None:  # it has expired
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
        """The node `name` has lost all it held: its earlier confirmations do not count any more."""
        for pushes in self._open.values():
            for push in pushes:
                push.confirmed.discard(name)

    def confirmed_by_repair(self, key: SessionKey, name: str) -> None:
        """The node `name` holds everything that is held here of the session."""
        self._doubtful.pop(key, None)
        for push in list(self._open.get(key, ())):
            self._held(push, name)

    def was_away(self) -> None:
        """This node's own loop was late, so missing confirmations are not the peers' fault: restart the timeouts."""
        for key, waits in self._waits.items():
            for wait in waits:
                self._allow_time(key, wait)

    # -- confirmations -----------------------------------------------------------------------------------------------

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
        """Whether `ack` cannot be satisfied any more, because too many members have refused the change."""
        if push.is_end or not push.refused or self._is_satisfied(push):
            return False
        placement = self._context.placement
        if push.ack == "all":
            return not push.refused.isdisjoint(placement.others(push.key))
        return push.refused.issuperset(name for name in placement.names if name != placement.me)

    def _remember(self, push: _Push) -> None:
        if push.key in self._open:
            for older in [other for other in self._open[push.key] if other.refused]:
                if self._is_hopeless(older):  # a member that takes the new change takes the older one with it
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
        """Close the push if `ack` is satisfied and every member that was sent it has confirmed it. Repair does the rest."""
        if push.sent_to <= push.confirmed and self._is_satisfied(push):
            self._forget(push)
            context = self._context
            if not push.confirmed:
                self._doubt(push.key)
            if not push.is_end and push.key not in self._open and not context.placement.is_holder(push.key):
                packed = context.replica.table.get(push.key)
                context.alarm(QUIET_MS, partial(self._quiet, push, packed))

    def _doubt(self, key: SessionKey) -> None:
        """Note that no other member is known to hold a change. At the limit, the oldest are forgotten, as if they were held."""
        self._doubtful[key] = None
        if len(self._doubtful) > OPEN_MAX:
            self._doubtful.popitem(last=False)

    def _quiet(self, push: _Push, packed: bytes | None) -> None:
        """Drop the copy of a node that is not a holder, when all holders have this node's last change.

        The copy stays if it has changed meanwhile: another node may count on this one to hold that change.
        """
        context = self._context
        key = push.key
        if (
            packed is not None
            and context.replica.table.get(key) is packed
            and context.replica.table.state(key) == LIVE  # every member keeps tombstones
            and key not in self._open
            and not context.placement.is_holder(key)
            and push.confirmed.issuperset(context.placement.others(key))
        ):
            self._drop(key)

    # -- answers -----------------------------------------------------------------------------------------------------

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
