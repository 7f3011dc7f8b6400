"""The checker `ends` notices what it is there for, and nothing where nothing is wrong."""

from __future__ import annotations

from sessile.simulation.campaign import campaign
from tests.simulation.planted import hunt


def test_it_notices() -> None:
    """A session that opens after its end."""
    runs, _, found = hunt("a merge undoes an end", first=1, at_most=40, checker="ends")
    assert runs, "nothing found"
    assert found.startswith("ends: ")


def test_it_says_nothing_of_what_is_well() -> None:
    """The same seeds, with nothing planted."""
    done = campaign(range(1, 11), jobs=1)
    assert not [finding for found in done.found for finding in found.findings if finding.checker == "ends"]
