"""The checker `losses` notices what it is there for, and nothing where nothing is wrong."""

from __future__ import annotations

from sessile.simulation.campaign import campaign
from tests.simulation.planted import hunt
from tests.simulation.scenes import calm_world


def test_it_notices() -> None:
    """An acknowledged change that nobody else holds."""
    runs, _, found = hunt("a change is acknowledged before it is applied", first=1, at_most=40, checker="losses")
    assert runs, "nothing found"
    assert found.startswith("losses: ")


def test_it_says_nothing_of_what_is_well() -> None:
    """The same seeds, with nothing planted."""
    done = campaign(range(1, 11), jobs=1)
    assert not [finding for found in done.found for finding in found.findings if finding.checker == "losses"]


def test_who_starts_over_has_as_good_as_crashed() -> None:
    """Both holders of a session may: then it is lost by the rules; one alone may not take it."""
    world = calm_world(nodes=2)
    world.traffic.open(4, world.now_ms + 800)
    world.schedule.run_until(world.now_ms + 800)
    (writes,) = ([*chronicle.writes.values()] for chronicle in world.history.chronicles.values())
    first, second = world.living()
    first.node.start_over((second.name,))
    assert {(write.copies, write.hits, write.is_lost) for write in writes} == {(2, 1, False)}
    second.node.start_over((first.name,))
    assert all(write.is_lost for write in writes) and not world.findings.found


def test_one_that_starts_over_may_not_take_what_two_hold() -> None:
    """The other one's copy went without a word."""
    world = calm_world(nodes=2)
    world.traffic.open(4, world.now_ms + 800)
    world.schedule.run_until(world.now_ms + 800)
    first, second = world.living()
    for key in second.engine.table:
        second.engine.table.drop(key)
    first.node.start_over((second.name,))
    assert world.findings.found[0].checker == "losses"
