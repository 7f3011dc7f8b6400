"""The checker `quiet` notices what it is there for, and nothing where nothing is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from sessile.replication.touches import Touches
from sessile.simulation.campaign import campaign
from sessile.simulation.checkers.scene import record_of
from tests.simulation.planted import hunt
from tests.simulation.scenes import calm_world

if TYPE_CHECKING:
    from sessile.simulation.checkers.scene import Finding
    from sessile.simulation.history import Chronicle
    from sessile.simulation.world import World


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


def with_session(nodes: int) -> tuple[World, Chronicle]:
    """Servers that all hold one session, which was not used for a while."""
    world = calm_world(nodes=nodes, idle=2_000, browsers=1, strategy="all-to-all")
    world.traffic.open(4, world.now_ms + 300)
    world.schedule.run_until(world.now_ms + 900)
    (chronicle,) = world.history.chronicles.values()
    return world, chronicle


@pytest.mark.parametrize("dies", [True, False])
def test_a_use_goes_with_the_last_server_that_was_told_of_it(dies: bool) -> None:  # noqa: FBT001  # a parameter
    """The one that was used dies, then the one that it told, before a third one behind a partition has heard of it."""
    world, chronicle = with_session(3)
    first, second, third = world.living()
    cut = [(place, third.place) for place in (first.place, second.place)]
    world.network.block(cut)
    world.traffic.glance(chronicle.header, first)
    world.schedule.run_until(world.now_ms + 100)
    world.crash(first, is_silent=True)
    if dies:
        world.crash(second, is_silent=True)
    world.network.unblock(cut)
    used = [use.at_ms for use in chronicle.uses if use.process is first and use.at_ms > world.now_ms - 200]
    assert bool(used) is not dies


@pytest.mark.parametrize("is_delayed", [True, False])
def test_word_of_a_use_may_be_late_only_by_a_fault_of_the_network(is_delayed: bool) -> None:  # noqa: FBT001  # as above
    """Word that nobody has delayed should have come."""
    world, chronicle = with_session(2)
    first, second = world.living()
    if is_delayed:
        world.faults.happen("delays", (first.place, second.place))
    world.network.extra_ms[first.place, second.place] += 1_000
    world.traffic.glance(chronicle.header, first)
    world.schedule.run_until(world.now_ms + 400)
    world.quiet.is_quiet()
    assert [finding.checker for finding in world.findings.found] == ["quiet"] * (not is_delayed)


def test_a_use_that_is_not_told_stands_for_no_later_one() -> None:
    """One server gets word of a use late, after another use that was not told: others count from the one that was told."""
    world, chronicle = with_session(2)
    first, second = world.living()
    world.faults.trouble((second.place,), is_rough=True)
    second.pause()
    for after_ms in (190, 130):
        world.traffic.glance(chronicle.header, first)
        world.schedule.run_until(world.now_ms + after_ms)
    second.resume()
    world.schedule.run_until(world.now_ms + 190)
    world.traffic.glance(chronicle.header, second)
    world.schedule.run_until(world.now_ms + 310)
    assert [use.is_told for use in chronicle.uses[-3:]] == [True, False, False]
    world.quiet.is_quiet()
    assert not world.findings.found


def test_a_use_in_the_moment_in_which_late_word_comes_is_not_told() -> None:
    """Both have one time, which does not show that the server has told of its own."""
    world, chronicle = with_session(2)
    first, second = world.living()
    world.faults.happen("delays", (first.place, second.place))
    world.network.block([(first.place, second.place)])
    world.traffic.glance(chronicle.header, first)
    world.schedule.run_until(world.now_ms + 320)
    record = record_of(second, chronicle.key)
    assert record is not None
    second.engine.table.put(chronicle.key, record.touch(second.clock()), is_touch=True)
    world.traffic.glance(chronicle.header, second)
    world.schedule.run_until(world.now_ms + 310)
    world.quiet.is_quiet()
    assert not world.findings.found
