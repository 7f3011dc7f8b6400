"""One member of a cluster, as a pure function of what happens to it.

`handle(event, now_ms)` takes an event and returns effects; `next_wakeup` returns when to call it with `Woken`. A node does
nothing between these calls. Nothing that a peer sends makes it raise: a link that violates the protocol is closed, and counted.
Engine and node share one table; the caller must keep them from using it at the same time.

This module passes each event and message to the parts of the node. The parts do the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessile.backend import Acknowledged, Ended
from sessile.errors import RecordError, WireError
from sessile.record import LIVE
from sessile.replication import messages
from sessile.replication.context import Context
from sessile.replication.directory import Directory
from sessile.replication.events import (
    AddressesFound,
    Answer,
    ChangePushed,
    Dial,
    DialFailed,
    DrawWriter,
    FramesReceived,
    LinkDown,
    LinkUp,
    PullAsked,
    SessionTouched,
    StopAsked,
)
from sessile.replication.intake import DENIALS, Intake
from sessile.replication.links import Links
from sessile.replication.membership import Membership, Standing
from sessile.replication.messages import Beat, Goodbye, Hello, MemberInfo, Members, Rejoin
from sessile.replication.placement import Placement
from sessile.replication.pulls import Pulls
from sessile.replication.pulse import Pulse
from sessile.replication.pushes import Pushes
from sessile.replication.repair import Repair
from sessile.replication.tombstones import PATIENCE_MS, Tombstones
from sessile.replication.touches import Touches
from sessile.replication.wire import decode

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from random import Random

    from sessile.record import Record
    from sessile.replication.config import NodeConfig
    from sessile.replication.events import Effect, Input
    from sessile.replication.messages import Message
    from sessile.replication.peer import Peer
    from sessile.table import Table
    from sessile.token import SessionKey

__all__ = ["Node"]

DRAIN_PAUSE_MS: Final = 20
ANSWERED_MS: Final = 10
"""For this long after an answer, the same request may push another change, as a rotation does."""


class Node:
    """A member.

    Args:
        config: its name, address, timings and limits.
        table: the sessions held here, shared with the engine.
        rng: random numbers, to spread what must not happen on all nodes at once.
        now_ms: the time.
        waiting_bytes: returns how many bytes sent on a link have not left this process.
    """

    def __init__(
        self,
        config: NodeConfig,
        table: Table,
        *,
        rng: Random,
        now_ms: int,
        waiting_bytes: Callable[[int], int] = lambda _: 0,
    ) -> None:
        me = MemberInfo(config.name, config.host, config.incarnation, serves=config.serves)
        self._config = config
        self._membership = Membership(me, config.timings, rng)
        self._placeable = self._membership.placeable()
        placement = Placement(config.name, self._placeable, config.copies_or_all)
        self._context = context = Context(
            config, table, self._membership, placement, rng=rng, now_ms=now_ms, waiting_bytes=waiting_bytes
        )
        self.counts: Counter[str] = context.counts
        self.directory = Directory(context)
        self._tombstones = Tombstones(context, self._changed, self._trust)
        self._pulls = Pulls(
            context, adopt=self._adopt, look=self.directory.look, ended=self._tombstones.telling.learned
        )
        self._pushes = Pushes(context, self._drop)
        table.may_forget = self._may_forget
        # A member that comes back must be sent the ends.
        table.keeps_tombstones = lambda: not self._membership.is_whole()
        self._touches = Touches(context)
        self._repair = Repair(
            context,
            drop=self._drop,
            is_open=self._pushes.is_open,
            confirmed=self._pushes.confirmed_by_repair,
            look=self.directory.look,
            touches=self._touches,
        )
        self._intake = Intake(context, self._changed)
        self._links = Links(context, self)
        self._pulse = Pulse(config.timings, now_ms)
        self._woken_ms = self._read_ms = now_ms
        """The times of the last two `Woken` events. What arrived before `_read_ms`, the earlier, has been handled."""
        self._stopping: int | None = None
        self._born_ms = now_ms
        """When this node started, or started over."""
        self._has_left = False
        """Whether it has sent a `Goodbye` to a peer."""
        self._handlers: dict[type[Message], Callable[[Peer, object], None]] = self._message_handlers()
        context.alarm(config.timings.beat_every_ms, self._beat)

    # -- for the engine and the runtime -------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._config.name

    @property
    def placement(self) -> Placement:
        """Who holds which session, as this node sees it now."""
        return self._context.placement

    @property
    def membership(self) -> Membership:
        return self._membership

    @property
    def is_trusting(self) -> bool:
        """Whether copies that are held here may be served if no other holder answers."""
        return self._pulse.is_trusted and self._context.is_settled_in

    def has_stopped(self, now_ms: int) -> bool:
        """Whether this node's last beat is older than its lease; any thread may call this."""
        return now_ms >= self._pulse.ends_ms

    @property
    def end_timeout_ms(self) -> int:
        """The shortest time that an end waits for confirmations."""
        return self._config.end_timeout_ms

    @property
    def is_leaving(self) -> bool:
        return self._context.is_leaving

    def is_sure(self, key: SessionKey, now_ms: int) -> bool:
        """Whether a copy held here may be served without asking another holder: this node is a holder and has its lease.

        Any thread may call this, whether or not the node's loop runs.
        """
        is_certain = self._context.is_settled_in and now_ms < self._pulse.sure_until_ms
        return is_certain and self._context.placement.is_holder(key)

    def is_settled(self, key: SessionKey) -> bool:
        """Whether everything that this node wrote to the session is held as `ack` demands."""
        return self._pushes.is_settled(key)

    def is_confirmed(self, key: SessionKey) -> bool:
        """Whether another node is known to hold everything that this one wrote to the session."""
        return self._pushes.is_confirmed(key)

    def _may_forget(self, key: SessionKey) -> bool:
        """Whether every member that must hold the end of a session has confirmed it, so that the tombstone may go."""
        return not self._pushes.is_open(key)

    @property
    def peers(self) -> dict[str, Peer]:
        """The linked nodes, by name."""
        return self._context.peers

    def is_greeting(self, link: int) -> bool:
        """Whether the other side of a link has not greeted yet."""
        return self._links.is_greeting(link)

    @property
    def waiting(self) -> dict[str, int]:
        """How much is under way: questions, changes, and unacknowledged bytes to peers."""
        outstanding = sum(peer.outstanding_bytes for peer in self._context.peers.values())
        return {"pulls": len(self._pulls), "pushes": len(self._pushes), "outstanding_bytes": outstanding}

    def next_wakeup(self, now_ms: int) -> int | None:
        """When to call `handle` with `Woken`, unless another event comes first."""
        times = [self._context.next_alarm_ms, self._membership.next_wakeup(now_ms)]
        return min((time_ms for time_ms in times if time_ms is not None), default=None)

    def handle(self, event: Input, now_ms: int) -> list[Effect]:
        """Handle an event. Returns the effects to carry out."""
        context = self._context
        context.now_ms = now_ms = max(now_ms, context.now_ms)
        if now_ms >= self._pulse.ends_ms:  # checked first: a beat would hide the absence, and answers depend on it
            self._was_away()
        match event:
            case FramesReceived():
                self._receive(event)
            case ChangePushed():
                self._links.is_fresh = False
                if event.change.__class__ is Ended:
                    self._tombstones.telling.learned(event.key)
                self._pushes.push(event.ticket, event.key, event.change, event.ack)
                self.directory.look(event.key)
                self._pulls.forget(event.key)
            case PullAsked():
                self._pulls.ask(event.ticket, event.key, event.heads)
            case SessionTouched():
                self._touches.touch(event.key, event.touched_ms)
                self._pulls.touch(event.key, event.touched_ms)
            case LinkUp():
                self._links.up(event.link, event.address)
            case LinkDown():
                self._links.down(event.link)
            case DialFailed():
                self._membership.dial_failed(event.address, event.is_refused, now_ms)
            case AddressesFound():
                self._membership.find(event.addresses, now_ms)
            case StopAsked():
                self._stop(event.ticket)
            case _:  # Woken
                self._read_ms, self._woken_ms = self._woken_ms, now_ms
        context.ring()
        self._look_around()
        self._settle_in()
        return context.take_effects()

    def _settle_in(self) -> None:
        """Decide whether this new node may serve and answer by itself.

        It may hold copies before it is linked to every member. A member that is not linked to it may end such a session without
        sending it the end. So until it is linked to every member that it knows of, it asks before it serves a copy, and
        confirms no end to its engine. Of two nodes that do not know each other, one finds the other in the first member list
        that it gets. It also asks before it serves a copy until all linked members have sent it their ends, which may be a
        long list.
        """
        context = self._context
        if context.is_settled_in:
            return
        if not context.has_met_all:
            is_late = context.now_ms - self._born_ms > PATIENCE_MS
            if not is_late and self._membership.has_missing(context.now_ms):
                return
            context.has_met_all = True
            self._pushes.send_lacking()
        context.is_settled_in = self._tombstones.have_told(self._born_ms)

    # -- links -------------------------------------------------------------------------------------------------------

    def _receive(self, event: FramesReceived) -> None:
        context, links = self._context, self._links
        link, frames = event.link, event.frames
        try:
            if links.is_greeting(link) and frames:
                links.greeted(link, frames[0])
                frames = frames[1:]
            peer = links.peer(link)
            if peer is None:
                return
            self._membership.heard(link, context.now_ms)
            for frame in frames:
                message = decode(frame)
                self._handlers[type(message)](peer, message)
                if links.peer(link) is not peer:
                    return
            self._intake.acknowledge(peer)
        except (WireError, RecordError, ValueError) as error:
            context.counts["protocol_errors"] += 1
            context.note("protocol error", link=link, problem=str(error)[:200])
            links.hang_up(link, str(error)[:200])

    def peer_came(self, peer: Peer, hello: Hello) -> None:
        """Greetings are exchanged: send the peer the member list and what it lacks, and compare copies."""
        self._membership.merge(hello.members, self._context.now_ms)
        self._context.send(peer, Members(self._membership.infos()))
        self._tombstones.greeted(peer)
        self.directory.greeted(peer)
        if peer.is_fresh:
            self._touches.begins_empty(peer.name)
            self._repair.seed(peer)
        self._repair.start()
        self._look_around()
        self._touches.linked(peer)
        self._pushes.send_lacking()
        self._pulls.peers_changed()

    def peer_went(self, peer: Peer) -> None:
        """A link was lost. What was sent over it and not acknowledged may not have arrived."""
        self._tombstones.link_lost(peer)
        self._context.handed.clear()
        self._repair.link_lost(peer.name)
        self._pulls.link_lost(peer.name)
        self._pushes.link_lost(peer.name)
        self._pushes.send_lacking()
        self._pulls.peers_changed()

    def peer_restarted(self, name: str) -> None:
        self._touches.forget(name)
        self._pushes.restarted(name)

    def start_over(self, side: tuple[str, ...]) -> None:
        """Drop every live session and greet every peer anew, as after a restart: from now on the copies of `side` count.

        Ends are kept, and sent to every peer when it greets.
        """
        context = self._context
        context.note("starting over", sessions=len(context.replica.table), side=side)
        context.replica.clear()
        # An open request may write to a session that ended on the other side.
        context.has_met_all = context.is_settled_in = False
        self._born_ms = context.now_ms
        self._tombstones.start_over()
        self._pulls.clear()
        context.do(DrawWriter())
        self._links.is_fresh = True
        self._membership.renew(side)
        self.directory.view_changed()
        self._links.hang_up_all("starting over")

    # -- members -----------------------------------------------------------------------------------------------------

    def _look_around(self) -> None:
        """Dial members and hang up silent links as the membership demands, and react to changes of members and placement."""
        context = self._context
        steps = self._membership.tick(context.now_ms, self._read_ms)
        for link in steps.hang_up:
            self._links.hang_up(link, "silent for too long")
        for address in steps.dial:
            context.do(Dial(address))
        if self._membership.take_news():
            self._tell_members()
        placeable = self._membership.placeable()
        changes = self._membership.take_changes()
        if placeable is self._placeable and not changes:  # almost always
            return
        self._placeable = placeable
        placement = context.placement
        fresh = Placement(self.name, placeable, self._config.copies_or_all)
        if fresh != placement:
            context.placement = fresh
            context.counts["view_changes"] += 1
        for name, before, after in changes:
            context.note("member", name=name, before=before.name.lower(), after=after.name.lower())
            if after in {Standing.DEAD, Standing.LEFT}:
                self.directory.gone(name)
                self._tombstones.gone(name)
        if context.placement is not placement:
            self._context.handed.clear()
            self._touches.view_changed()
            self.directory.view_changed()
            self._repair.start()
        if changes or context.placement is not placement:
            self._pushes.send_lacking()
            self._pulls.peers_changed()

    def _tell_members(self) -> None:
        for peer in self._context.peers.values():
            self._context.send(peer, Members(self._membership.infos()))

    def _beat(self) -> None:
        """Send every peer a beat, even one that has just been sent something else: the lease needs one time for all peers."""
        context = self._context
        for peer in context.peers.values():
            context.send(peer, Beat(context.placement.number))
        self._pulse.beat(context.now_ms)
        context.alarm(self._config.timings.beat_every_ms, self._beat)

    def _was_away(self) -> None:
        """The lease ran out: peers may have answered logouts that this node does not know of."""
        self._pulse.distrust()
        self._membership.was_away(self._context.now_ms)
        self._pulls.was_away()
        self._pushes.was_away()
        self._tombstones.was_away(self._pulse.beaten_ms)

    def _trust(self) -> None:
        """Every member that could be reached has sent its ends: trust the copies here again."""
        if not self._has_left:
            self._pulse.trust()
            self._pulls.is_trusting = True

    # -- messages ----------------------------------------------------------------------------------------------------

    def _message_handlers(self) -> dict[type[Message], Callable[[Peer, object], None]]:
        handlers: dict[type, Callable[..., None]] = {
            messages.Members: self._members,
            messages.Beat: self._beaten,
            messages.Writing: self._writing,
            messages.Changed: self._intake.take_changed,
            messages.Whole: self._whole,
            messages.Told: self._intake.take_told,
            messages.Acked: self._acked,
            messages.Denied: self._denied,
            messages.Pull: self._pulls.take_pull,
            messages.Answered: self._pulls.take_answered,
            messages.Touched: self._intake.take_touched,
            messages.Digest: self._repair.take_digest,
            messages.Differ: self._repair.take_differ,
            messages.Offered: self._repair.take_offered,
            messages.Wanted: self._repair.take_wanted,
            messages.TombstonesAsked: self._tombstones.telling.take_asked,
            messages.TombstonesTold: self._tombstones.take_told,
            messages.Listed: self.directory.take_listed,
            messages.Rejoin: self._rejoin,
            messages.Goodbye: self._goodbye,
        }
        return handlers

    def _beaten(self, peer: Peer, message: Beat) -> None:
        """Do nothing: every message counts as a sign of life, and a beat has no other content."""

    def _rejoin(self, peer: Peer, message: Rejoin) -> None:
        del message
        self.start_over(self._links.side_of(peer))

    def _members(self, peer: Peer, message: Members) -> None:
        del peer
        if self._membership.merge(message.members, self._context.now_ms):
            self._tell_members()

    def _writing(self, peer: Peer, message: messages.Writing) -> None:
        peer.writer = message.writer

    def _acked(self, peer: Peer, message: messages.Acked) -> None:
        for one in peer.take_acked(message.upto, self._context.now_ms):
            one.held()
        if peer.repairing:  # there may be room in the window again
            self._repair.pump(peer)
        if peer.is_overflowed and not peer.outstanding:
            peer.is_overflowed = False
            self._pushes.send_lacking()
            self._repair.start()

    def _denied(self, peer: Peer, message: messages.Denied) -> None:
        if message.why not in DENIALS:
            raise WireError(f"a denial has no reason {message.why}")
        peer.take_denied(message.number).denied(message.why)  # its number is acknowledged as well, which makes room

    def _whole(self, peer: Peer, message: messages.Whole) -> None:
        self._repair.records_came(len(message.items))
        self._intake.take_whole(peer, message)

    def _goodbye(self, peer: Peer, message: Goodbye) -> None:
        del message
        self._membership.said_goodbye(peer.name, self._context.now_ms)

    # -- sessions ----------------------------------------------------------------------------------------------------

    def _changed(self, key: SessionKey, record: Record) -> None:
        """A peer's message has changed a session that is held here."""
        self._links.filled()
        self._pulls.arrived(key)
        self.directory.look(key)
        if record.state != LIVE:
            self._tombstones.telling.learned(key)
            self.counts["ends_learned"] += 1

    def _adopt(self, key: SessionKey, record: Record) -> None:
        """Hold the last copy of a session, and offer it to its holders."""
        context = self._context
        merged = context.replica.merge(key, record, context.now_ms)
        if merged is not None:
            self._changed(key, merged)
            self._repair.start(announces=False)

    def _drop(self, key: SessionKey) -> None:
        """Drop a copy that every holder has, since this node is not one of them."""
        if self._context.is_leaving:  # it may keep the copy until it leaves
            self._context.handed[key] = self._context.replica.table.get(key)
            return
        self._pulls.drop(key)
        self.counts["quiet_drops"] += 1

    # -- leaving -----------------------------------------------------------------------------------------------------

    def _stop(self, ticket: int) -> None:
        context = self._context
        if self._stopping is not None:
            context.do(Answer(ticket, Acknowledged.NO))
            return
        self._stopping = ticket
        context.is_leaving = True
        self._membership.leave()
        self._look_around()
        self._repair.start()
        until_ms = context.now_ms + self._config.drain_ms
        context.alarm(DRAIN_PAUSE_MS, lambda: self._go(until_ms))

    def _go(self, until_ms: int) -> None:
        """Leave if every copy was handed over, no member is left to take them, or the time is over. Else look again later."""
        context = self._context
        assert self._stopping is not None, "a node goes when it was asked to"
        table = context.replica.table
        is_over = self._repair.is_idle and context.now_ms - self._pushes.answered_ms >= ANSWERED_MS
        is_empty = is_over and all(context.handed.get(key) is table.get(key) for key in table)
        is_alone = not context.peers or not context.placement.names
        if is_empty or is_alone or context.now_ms >= until_ms:
            self._touches.flush()
            for peer in context.peers.values():
                context.send(peer, Goodbye())
                self._has_left = True
            if self._has_left:  # from now on peers answer logouts without this node
                self._pulse.distrust()
                self._pulls.is_trusting = False
            context.do(Answer(self._stopping, Acknowledged.YES if is_empty else Acknowledged.NO))
            return
        if self._repair.is_idle:
            self._repair.start()
        context.alarm(DRAIN_PAUSE_MS, lambda: self._go(until_ms))
