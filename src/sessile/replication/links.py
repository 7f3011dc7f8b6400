"""Links and greetings: from a connection that came up to a peer that may be spoken with.

Both sides of a link greet first. Who greets with another protocol, cluster or strategy, under this node's own name, or
writes under a tag that somebody else writes under, is refused. Two nodes keep one link; which one, both decide alike
(`membership.py`).

Two that were apart for nearly as long as ended sessions are remembered, or longer, do not go on as they are, or what ended
could come back: one of them starts over. Both decide alike which, by what they said in their greetings: of the smaller
side, or of two that are equal the one whose names come first. Who has started over takes over what the other side holds,
so it is apart from all that were not of that side, its own mates of before among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from sessile.errors import WireError
from sessile.replication.events import HangUp, Send
from sessile.replication.messages import PROTOCOL, Hello, Rejoin, Writing
from sessile.replication.peer import Peer
from sessile.replication.wire import decode, encode

if TYPE_CHECKING:
    from sessile.replication.context import Context
    from sessile.replication.messages import MemberInfo

__all__ = ["Links"]

GREETING_MS: Final = 2_000
"""A link on which nobody has greeted in so long is hung up."""
FRESH_MS: Final = 1_000
"""A node that was just started is as one that holds nothing: the first that it greets fill it before it greets the last."""
DECIDED_MS: Final = 2_000
"""So long who was told to start over may not have heard of it, and greet as before over another link."""
APART: Final = 0.9
"""So much of the time for which ended sessions are remembered is too long: they must still be told of."""


_Side = tuple[int, tuple[str, ...]]
_Incarnation = tuple[str, int]


class _View(NamedTuple):
    """Whom a node is linked to and whom it is apart from, as its greeting tells."""

    side: _Side
    """How many it is linked to, itself included, and their names."""
    linked: frozenset[_Incarnation]
    apart: frozenset[_Incarnation]

    def is_at_odds(self, other: _View) -> bool:
        """Whether one is linked to a member from which the other is apart."""
        return bool(self.apart & other.linked or other.apart & self.linked)


class _Greeted(NamedTuple):
    """What this node said on a link."""

    address: str
    """What was dialled; empty where the other side did."""
    writer: int
    view: _View


class Owner(Protocol):
    """Whoever hears of peers that come and go."""

    def peer_came(self, peer: Peer, hello: Hello) -> None:
        """Greetings are exchanged with this peer."""

    def peer_went(self, peer: Peer) -> None:
        """The link to this peer is gone, though the peer may not be."""

    def peer_restarted(self, name: str) -> None:
        """It has nothing of what it had; `peer_came` follows."""

    def start_over(self, side: tuple[str, ...]) -> None:
        """Drop the table: this node was apart from these for too long, and takes over what they hold."""


class Links:
    """The links of one node."""

    def __init__(self, context: Context, owner: Owner) -> None:
        self._context = context
        self._owner = owner
        self._greeting: dict[int, _Greeted] = {}
        """Links on which the other side has not greeted yet."""
        self._peers: dict[int, Peer] = {}
        self.is_fresh = True
        """Whether this node holds nothing of its own: it never wrote, and what others sent it, it was sent just now."""
        self._fresh_until_ms = context.now_ms + FRESH_MS
        self._views: dict[str, _View] = {}
        """Each peer, and how it saw the others when it greeted."""
        self._told: dict[str, tuple[int, int]] = {}
        """Who was told to start over: in which incarnation, and until when nothing else is decided."""

    def peer(self, link: int) -> Peer | None:
        """Who is at the other end of a link, once greeted."""
        return self._peers.get(link)

    def filled(self) -> None:
        """Others sent something that is held here now."""
        if self._context.now_ms >= self._fresh_until_ms:
            self.is_fresh = False

    def is_greeting(self, link: int) -> bool:
        return link in self._greeting

    def up(self, link: int, address: str) -> None:
        """A link is there: greet. `address` is what was dialled, empty where the other side did."""
        context = self._context
        membership = context.membership
        members = membership.infos()
        longest_ms = APART * context.config.tombstone_keep_ms
        hello = Hello(
            PROTOCOL,
            context.config.cluster,
            context.config.strategy_text,
            membership.me,
            context.writer,
            self.is_fresh,
            members,
            tuple(place for place, info in enumerate(members) if info.name in context.peers),
            tuple(place for place, info in enumerate(members) if membership.is_apart(info.name, longest_ms)),
        )
        self._greeting[link] = _Greeted(address, context.writer, _view(hello))
        context.do(Send(link, encode(hello)))
        context.alarm(GREETING_MS, lambda: self._expect(link))

    def _expect(self, link: int) -> None:
        if link in self._greeting:
            self._refuse(link, "nobody greeted")

    def _refuse(self, link: int, reason: str) -> None:
        """Have nothing to do with a link."""
        self._context.counts["refused_links"] += 1
        self.hang_up(link, reason)

    def hang_up(self, link: int, reason: str) -> None:
        """Close a link from this side."""
        self._context.do(HangUp(link, reason))
        self.down(link)

    def hang_up_all(self, reason: str) -> None:
        for link in [*self._peers, *self._greeting]:
            self.hang_up(link, reason)

    def down(self, link: int) -> None:
        """A link is gone; one that is not known is no loss."""
        context = self._context
        greeting = self._greeting.pop(link, None)
        if greeting is not None and greeting.address:
            context.membership.dial_failed(greeting.address, False, context.now_ms)
        context.membership.link_down(link, context.now_ms)
        peer = self._peers.pop(link, None)
        if peer is not None and context.peers.get(peer.name) is peer:
            del context.peers[peer.name]
            del self._views[peer.name]
            self._owner.peer_went(peer)

    def greeted(self, link: int, frame: bytes) -> None:
        """The other side says who it is. Raises WireError where it does not."""
        context = self._context
        hello = decode(frame, is_greeting=True)
        assert isinstance(hello, Hello), "decode sees to that"
        reason, remedy = self._why_not(hello)
        if reason:
            context.note("refused", name=hello.me.name, reason=reason, remedy=remedy)
            self._refuse(link, reason)
            return
        theirs = _view(hello)
        mine = self._greeting.pop(link)
        name = hello.me.name
        greeting = context.membership.greet(link, hello.me, address=mine.address, now_ms=context.now_ms)
        if greeting.refusal:
            if greeting.remedy:
                context.note("refused", name=name, reason=greeting.refusal, remedy=greeting.remedy)
            self.hang_up(link, greeting.refusal)
            return
        is_at_odds = not greeting.is_met and mine.view.is_at_odds(theirs)
        if is_at_odds or greeting.silent_ms > APART * context.config.tombstone_keep_ms:
            self._reunite(link, hello.me, mine.view.side, theirs.side)
            if greeting.replaced is not None:
                self.hang_up(greeting.replaced, "another link replaced it")
            return
        if not greeting.is_met and self._is_between(hello.me, theirs):
            self.hang_up(link, "apart from another peer")  # both know of that one when they greet again
            return
        self._views[name] = theirs
        if greeting.is_restarted:
            self._owner.peer_restarted(name)
        peer = context.peers[name] = self._peers[link] = Peer(name, link, hello.writer)
        peer.is_fresh = greeting.is_new and hello.is_fresh
        peer.is_new = greeting.is_new
        if context.writer != mine.writer:
            context.send(peer, Writing(context.writer))
        if greeting.replaced is not None:  # now that what it carried can go over this one: at no time is nobody there
            context.do(HangUp(greeting.replaced, "another link replaces it"))
            self._owner.peer_went(self._peers.pop(greeting.replaced))
        self._owner.peer_came(peer, hello)

    def _is_between(self, they: MemberInfo, theirs: _View) -> bool:
        """Whether who greets and another peer are apart: both greeted when this node was linked to neither."""
        context = self._context
        linked = {_incarnation(info) for info in context.membership.infos() if info.name in context.peers}
        return bool(theirs.apart & linked) or any(_incarnation(they) in view.apart for view in self._views.values())

    def _why_not(self, hello: Hello) -> tuple[str, str]:
        """Why a node that greets like this is none of ours, and what a person does about it; empty if it is."""
        context = self._context
        for what, mine, theirs, remedy in (
            ("protocol", PROTOCOL, hello.protocol, "run the same release on every server"),
            ("cluster", context.config.cluster, hello.cluster, "give every server the same cluster="),
            ("strategy", context.config.strategy_text, hello.strategy, "give every server the same url= and copies="),
        ):
            if mine != theirs:
                return f"its {what} is {theirs!r}, not {mine!r}"[:200], remedy
        others = {peer.writer for peer in context.peers.values() if peer.name != hello.me.name} | {context.writer}
        if hello.writer and hello.writer in others:
            return "it writes under a tag that another node writes under", "start it again"
        return "", ""

    def side_of(self, peer: Peer) -> tuple[str, ...]:
        """A peer, and whom it was linked to when it greeted."""
        return self._views[peer.name].side[1]

    def _reunite(self, link: int, they: MemberInfo, mine: _Side, theirs: _Side) -> None:
        """Two that were apart for too long: the one of the smaller side starts over."""
        context = self._context
        context.counts["reunions"] += 1
        incarnation, until_ms = self._told.get(they.name, (0, 0))
        is_decided = incarnation == they.incarnation and context.now_ms < until_ms
        if mine < theirs and not is_decided:
            self._told.clear()
            self._owner.start_over(theirs[1])
        else:
            if not is_decided:
                self._told = {name: told for name, told in self._told.items() if context.now_ms < told[1]}
                self._told[they.name] = they.incarnation, context.now_ms + DECIDED_MS
            context.do(Send(link, encode(Rejoin())))
        self.hang_up(link, "apart for longer than ended sessions are remembered")


def _view(hello: Hello) -> _View:
    """How who greets sees the others. Raises WireError where it tells of members that it does not name."""
    members = hello.members
    if not all(0 <= place < len(members) for place in (*hello.links, *hello.apart)):
        raise WireError("a greeting tells of links to members that it does not name")
    linked = frozenset(_incarnation(info) for info in (hello.me, *(members[place] for place in hello.links)))
    names = sorted({name for name, _ in linked})
    return _View((len(names), tuple(names)), linked, frozenset(_incarnation(members[place]) for place in hello.apart))


def _incarnation(info: MemberInfo) -> _Incarnation:
    return info.name, info.incarnation
