"""The checker `ends` notices what it is there for, and nothing where nothing is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessile.simulation.browsers import Jar
from sessile.simulation.campaign import campaign
from sessile.simulation.serving import Op, Verb, Work
from tests.simulation.planted import hunt
from tests.simulation.scenes import calm_world

if TYPE_CHECKING:
    from sessile.simulation.process import Process
    from sessile.simulation.serving import Request
    from sessile.simulation.world import World


def test_it_notices() -> None:
    """A session that opens after its end."""
    runs, _, found = hunt("a merge undoes an end", first=1, at_most=40, checker="ends")
    assert runs, "nothing found"
    assert found.startswith("ends: ")


def test_it_says_nothing_of_what_is_well() -> None:
    """The same seeds, with nothing planted."""
    done = campaign(range(1, 11), jobs=1)
    assert not [finding for found in done.found for finding in found.findings if finding.checker == "ends"]


@pytest.mark.parametrize("is_cut", [False, True])
def test_only_the_network_excuses_a_server(is_cut: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """It is stopped when a session ends, and takes up a request before it has heard of that; or it is cut off."""
    world = calm_world(nodes=2)
    ender, other = world.living()
    made = ask(world, ender, Op(Verb.SET, "a", 1))
    (chronicle,) = world.history.chronicles.values()
    assert made.status == 200
    if is_cut:
        world.network.block([(0, 1), (1, 0)])
        world.faults._begin("partitions", (0, 1), 10_000, lambda: None)
    else:
        other.pause()
    world.schedule.run_until(world.now_ms + 1_200)
    other.is_paused = False  # and nobody tells it to go on
    other.node._pulse.beat(other.clock())
    ended = ask(world, ender, Op(Verb.LOGOUT), header=chronicle.header)
    assert ended.status == 200 and chronicle.ends[0].acknowledged_ms is not None
    world.schedule.run_until(world.now_ms + 10)
    other.node._pulse.beat(other.clock())
    assert ask(world, other, header=chronicle.header).saw == {"a": 1}
    assert bool(world.findings.found) is not is_cut


def ask(world: World, process: Process, *ops: Op, header: bytes = b"") -> Request:
    """A request that does these things, and what came of it within a second."""
    request = world.traffic._make(Jar(-1), header, Work(ops))
    request.process = process
    world.traffic._by_request[request] = (None, 9)
    process.serve(request)
    until_ms = world.now_ms + 1_500
    while not request.status and world.now_ms < until_ms:
        world.schedule.run_until(world.now_ms + 1)
    return request
