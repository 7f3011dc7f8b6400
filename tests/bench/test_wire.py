"""The sizes of messages, and the judge of hostile frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest

from bench import wire
from bench.show import wire as promise
from sessile.replication.messages import Message
from sessile.replication.node import Node
from sessile.replication.wire import LENGTH_BYTES, decode, encode

if TYPE_CHECKING:
    from random import Random

    from sessile.replication.config import NodeConfig
    from sessile.replication.events import Effect, Input
    from sessile.table import Table


def test_every_kind_of_message_has_an_example() -> None:
    """And what is measured is what a receiver decodes."""
    examples = wire.examples()
    kinds = {type(message) for message in examples.values()}
    assert kinds == set(get_args(Message))
    for name, message in examples.items():
        frame = encode(message)
        assert decode(frame[LENGTH_BYTES:], is_greeting=name == "Hello") == message
        assert wire.sizes()[name] == len(frame)


def test_a_small_change_is_small() -> None:
    """The promise of a hundred characters, and that a longer value takes exactly as much more."""
    assert wire.sizes()[promise.JUDGED] <= promise.BYTES_MAX


def test_the_real_node_bears_it() -> None:
    """Some thousand frames: links are hung up, nothing raises, nothing grows."""
    found = wire.fuzz_one(3, 4_000)
    assert (found.frames, found.raised, found.grown) == (4_000, [], {})
    assert found.hung_up > 1_000 and found.accepted > 100
    assert set(found.kinds) == {"random", "mutated", "cut", "stretched", "spliced", "replayed"}


class Broken(Node):
    """A node that trips over what it does not expect."""

    def handle(self, event: Input, now_ms: int) -> list[Effect]:
        effects = super().handle(event, now_ms)
        if self.counts["protocol_errors"]:
            raise KeyError("not prepared for that")
        return effects


class Hoarder(Node):
    """A node that lets everybody be a member of its placement and forgets nobody."""

    @property
    def waiting(self) -> dict[str, int]:
        return {"pulls": 1, "pushes": 0, "outstanding_bytes": 0}


@pytest.mark.parametrize(("kind", "raises", "grows"), [(Broken, True, False), (Hoarder, False, True)])
def test_the_judge_finds_a_broken_node(kind: type[Node], *, raises: bool, grows: bool) -> None:
    """One that raises, one that keeps what it should not."""

    def make(config: NodeConfig, table: Table, rng: Random) -> Node:
        return kind(config, table, rng=rng, now_ms=0)

    found = wire.fuzz_one(3, 300, make)
    assert (bool(found.raised), bool(found.grown)) == (raises, grows)


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        (wire.Fuzzed(frames=promise.FRAMES), True),
        (wire.Fuzzed(frames=promise.FRAMES - 1), False),
        (wire.Fuzzed(frames=promise.FRAMES, raised=["KeyError"]), False),
        (wire.Fuzzed(frames=promise.FRAMES, grown={"members": 9}), False),
        (wire.Fuzzed(frames=promise.FRAMES, resident_growth=promise.GROWTH_BYTES_MAX + 1), False),
    ],
)
def test_the_verdict_is_the_bounds(found: wire.Fuzzed, *, holds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All frames thrown, nothing raised, nothing grown."""
    monkeypatch.setattr(wire, "fuzz", lambda _count, _jobs, _progress: found)
    assert promise.run(lambda _: None).holds is holds
