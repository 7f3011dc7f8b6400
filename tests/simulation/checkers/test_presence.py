"""The checker `presence` notices what it is there for, and nothing where nothing is wrong."""

from __future__ import annotations

from sessile.simulation.campaign import campaign
from tests.simulation.planted import hunt


def test_it_notices() -> None:
    """A session that is said not to be there, and is."""
    runs, _, found = hunt("nobody is asked", first=1, at_most=40, checker="presence")
    assert runs, "nothing found"
    assert found.startswith("presence: ")


def test_it_says_nothing_of_what_is_well() -> None:
    """The same seeds, with nothing planted."""
    done = campaign(range(1, 11), jobs=1)
    assert not [finding for found in done.found for finding in found.findings if finding.checker == "presence"]
