"""The virtual world passes on what happens, and nothing in it is left to real time or chance."""

from __future__ import annotations

import threading

from sessile.simulation.options import Options
from sessile.simulation.world import World, settings_of
from tests.simulation.scenes import calm_world


def test_servers_find_each_other() -> None:
    """All of them, without a thread."""
    before = threading.active_count()
    world = calm_world(nodes=4)
    assert {process.node.placement.names for process in world.living()} == {
        ("s0:7400", "s1:7400", "s2:7400", "s3:7400")
    }
    assert threading.active_count() == before


def test_a_crash_and_a_start_are_what_they_say() -> None:
    """Who died is gone until it is started anew, in a later incarnation and with nothing in it."""
    world = calm_world()
    victim = world.living()[1]
    world.crash(victim, is_silent=False)
    assert victim.is_dead and len(world.living()) == 2
    world.schedule.run_until(world.now_ms + 500)
    assert world.living()[0].node.placement.names == ("s0:7400", "s2:7400")
    world.revive(1)
    world.schedule.run_until(world.now_ms + 1_500)
    assert [process.incarnation for process in world.living()] == [1, 2, 1]
    assert world.living()[0].node.placement.names == ("s0:7400", "s1:7400", "s2:7400")


def test_joins_and_drains() -> None:
    """A newcomer is a member soon; one that was told to stop ends its process."""
    world = calm_world()
    world.join()
    world.schedule.run_until(world.now_ms + 1_500)
    assert len(world.living()[0].node.placement.names) == 4
    world.living()[3].stop()
    world.schedule.run_until(world.now_ms + 1_500)
    assert len(world.living()) == 3


def test_what_raises_is_a_finding() -> None:
    """With where it came from."""
    world = calm_world()
    world.raised(world.living()[0], "node.handle", KeyError("oops"))
    assert "oops" in world.findings.found[0].problem and world.findings.found[0].checker == "raised"


def test_engines_are_told_the_options() -> None:
    """As settings, one object for all that are alike."""
    options = Options(ack="all", stale="refuse", idle=2_000)
    settings = settings_of(options)
    assert (settings.ack, settings.stale, settings.idle_timeout) == ("all", "refuse", 2.0)
    assert settings_of(options) is settings
    assert World(1, options).settings is settings


def test_every_session_is_looked_at_when_a_server_comes() -> None:
    """From every server and soon, where glances are switched on."""
    for glances in (False, True):
        world = calm_world(glances=glances)
        world.traffic.open(4, world.now_ms + 800)
        world.schedule.run_until(world.now_ms + 800)
        before, sessions = world.traffic.requests, len(world.history.chronicles)
        world.join()
        world.schedule.run_until(world.now_ms + 100)
        assert sessions and world.traffic.requests - before == (4 * sessions if glances else 0)
