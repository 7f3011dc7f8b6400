"""A short seeded simulation as tests, for mutants that only whole runs with faults notice. Only `make mutants` collects it."""

from __future__ import annotations

import pytest

from sessile.simulation.campaign import campaign

RUNS = 3
FIRST_SEEDS = range(1, 1 + 10 * RUNS, RUNS)


@pytest.mark.parametrize("first", FIRST_SEEDS)
def test_runs_find_nothing(first: int) -> None:
    """The same seeds every time: without an edit they find nothing."""
    done = campaign(range(first, first + RUNS))
    assert not done.found, [found.command for found in done.found]
