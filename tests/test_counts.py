from __future__ import annotations

from sessile.counts import COUNTED, GAUGES
from sessile.engine import Engine


def test_every_statistic_has_a_meaning() -> None:
    """`engine.stats()` gives just the names that are described."""
    assert set(Engine(secret="x" * 32, environ={}).stats()) == COUNTED.keys() | GAUGES.keys()
    assert not COUNTED.keys() & GAUGES.keys()
