"""The verdict over the planted bugs: all found, and enough of them."""

from __future__ import annotations

from bench.show import planted_bugs as promise
from tests.simulation.planted import PLANTED


def test_one_that_is_missed_is_enough() -> None:
    """Not found is zero runs."""
    found = dict.fromkeys(PLANTED, (3, 3, "reads: wrong"))
    assert promise.judged(found).holds
    assert not promise.judged({**found, next(iter(found)): (0, 0, "")}).holds
    assert not promise.judged(dict.fromkeys(list(PLANTED)[:14], (1, 1, ""))).holds
