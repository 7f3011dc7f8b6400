"""The checker `writes` notices what it is there for, and nothing where nothing is wrong."""

from __future__ import annotations

from sessile.simulation.campaign import campaign
from tests.simulation.planted import hunt


def test_it_notices() -> None:
    """Two writes of one name."""
    runs, _, found = hunt("two processes give the same stamps", first=1, at_most=40, checker="writes")
    assert runs, "nothing found"
    assert found.startswith("writes: ")


def test_it_says_nothing_of_what_is_well() -> None:
    """The same seeds, with nothing planted."""
    done = campaign(range(1, 11), jobs=1)
    assert not [finding for found in done.found for finding in found.findings if finding.checker == "writes"]
