"""The checker `quiet` notices what it is there for, and nothing where nothing is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from sessile.replication.touches import Touches
from sessile.simulation.campaign import campaign
from tests.simulation.planted import hunt
from tests.simulation.scenes import calm_world

if TYPE_CHECKING:
    from sessile.simulation.checkers.scene import Finding


def test_it_notices() -> None:
    """Copies that differ when all is quiet."""
    runs, _, found = hunt("nothing is repaired", first=1, at_most=40, checker="quiet")
    assert runs, "nothing found"
    assert found.startswith("quiet: ")


def test_it_says_nothing_of_what_is_well() -> None:
    """The same seeds, with nothing planted."""
    done = campaign(range(1, 11), jobs=1)
    assert not [finding for found in done.found for finding in found.findings if finding.checker == "quiet"]


def after_a_use(*, dies_after_ms: int, is_paused: bool = False) -> list[Finding]:
    """What is found when a session rests, is looked at by one server, and that one dies with its machine."""
    world = calm_world(nodes=2, idle=2_000, browsers=1)
    world.traffic.open(4, world.now_ms + 300)
    world.schedule.run_until(world.now_ms + 900)
    (chronicle,) = world.history.chronicles.values()
    first, _ = world.living()
    used_before_ms = chronicle.used_ms
    world.traffic.glance(chronicle.header, first)
    world.schedule.run_until(world.now_ms + 1)
    assert chronicle.used_ms > used_before_ms + 300
    if is_paused:
        world.faults.trouble((first.place,), is_rough=True)
    world.schedule.run_until(world.now_ms + dies_after_ms)
    world.crash(first, is_silent=True)
    world.schedule.run_until(world.now_ms + 400)
    world.quiet.is_quiet()
    return world.findings.found


@pytest.mark.parametrize("dies_after_ms", [5, 30, 200])
def test_a_use_outlives_its_server(dies_after_ms: int) -> None:
    """Others count from it: it was told."""
    assert not after_a_use(dies_after_ms=dies_after_ms)


@pytest.mark.parametrize(
    ("dies_after_ms", "is_paused", "is_found"), [(5, False, False), (30, False, True), (30, True, False)]
)
def test_a_use_goes_with_its_server_only_at_once_or_after_a_fault(
    dies_after_ms: int,
    is_paused: bool,  # noqa: FBT001  # a parameter of the test
    is_found: bool,  # noqa: FBT001  # as above
) -> None:
    """Of a use that is not told, as where it is gathered for too long."""
    with patch.object(Touches, "touch", lambda *_: None):
        found = after_a_use(dies_after_ms=dies_after_ms, is_paused=is_paused)
    assert [finding.checker for finding in found] == ["quiet"] * is_found


def test_who_got_word_of_a_use_late_takes_it_for_later() -> None:
    """The next use comes right after, and nobody is told of it; no crash is needed for that, but a fault is."""
    for is_excused in (True, False):
        world = calm_world(nodes=2, idle=2_000, browsers=1)
        world.traffic.open(4, world.now_ms + 300)
        world.schedule.run_until(world.now_ms + 900)
        (chronicle,) = world.history.chronicles.values()
        first, second = world.living()
        if is_excused:
            world.faults.trouble((second.place,), is_rough=True)
        second.pause()
        world.traffic.glance(chronicle.header, first)
        world.schedule.run_until(world.now_ms + 320)
        second.resume()
        world.traffic.glance(chronicle.header, second)
        world.schedule.run_until(world.now_ms + 310)
        world.quiet.is_quiet()
        assert [finding.checker for finding in world.findings.found] == ["quiet"] * (not is_excused)
