"""What the simulation once found is found again wherever it is planted again, whatever seeds draw by now."""

from __future__ import annotations

import pytest

from tests.simulation.frozen import FROZEN, Frozen
from tests.simulation.seeds import RECORDED

OF_THE_WORLD = {71645, 92478}
"""Seeds that found mistakes of checkers, in what they promised or excused: there is no bug to plant."""


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda frozen: str(frozen.seed))
def test_a_finding_is_found_again(frozen: Frozen) -> None:
    """Its scenario passes, and does not once the bug is back."""
    frozen.scenario()
    with frozen.plant(), pytest.raises((AssertionError, KeyError)):
        frozen.scenario()


def test_every_recorded_seed_has_its_scenario() -> None:
    """None is left to its draws alone."""
    assert {frozen.seed for frozen in FROZEN} | OF_THE_WORLD == set(RECORDED)
    assert {frozen.seed: frozen.found for frozen in FROZEN} == {
        seed: found for seed, found in RECORDED.items() if seed not in OF_THE_WORLD
    }
