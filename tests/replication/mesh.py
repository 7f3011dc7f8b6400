"""Memberships that talk: nothing but greetings, lists, beats and goodbyes, all of them encoded and decoded.

Time passes in steps of one millisecond. A node that is `paused` does nothing; `cut` pairs hear nothing of each other, and
nobody is told; `kill` closes every link of a node, and dials to it are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from sessile.replication.member import Timings
from sessile.replication.membership import Membership
from sessile.replication.messages import PROTOCOL, Beat, Goodbye, Hello, MemberInfo, Members
from sessile.replication.wire import Frames, decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sessile.replication.membership import Change
    from sessile.replication.messages import Message

__all__ = ["Mesh", "Node"]


@dataclass
class Node:
    """A membership, and the ends of its links."""

    membership: Membership
    far: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Own link → the other node and its link."""
    dialled: dict[int, str] = field(default_factory=dict)
    frames: dict[int, Frames] = field(default_factory=dict)
    greeted: set[int] = field(default_factory=set)
    changes: list[Change] = field(default_factory=list)
    beat_ms: int = 0
    is_paused: bool = False


class Mesh:
    """Some nodes; `at` says which address leads to which of them, where it is not their name."""

    def __init__(self, names: Iterable[str], *, seeds: Iterable[str] = "", at: dict[str, str] | None = None) -> None:
        self.now_ms = 1_000_000
        self.nodes: dict[str, Node] = {}
        self.cuts: set[frozenset[str]] = set()
        self.dials: list[tuple[str, str]] = []
        self.at = at or {}
        self._wire: list[tuple[int, int, str, int, bytes | None]] = []
        self._sent = 0
        self._links = 0
        for name in names:
            self.start(name, tuple(seeds) or tuple(names))

    def start(self, name: str, seeds: Iterable[str], *, incarnation: int = 1) -> Membership:
        membership = Membership(MemberInfo(name, f"host-{name}", incarnation), Timings(), Random(name))
        self.nodes[name] = Node(membership)
        membership.find(seeds, self.now_ms)
        return membership

    def __getitem__(self, name: str) -> Membership:
        return self.nodes[name].membership

    # -- what goes wrong -------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        for other, link in self.nodes.pop(name).far.values():
            self._post(other, link, None)

    def cut(self, one: str, other: str) -> None:
        self.cuts.add(frozenset((one, other)))

    def close(self, one: str, other: str) -> None:
        """Every link between these two breaks."""
        for link, (name, theirs) in list(self.nodes[one].far.items()):
            if name == other:
                self._down(one, link)
                self._down(other, theirs)

    def leave(self, name: str) -> None:
        self[name].leave()
        self._tell(name)

    def goodbye(self, name: str) -> None:
        for link in self.nodes[name].greeted:
            self._send(name, link, Goodbye())

    # -- time --------------------------------------------------------------------------------------------------------

    def run(self, ms: int) -> None:
        for _ in range(ms):
            self.now_ms += 1
            due = [one for one in self._wire if one[0] <= self.now_ms]
            self._wire = [one for one in self._wire if one[0] > self.now_ms]
            for _, number, name, link, data in sorted(due, key=lambda one: one[1]):
                self._arrive(number, name, link, data)
            for name, node in list(self.nodes.items()):
                if not node.is_paused:
                    self._turn(name, node)

    def _wake(self, node: Node) -> None:
        """Whoever comes back from a pause knows it before anything else."""
        if self.now_ms - node.beat_ms >= Timings().lease_ms:
            node.membership.was_away(self.now_ms)

    def _turn(self, name: str, node: Node) -> None:
        self._wake(node)
        if self.now_ms - node.beat_ms >= 250:
            node.beat_ms = self.now_ms
            for link in node.greeted:
                self._send(name, link, Beat(0))
        due_ms = node.membership.next_wakeup(self.now_ms)
        if due_ms is None or due_ms > self.now_ms:
            return
        steps = node.membership.tick(self.now_ms)
        for link in steps.hang_up:
            self._hang_up(name, link)
        for address in steps.dial:
            self._dial(name, address)
        node.changes += node.membership.take_changes()

    def _dial(self, name: str, address: str) -> None:
        self.dials.append((name, address))
        target = self.at.get(address, address)
        other = self.nodes.get(target)
        if other is None:
            self[name].dial_failed(address, True, self.now_ms)
        elif other.is_paused or frozenset((name, target)) in self.cuts:
            self[name].dial_failed(address, False, self.now_ms)
        else:
            ours, theirs = self._links + 1, self._links + 2
            self._links += 2
            node = self.nodes[name]
            node.far[ours], node.frames[ours], node.dialled[ours] = (target, theirs), Frames(), address
            other.far[theirs], other.frames[theirs] = (name, ours), Frames()
            for one, link in ((name, ours), (target, theirs)):
                membership = self[one]
                hello = Hello(PROTOCOL, "", "", membership.me, 0, True, membership.infos())
                self._send(one, link, hello)

    def _send(self, name: str, link: int, message: Message) -> None:
        other, theirs = self.nodes[name].far[link]
        self._post(other, theirs, encode(message))

    def _post(self, name: str, link: int, data: bytes | None) -> None:
        self._sent += 1
        self._wire.append((self.now_ms + 1, self._sent, name, link, data))

    def _arrive(self, number: int, name: str, link: int, data: bytes | None) -> None:
        node = self.nodes.get(name)
        if node is None or link not in node.far:
            return
        if node.is_paused or frozenset((name, node.far[link][0])) in self.cuts:
            self._wire.append((self.now_ms + 1, number, name, link, data))  # in order, once it can
            return
        self._wake(node)
        if data is None:
            self._down(name, link)
            return
        for frame in node.frames[link].feed(data):
            self._take(name, node, link, decode(frame, is_greeting=link not in node.greeted))

    def _take(self, name: str, node: Node, link: int, message: Message) -> None:
        membership = node.membership
        match message:
            case Hello():
                address = node.dialled.pop(link, "")
                greeting = membership.greet(link, message.me, address=address, now_ms=self.now_ms)
                if greeting.refusal:
                    self._hang_up(name, link)
                    return
                if greeting.replaced is not None:
                    self._hang_up(name, greeting.replaced)
                node.greeted.add(link)
                if membership.merge(message.members, self.now_ms):
                    self._tell(name)
            case Members():
                if membership.merge(message.members, self.now_ms):
                    self._tell(name)
            case Goodbye():
                membership.said_goodbye(membership.name_of(link) or "", self.now_ms)
            case _:
                pass
        membership.heard(link, self.now_ms)

    def _tell(self, name: str) -> None:
        for link in self.nodes[name].greeted:
            self._send(name, link, Members(self[name].infos()))

    def _hang_up(self, name: str, link: int) -> None:
        far = self.nodes[name].far.get(link)
        self._down(name, link)
        if far is not None:
            self._post(*far, None)

    def _down(self, name: str, link: int) -> None:
        node = self.nodes[name]
        node.far.pop(link, None)
        node.greeted.discard(link)
        address = node.dialled.pop(link, "")
        if address:  # nobody greeted
            node.membership.dial_failed(address, False, self.now_ms)
        node.membership.link_down(link, self.now_ms)
