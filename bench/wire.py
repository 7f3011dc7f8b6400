"""What messages take on the wire, and what a node makes of frames that nobody sane sends.

`sizes` frames one of each kind as it is sent. `fuzz` feeds a node random, mutated, cut and repeated frames over links that
have greeted, in several processes: at the most a link is closed; nothing is raised, and nothing grows. Its judge is shown to
work by a node that is broken on purpose (tests/bench/test_wire.py).
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from bench import memory
from sessile import codec
from sessile.record import Record, Stamp
from sessile.replication import messages
from sessile.replication.config import NodeConfig
from sessile.replication.events import FramesReceived, HangUp, LinkDown, LinkUp, Woken
from sessile.replication.messages import PROTOCOL, Changed, Hello, MemberInfo
from sessile.replication.node import Node
from sessile.replication.wire import FRAME_BYTES_MAX, LENGTH_BYTES, Frames, encode
from sessile.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessile.replication.messages import Message

__all__ = ["Fuzzed", "examples", "fuzz", "fuzz_one", "growth", "sizes"]

KEY = bytes(range(16))
WRITER = 2**47 + 12_345
STRANGER = MemberInfo("10.0.0.2:7400", "10.0.0.2", 1)
BYTES_MAX = 2**20
"""What the node under test may hold."""


def make_record() -> Record:
    born = Record.create(now_ms=1_000, idle_ms=1_800_000, deadline_ms=43_000_000)
    return born.write(WRITER, {"note": codec.encode("x" * 100)}, now_ms=1_000)[0]


def examples() -> dict[str, Message]:
    """One of each kind, as a session with one field of 100 characters brings it about."""
    record = make_record()
    items = ((KEY, record.pack()),)
    heads = (Stamp(300, WRITER),)
    hello = Hello(
        PROTOCOL, "sessile", "primary-backup:2", STRANGER, WRITER, is_fresh=False, members=(STRANGER,), links=(0,)
    )
    return {
        "Changed: 100 characters": Changed(KEY, 300, 0, 1, {"note": codec.encode("x" * 100)}),
        "Changed: an integer": Changed(KEY, 300, 0, 1, {"visits": codec.encode(1_000)}),
        "Changed: an increment": Changed(KEY, 300, 0, 1, {}, {"visits": (0, 0, 1_000)}),
        "Changed: by a writer not announced, on another's": Changed(
            KEY, 300, WRITER, heads, {"note": codec.encode("x" * 100)}
        ),
        "Whole": messages.Whole(1_000, items),
        "Told": messages.Told(1_000, items),
        "Acked": messages.Acked(70_000),
        "Denied": messages.Denied(70_000, KEY, 0),
        "Pull": messages.Pull(300, KEY, heads, {WRITER: 300}),
        "Pull: nothing held": messages.Pull(300, KEY, heads),
        "Answered: current": messages.Answered(300, 0, 1_000, record.times().pack()),
        "Answered: nothing here": messages.Answered(300, 2, 1_000, b""),
        "Touched": messages.Touched(((KEY, 300),)),
        "Writing": messages.Writing(WRITER),
        "Beat": messages.Beat(300),
        "Hello": hello,
        "Members": messages.Members((STRANGER,)),
        "Digest": messages.Digest(bytes(2_048)),
        "Differ: one bucket": messages.Differ(b"\x01"),
        "Offered: one session": messages.Offered(300, bytes(24)),
        "Wanted: one session": messages.Wanted(300, KEY),
        "TombstonesAsked": messages.TombstonesAsked(),
        "TombstonesTold: one": messages.TombstonesTold(1_000, ((KEY, record.end(2, 1_000).pack()),), is_last=True),
        "Listed: one session": messages.Listed(is_all=False, came=KEY, went=b""),
        "Rejoin": messages.Rejoin(),
        "Goodbye": messages.Goodbye(),
    }


def sizes() -> dict[str, int]:
    """Bytes of each example, framed."""
    return {name: len(encode(message)) for name, message in examples().items()}


@dataclass
class Fuzzed:
    """What came of the frames of one process."""

    frames: int = 0
    hung_up: int = 0
    accepted: int = 0
    """Frames that were messages after all."""
    raised: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    resident_growth: int = 0
    """Bytes of resident memory gained in the last three quarters of the frames; of several processes the most."""
    grown: dict[str, int] = field(default_factory=dict)
    """What the node holds at the end beyond its limits; empty when all is as it should be."""


class _Target:
    """A node with one greeted link, renewed whenever it is hung up."""

    def __init__(self, make_node: Callable[[NodeConfig, Table, Random], Node]) -> None:
        self.table = Table(sessions_max=1_000, bytes_max=BYTES_MAX, rotation_grace_ms=1_000, tombstone_keep_ms=60_000)
        config = NodeConfig(name="10.0.0.1:7400", host="10.0.0.1", directory=True)
        self.node = make_node(config, self.table, Random(1))
        self.now_ms = 1_000
        self._link = 0
        self._incarnation = 1

    def link(self) -> int:
        """A link on which greetings were exchanged."""
        if self._link not in {peer.link for peer in self.node.peers.values()}:
            self._link += 1
            self._incarnation += 1
            hello = Hello(
                PROTOCOL, "sessile", "primary-backup:2", MemberInfo(STRANGER.name, STRANGER.host, self._incarnation),
                WRITER, is_fresh=False, members=(),
            )  # fmt: skip
            self.node.handle(LinkUp(self._link), self.now_ms)
            self.node.handle(FramesReceived(self._link, (encode(hello)[LENGTH_BYTES:],)), self.now_ms)
        return self._link

    def feed(self, frames: tuple[bytes, ...]) -> bool:
        """Give the node these frames; returns whether it hung up."""
        link = self.link()
        effects = self.node.handle(FramesReceived(link, frames), self.now_ms)
        if any(isinstance(effect, HangUp) for effect in effects):
            self.node.handle(LinkDown(link), self.now_ms)
            return True
        return False

    def rest(self) -> None:
        """Time passes: expired things leave, timers ring."""
        self.now_ms += 50
        self.node.handle(Woken(), self.now_ms)
        self.table.sweep(self.now_ms)


def frames(rng: Random, payloads: list[bytes]) -> Iterator[tuple[str, bytes]]:
    """Frames without end: random, mutated, cut, stretched, repeated, spliced."""
    while True:
        kind = rng.choice(("random", "mutated", "mutated", "cut", "stretched", "spliced", "replayed"))
        one = bytearray(rng.choice(payloads))
        if kind == "random":
            one = bytearray(rng.randbytes(rng.choice((0, 1, 2, 5, 20, 200))))
        elif kind == "mutated":
            for _ in range(rng.choice((1, 1, 2, 4))):
                one[rng.randrange(len(one))] = rng.choice(
                    (0, 1, 0x7F, 0x80, 0xC0, 0xC1, 0xCF, 0xD9, 0xDF, 0xFF, rng.randrange(256))
                )
        elif kind == "cut":
            del one[rng.randrange(len(one)) :]
        elif kind == "stretched":
            at = rng.randrange(len(one))
            one[at:at] = one[at : at + rng.randrange(1, 40)] * rng.randrange(1, 20)
        elif kind == "spliced":
            other = rng.choice(payloads)
            one[rng.randrange(len(one)) :] = other[rng.randrange(len(other)) :]
        yield kind, bytes(one)


def fuzz_one(seed: int, count: int, make_node: Callable[[NodeConfig, Table, Random], Node] | None = None) -> Fuzzed:
    """Feed one node so many frames."""
    rng = Random(seed)
    payloads = [encode(message)[LENGTH_BYTES:] for message in examples().values()]
    target = _Target(make_node or _real_node)
    found = Fuzzed()
    before = 0
    for kind, payload in frames(rng, payloads):
        if found.frames >= count:
            break
        if found.frames == count // 4:
            before = memory.resident_bytes()
        found.frames += 1
        found.kinds[kind] += 1
        try:
            if target.feed((payload,)):
                found.hung_up += 1
            else:
                found.accepted += 1
            if found.frames % 50 == 0:
                target.rest()
        except Exception as error:  # noqa: BLE001 - that there is none is what is looked for
            found.raised.append(f"{type(error).__name__}: {error} on {payload.hex()[:120]}")
            target = _Target(make_node or _real_node)
    found.resident_growth = max(memory.resident_bytes() - before, 0)
    cut_stream(rng, payloads, found)
    found.grown = growth(target.node, target.table)
    return found


def cut_stream(rng: Random, payloads: list[bytes], found: Fuzzed) -> None:
    """The cutter of frames, too, keeps no more than one frame that is announced, however the stream is cut."""
    for _ in range(200):
        cutter = Frames()
        stream = b"".join(
            len(one).to_bytes(LENGTH_BYTES, "big") + one for one in rng.choices(payloads, k=5)
        ) + rng.randbytes(9)
        try:
            while stream:
                at = rng.randrange(1, 400)
                cutter.feed(stream[:at])
                stream = stream[at:]
        except ValueError:
            continue
        except Exception as error:  # noqa: BLE001 - as above
            found.raised.append(f"Frames: {type(error).__name__}: {error}")
        if len(cutter._buffer) > FRAME_BYTES_MAX + LENGTH_BYTES:  # noqa: SLF001 - that is what is looked at
            found.grown["buffer"] = len(cutter._buffer)  # noqa: SLF001


def growth(node: Node, table: Table) -> dict[str, int]:
    """What a node holds that it must not, by name."""
    limits = {
        "table bytes": (table.held_bytes, int(BYTES_MAX * 1.3)),
        "sessions": (len(table), 1_000),
        "members": (len(node.membership.infos()), 1_024),
        "peers": (len(node.peers), 1),
        "questions": (node.waiting["pulls"], 0),
        "changes": (node.waiting["pushes"], 0),
        "outstanding bytes": (node.waiting["outstanding_bytes"], 2**20),
        "directory": (len(node.directory), 100_000),
    }
    return {name: held for name, (held, limit) in limits.items() if held > limit}


def fuzz(count: int, jobs: int, progress: Callable[[str], None]) -> Fuzzed:
    """So many frames in all, over so many processes."""
    pieces = 20
    total = Fuzzed()
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for number, one in enumerate(pool.starmap(fuzz_one, [(seed, count // pieces) for seed in range(pieces)], 1), 1):
            total.frames += one.frames
            total.hung_up += one.hung_up
            total.accepted += one.accepted
            total.raised += one.raised
            total.kinds += one.kinds
            total.grown |= one.grown
            total.resident_growth = max(total.resident_growth, one.resident_growth)
            progress(f"{number} of {pieces} parts looked at")
    return total


def _real_node(config: NodeConfig, table: Table, rng: Random) -> Node:
    return Node(config, table, rng=rng, now_ms=0)
