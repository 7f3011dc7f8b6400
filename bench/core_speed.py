"""What the replication core spends on a change and on a read, in process: nodes without sockets, an engine without a server.

Two nodes on real tables, a thousand sessions, writes of one field of 100 characters, one after the other through all of
them. A busy link is played: so many frames arrive with one read of its socket, and one acknowledgement goes back for all.
Frames are really encoded and decoded; what the kernel and the event loop add is not in these figures.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from random import Random
from statistics import median
from typing import TYPE_CHECKING

from sessile import codec
from sessile.backend import Acknowledged, Pulled, PullStatus, Whole
from sessile.clock import boot_clock_ms
from sessile.delta import Delta
from sessile.engine import Engine
from sessile.record import Record
from sessile.replication.config import NodeConfig
from sessile.replication.events import AddressesFound, ChangePushed, FramesReceived, LinkUp, Send
from sessile.replication.node import Node
from sessile.replication.wire import Frames
from sessile.simulation.asking import InProcess
from sessile.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.backend import Change
    from sessile.record import Heads
    from sessile.replication.events import Effect
    from sessile.token import SessionKey

__all__ = ["Costs", "measure"]

SESSIONS = 1_000
CHANGES = 20_000
READS = 20_000
TOGETHER = 8
"""Frames that arrive with one read of a busy link's socket."""
ROUNDS = 5
WRITER = 2**40


@dataclass(frozen=True, slots=True)
class Costs:
    """Microseconds of CPU, medians over rounds."""

    pushed: float
    """A change sent by the process that made it."""
    applied: float
    """A change taken by another holder."""
    acknowledged: float
    """An acknowledgement taken by the process that waits for it."""
    applied_alone: float
    """As `applied`, when every frame comes by itself."""
    read: float
    """A request that reads its session at a holder: opened, looked up, judged; without the framework."""


class Pair:
    """A node that writes and a node that holds, and the link between them."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.writer, self.holder = self._node("a"), self._node("b")
        self.frames = {1: Frames(), 2: Frames()}
        self.deliver(self.writer.handle(LinkUp(1, "b"), self.now_ms), self.holder.handle(LinkUp(2), self.now_ms))
        self.tickets = 0
        self.keys = [Random(number).randbytes(16) for number in range(SESSIONS)]
        for key in self.keys:
            born = Record.create(now_ms=self.now_ms, idle_ms=1_800_000, deadline_ms=self.now_ms + 43_200_000)
            record, _ = born.write(WRITER, values(0), now_ms=self.now_ms)
            self.tables["a"].put(key, record)
            self.deliver(self.push(key, Whole(key, record)))
        self.push_delta(self.keys[0], 1, deliver=True)

    def _node(self, name: str) -> Node:
        table = Table(sessions_max=10**6, bytes_max=2**32, rotation_grace_ms=10_000, tombstone_keep_ms=600_000)
        self.tables = {**getattr(self, "tables", {}), name: table}
        config = NodeConfig(name=name, host=name, strategy="all-to-all")
        node = Node(config, table, rng=Random(name), now_ms=self.now_ms)
        node.handle(AddressesFound(("a", "b")), self.now_ms)
        return node

    def deliver(self, to_holder: list[Effect], to_writer: list[Effect] | None = None) -> None:
        """Deliver until nobody has anything to say."""
        to_writer = to_writer or []
        while to_holder or to_writer:
            there, back = self.cut(to_holder, 2), self.cut(to_writer, 1)
            to_writer = self.holder.handle(FramesReceived(2, there), self.now_ms) if there else []
            to_holder = self.writer.handle(FramesReceived(1, back), self.now_ms) if back else []

    def cut(self, effects: list[Effect], link: int) -> tuple[bytes, ...]:
        """What was sent, as it arrives at the other end of the link."""
        return self.frames[link].feed(b"".join(effect.frame for effect in effects if isinstance(effect, Send)))

    def push(self, key: SessionKey, change: Change) -> list[Effect]:
        self.tickets += 1
        return self.writer.handle(ChangePushed(self.tickets, key, change, "one"), self.now_ms)

    def delta(self, key: SessionKey, number: int) -> Delta:
        """A write, in the writer's table already."""
        table = self.tables["a"]
        packed = table.get(key)
        assert packed is not None
        held = Record.unpack(packed)
        record, stamp = held.write(WRITER, values(number), now_ms=self.now_ms)
        table.put(key, record)
        return Delta.of(record, key, held, stamp, names=["note"], counted=())

    def push_delta(self, key: SessionKey, number: int, *, deliver: bool) -> list[Effect]:
        effects = self.push(key, self.delta(key, number))
        if deliver:
            self.deliver(effects)
        return effects


def values(number: int) -> dict[str, bytes]:
    return {"note": codec.encode(f"{number:0100}")}


def changes(pair: Pair, count: int, together: int) -> tuple[float, float, float]:
    """Seconds of CPU for so many changes: sent, taken, acknowledged."""
    clock = time.process_time
    sent = taken = acknowledged = 0.0
    for start in range(0, count, together):
        deltas = [pair.delta(pair.keys[n % SESSIONS], n) for n in range(start, start + together)]
        began = clock()
        effects = [effect for delta in deltas for effect in pair.push(delta.key, delta)]
        sent += clock() - began
        frames = pair.cut(effects, 2)
        began = clock()
        effects = pair.holder.handle(FramesReceived(2, frames), pair.now_ms)
        taken += clock() - began
        frames = pair.cut(effects, 1)
        began = clock()
        effects = pair.writer.handle(FramesReceived(1, frames), pair.now_ms)
        acknowledged += clock() - began
        pair.deliver(effects)  # what repair and the like have to say is no part of this
        assert not pair.writer.waiting["pushes"], "every change is confirmed"
        pair.now_ms += 1
    return sent, taken, acknowledged


class _Holder(InProcess):
    """The backend of a process that holds every session: asked about everything, and never for anything."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def touched(self, key: SessionKey, touched_ms: int) -> None:
        """Nothing is old enough."""

    async def pull(self, key: SessionKey, have: Record | None, heads: Heads) -> Pulled:
        del key, have, heads
        return Pulled(PullStatus.NONE)

    async def push(self, key: SessionKey, change: Change | None, ack: str) -> Acknowledged:
        del key, change, ack
        return Acknowledged.YES


def reads(node: Node, now_ms: int, count: int) -> float:
    """Seconds of CPU for `count` reads by a hundred browsers in turn.

    The clock always shows `now_ms`. Otherwise the node's lease would run out, since it sends no beats here.
    """

    def clock_ms() -> int:
        return min(boot_clock_ms(), now_ms)

    engine = Engine(secret="k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja", backend=_Holder(node), sweeps=False, clock_ms=clock_ms)
    headers = []
    for number in range(100):
        session = engine.open((), is_https=False)
        session["note"] = f"{number:0100}"
        engine.commit(session)
        cookies = engine.cookies(session)
        headers.append("; ".join(cookie.decode().partition(";")[0] for cookie in cookies).encode())
    began = time.process_time()
    for number in range(count):
        session = engine.open((headers[number % 100],), is_https=False)
        preparing = engine.prepare(session)
        try:
            preparing.send(None)
        except StopIteration:
            pass
        else:
            raise AssertionError("a holder asks nobody")
        assert session["note"]
        assert not engine.commit(session)
        assert not engine.cookies(session)
    return time.process_time() - began


def measure(progress: Callable[[str], None]) -> Costs:
    """Several rounds; the median of each figure."""
    pair = Pair()
    rounds = []
    for number in range(1, ROUNDS + 1):
        progress(f"round {number} of {ROUNDS}")
        sent, taken, acknowledged = (each / CHANGES * 1e6 for each in changes(pair, CHANGES, TOGETHER))
        alone = changes(pair, CHANGES // 4, 1)[1] / (CHANGES // 4) * 1e6
        rounds.append((sent, taken, acknowledged, alone, reads(pair.holder, pair.now_ms, READS) / READS * 1e6))
    return Costs(*(median(column) for column in zip(*rounds, strict=True)))


def main() -> None:
    """Measure, and print the figures as JSON: for a process of its own, with whichever version stands on its path."""
    print(json.dumps(asdict(measure(lambda _: None))))


if __name__ == "__main__":
    main()
