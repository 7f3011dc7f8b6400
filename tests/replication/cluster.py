"""Real nodes joined by links in memory: every message is encoded, cut into frames and decoded; time passes when told to.

A link is a pair of queues. `run` delivers what is in them and wakes nodes until so many milliseconds have passed. Links can
be cut (nothing arrives, nobody is told), closed (both are told) and healed; nodes can be killed, stopped for a while, and
started anew. No clock, no sleeping, no chance but the seeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from sessile import codec
from sessile.backend import Acknowledged, Change, Ended, Pulled, Whole
from sessile.delta import Delta
from sessile.record import ENDED, Heads, Record
from sessile.replication.config import NodeConfig
from sessile.replication.events import (
    AddressesFound,
    Answer,
    ChangePushed,
    Dial,
    DialFailed,
    FramesReceived,
    HangUp,
    LinkDown,
    LinkUp,
    PullAsked,
    Send,
    SessionTouched,
    StopAsked,
    Woken,
)
from sessile.replication.node import Node
from sessile.replication.wire import Frames, decode
from sessile.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessile.replication.events import Effect, Input
    from sessile.replication.messages import Message
    from sessile.token import SessionKey

__all__ = ["Cluster", "Server", "fields_of", "key_number"]

START_MS = 1_000_000


def key_number(number: int) -> SessionKey:
    """A key, spread over the buckets as real ones are."""
    return Random(number).randbytes(16)


def fields_of(record: Record | None) -> dict[str, Any]:
    """What a handler would see of a record."""
    if record is None:
        return {}
    return {name: codec.decode(record.fields[name].value) for name in record.names() if record.fields[name].value}


@dataclass
class Server:
    """One node, its table, and what it is in the middle of."""

    name: str
    node: Node
    table: Table
    writer: int
    links: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Own link → the other server and its link."""
    frames: dict[int, Frames] = field(default_factory=dict)
    answers: dict[int, Pulled | Acknowledged] = field(default_factory=dict)
    notes: list[Effect] = field(default_factory=list)
    is_stopped: bool = False
    tickets: int = 0


class Cluster:
    """So many servers, all linked unless told otherwise."""

    def __init__(self, names: str = "abc", *, delay_ms: int = 1, starts: bool = True, **config: Any) -> None:
        self.now_ms = START_MS
        self.config = {"pull_timeout_ms": 250, **config}  # less than a silent server is waited for
        self.delay_ms = delay_ms
        self.servers: dict[str, Server] = {}
        self.cuts: set[frozenset[str]] = set()
        self.seen: list[tuple[str, str, Message]] = []
        """Every message that arrived: from, to, what."""
        self.mangle: Callable[[str, str, Message], bool] = lambda source, target, message: False
        """Says of a message whether it is lost on its way, though its link lives."""
        self._addresses = tuple(names)
        self._links = 0
        self._queue: list[tuple[int, int, str, int, bytes | None]] = []
        self._sent = 0
        for name in names:
            self.start(name)
        if starts:
            self.run(500)

    # -- servers -----------------------------------------------------------------------------------------------------

    def start(self, name: str, *, incarnation: int = 1) -> Server:
        config = NodeConfig(name=name, host=f"host-{name}", incarnation=incarnation, **self.config)
        keep_ms = config.tombstone_keep_ms
        table = Table(sessions_max=10_000, bytes_max=2**30, rotation_grace_ms=10_000, tombstone_keep_ms=keep_ms)
        node = Node(config, table, rng=Random(name), now_ms=self.now_ms)
        writer = sum(name.encode()) * 1_000 + incarnation
        server = self.servers[name] = Server(name, node, table, writer)
        self.handle(name, AddressesFound(self._addresses))
        return server

    def kill(self, name: str) -> None:
        """Its process is gone: whoever is linked to it hears of it, and dials are refused."""
        server = self.servers.pop(name)
        for other, link in list(server.links.values()):
            if other in self.servers and link in self.servers[other].links:
                del self.servers[other].links[link]
                self.handle(other, LinkDown(link))

    def cut(self, *sides: str) -> None:
        """No frame passes between servers of different sides, and nobody is told."""
        self.cuts |= {frozenset((a, b)) for one in sides for other in sides if one != other for a in one for b in other}

    def heal(self) -> None:
        self.cuts.clear()

    def close(self, one: str, other: str) -> None:
        """Their link breaks."""
        for link, (name, theirs) in list(self.servers[one].links.items()):
            if name == other:
                self._forget(one, link)
                self._forget(other, theirs)
                self.handle(one, LinkDown(link))
                self.handle(other, LinkDown(theirs))

    def dial(self, one: str, other: str) -> None:
        """One more link between them, dialled by the first."""
        self._dial(self.servers[one], other)

    def _forget(self, name: str, link: int) -> None:
        if name in self.servers:
            self.servers[name].links.pop(link, None)

    # -- time --------------------------------------------------------------------------------------------------------

    def run(self, ms: int) -> None:
        """Let so many milliseconds pass."""
        until_ms = self.now_ms + ms
        while self.now_ms < until_ms:
            self.now_ms += 1
            due = [one for one in self._queue if one[0] <= self.now_ms]
            self._queue = [one for one in self._queue if one[0] > self.now_ms]
            for at_ms, number, name, link, data in sorted(due, key=lambda one: one[:2]):
                self._deliver(at_ms, number, name, link, data)
            for name, server in list(self.servers.items()):
                if server.is_stopped:
                    continue
                wakeup_ms = server.node.next_wakeup(self.now_ms)
                if wakeup_ms is not None and wakeup_ms <= self.now_ms:
                    self.handle(name, Woken())

    def _deliver(self, at_ms: int, number: int, name: str, link: int, data: bytes | None) -> None:
        server = self.servers.get(name)
        if server is None or link not in server.links:
            return
        other, _ = server.links[link]
        if server.is_stopped or frozenset((name, other)) in self.cuts:
            self._queue.append((self.now_ms + 1, number, name, link, data))  # it waits in the network
            return
        if data is None:
            server.links.pop(link)
            self.handle(name, LinkDown(link))
            return
        frames = server.frames[link].feed(data)
        kept = []
        for frame in frames:
            message = decode(frame, is_greeting=frame[1] == 1)
            self.seen.append((other, name, message))
            if not self.mangle(other, name, message):
                kept.append(frame)
        if kept:
            self.handle(name, FramesReceived(link, tuple(kept)))

    def handle(self, name: str, event: Input) -> None:
        server = self.servers[name]
        effects = server.node.handle(event, self.now_ms)
        server.node.next_wakeup(self.now_ms)  # whoever runs a node asks at once, and comes back then if it can
        for effect in effects:
            self._perform(server, effect)

    def _perform(self, server: Server, effect: Effect) -> None:
        match effect:
            case Send(link, frame):
                if link in server.links:
                    other, theirs = server.links[link]
                    self._send(other, theirs, frame)
            case Dial(address):
                self._dial(server, address)
            case HangUp(link, _):
                if link in server.links:
                    other, theirs = server.links.pop(link)
                    self._send(other, theirs, None)
            case Answer(ticket, result):
                assert ticket not in server.answers, "a ticket is answered once"
                server.answers[ticket] = result
            case _:
                server.notes.append(effect)

    def _send(self, name: str, link: int, data: bytes | None) -> None:
        self._sent += 1
        self._queue.append((self.now_ms + self.delay_ms, self._sent, name, link, data))

    def _dial(self, server: Server, address: str) -> None:
        other = self.servers.get(address)
        if other is None or other is server:
            self.handle(server.name, DialFailed(address, is_refused=True))
        elif frozenset((server.name, address)) in self.cuts or other.is_stopped:
            self.handle(server.name, DialFailed(address))
        else:
            ours, theirs = self._links + 1, self._links + 2
            self._links += 2
            server.links[ours], server.frames[ours] = (other.name, theirs), Frames()
            other.links[theirs], other.frames[theirs] = (server.name, ours), Frames()
            self.handle(server.name, LinkUp(ours, address))
            self.handle(other.name, LinkUp(theirs))

    # -- what an engine would do -------------------------------------------------------------------------------------

    def create(self, name: str, key: SessionKey, *, ack: str = "one", **values: Any) -> int:
        """A new session with these values; returns the ticket."""
        server = self.servers[name]
        born = Record.create(now_ms=self.now_ms, idle_ms=1_800_000, deadline_ms=self.now_ms + 40_000_000)
        record, _ = born.write(server.writer, _encoded(values), now_ms=self.now_ms)
        server.table.put(key, record)
        return self.push(name, key, Whole(key, record), ack)

    def write(self, name: str, key: SessionKey, *, ack: str = "one", **values: Any) -> int:
        """A write to what the server holds; returns the ticket."""
        server = self.servers[name]
        held = self.held(name, key)
        assert held is not None, f"{name} holds no {key.hex()}"
        record, stamp = held.write(server.writer, _encoded(values), now_ms=self.now_ms)
        server.table.put(key, record)
        return self.push(name, key, Delta.of(record, key, held, stamp, names=values, counted=()), ack)

    def end(self, name: str, key: SessionKey, *, ack: str = "one") -> int:
        held = self.held(name, key)
        assert held is not None, f"{name} holds no {key.hex()}"
        ended = held.end(ENDED, self.now_ms)
        self.servers[name].table.put(key, ended)
        return self.push(name, key, Ended(key, ended), ack)

    def push(self, name: str, key: SessionKey, change: Change | None, ack: str = "one") -> int:
        return self._ask(name, lambda ticket: ChangePushed(ticket, key, change, ack))

    def pull(self, name: str, key: SessionKey, heads: Heads = ()) -> int:
        return self._ask(name, lambda ticket: PullAsked(ticket, key, heads))

    def stop(self, name: str) -> int:
        return self._ask(name, StopAsked)

    def touch(self, name: str, key: SessionKey) -> None:
        held = self.held(name, key)
        assert held is not None, f"{name} holds no {key.hex()}"
        self.servers[name].table.put(key, held.touch(self.now_ms), is_touch=True)
        self.handle(name, SessionTouched(key, self.now_ms))

    def _ask(self, name: str, event: Callable[[int], Input]) -> int:
        server = self.servers[name]
        server.tickets += 1
        self.handle(name, event(server.tickets))
        return server.tickets

    def answer(self, name: str, ticket: int) -> Pulled | Acknowledged | None:
        """What the ticket was answered with; None if it was not yet."""
        return self.servers[name].answers.get(ticket)

    def asked(self, name: str, key: SessionKey, heads: Heads = (), *, within_ms: int = 400) -> Pulled:
        """A pull, run to its end."""
        ticket = self.pull(name, key, heads)
        for _ in range(within_ms):
            answer = self.answer(name, ticket)
            if answer is not None:
                assert isinstance(answer, Pulled)
                return answer
            self.run(1)
        raise AssertionError(f"{name} did not hear of {key.hex()} within {within_ms} ms")

    # -- looking -----------------------------------------------------------------------------------------------------

    def held(self, name: str, key: SessionKey) -> Record | None:
        packed = self.servers[name].table.get(key)
        return None if packed is None else Record.unpack(packed)

    def values(self, key: SessionKey) -> dict[str, dict[str, Any]]:
        """What each server that holds the session has in it."""
        return {name: fields_of(self.held(name, key)) for name in self.servers if self.held(name, key) is not None}

    def messages(self, kind: type[Any], source: str = "", target: str = "") -> Iterator[Any]:
        """The messages of a kind that arrived, between these servers if they are named."""
        for one, other, message in self.seen:
            if isinstance(message, kind) and source in {"", one} and target in {"", other}:
                yield message

    def first_key(self, name: str, *, start: int = 0) -> SessionKey:
        """A key whose first holder is this server."""
        placement = next(iter(self.servers.values())).node.placement
        return next(key_number(n) for n in range(start, start + 10_000) if placement.order(key_number(n))[0] == name)


def _encoded(values: dict[str, Any]) -> dict[str, bytes]:
    return {name: codec.encode(value) for name, value in values.items()}
