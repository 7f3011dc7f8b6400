"""The checker `reads` notices what it is there for, and nothing where nothing is wrong."""

from __future__ import annotations

import pytest

from sessile.simulation.campaign import campaign
from tests.simulation.planted import hunt


def test_it_notices() -> None:
    """Values that are not what their version stands for."""
    runs, _, found = hunt("a merge takes what arrived last", first=1, at_most=40, checker="reads")
    assert runs, "nothing found"
    assert found.startswith("reads: ")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("of parallel assignments only the later is kept", ""),
        ("what one copy has not, it has not received yet", ""),
        ("an answer leaves out what did not change", ""),
        ("every server numbers what it appends", ""),
        ("items have the order of their names", ""),
        (
            "a removal of a set removes the items that its request saw",
            "behaviours=collections+slow-handlers+bursts+removals+tabs,browsers=1,routing=round-robin",
        ),
    ],
)
def test_the_laws_of_a_field_are_noticed(name: str, options: str) -> None:
    """What a removal leaves, what a parallel write is, and which items a set or list has, in which order."""
    runs, _, found = hunt(name, first=1, at_most=60, options=options)
    assert runs, "nothing found"
    assert found.startswith(("reads: ", "quiet: "))


def test_it_says_nothing_of_what_is_well() -> None:
    """The same seeds, with nothing planted."""
    done = campaign(range(1, 11), jobs=1)
    assert not [finding for found in done.found for finding in found.findings if finding.checker == "reads"]
