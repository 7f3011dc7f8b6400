"""The checker `denials` notices what it is there for, and nothing where nothing is wrong."""

from __future__ import annotations

from sessile.simulation.campaign import campaign, one
from tests.simulation.planted import hunt, planted

NEWCOMERS = "handshake=30,nodes=1,glances=true,faults=joins,duration=600"
"""Somebody comes, is asked at once, and both dial."""


def test_it_notices() -> None:
    """A session of which the first that has nothing is believed."""
    runs, _, found = hunt("the first that has nothing is believed", first=1, at_most=100, checker="denials")
    assert runs, "nothing found"
    assert found.startswith("denials: ")


def test_it_notices_what_lasts_for_a_moment_while_things_go_wrong() -> None:
    """Two links to a newcomer, one of which replaces the other."""
    with planted("a link is let go before another one has replaced it"):
        findings = [finding for seed in range(100) for finding in one(seed, NEWCOMERS)[1]]
    assert "denials" in {finding.checker for finding in findings}


def test_it_says_nothing_of_what_is_well() -> None:
    """The same seeds, with nothing planted."""
    for seeds, options in ((range(1, 11), ""), (range(100), NEWCOMERS)):
        done = campaign(seeds, jobs=1, options=options)
        assert not [finding for found in done.found for finding in found.findings if finding.checker == "denials"]
