from __future__ import annotations

from sessile.counts import COUNTED, GAUGES
from sessile.engine import Engine
from tests.fakes import SECRET


def test_every_statistic_has_a_meaning() -> None:
    """`engine.stats()` gives just the names that are described."""
    assert set(Engine(secret=SECRET, environ={}).stats()) == COUNTED.keys() | GAUGES.keys()
    assert not COUNTED.keys() & GAUGES.keys()
