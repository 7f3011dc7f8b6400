"""The measurement of the core does what it says, and its verdict is its bounds."""

from __future__ import annotations

import pytest

from bench import core_speed
from bench.core_speed import Costs, Pair
from bench.show import core_speed as promise
from sessile import codec
from sessile.record import Record


def test_changes_arrive_and_are_answered() -> None:
    """What is timed is whole: the holder has every write, and nothing is left waiting."""
    pair = Pair()
    spent = core_speed.changes(pair, 64, 8)
    assert min(spent) > 0
    assert pair.holder.counts["applied"] == 64 + 1
    assert pair.writer.waiting["pushes"] == 0
    packed = pair.tables["b"].get(pair.keys[63])
    assert packed is not None
    assert codec.decode(Record.unpack(packed).fields["note"].value) == f"{63:0100}"


def test_reads_ask_nobody() -> None:
    """A holder's own copy answers."""
    pair = Pair()
    assert core_speed.reads(pair.holder, pair.now_ms, 200) > 0


@pytest.mark.parametrize(
    ("costs", "holds"),
    [
        (Costs(99, 13, 99, 99, 8), True),
        (Costs(1, 13.1, 1, 1, 1), False),
        (Costs(1, 1, 1, 1, 8.1), False),
    ],
)
def test_the_verdict_is_the_bounds(costs: Costs, *, holds: bool) -> None:
    """A change at its holder and a read; the rest is shown."""
    assert all(figure.holds is not False for figure in promise.judged(costs)) is holds
