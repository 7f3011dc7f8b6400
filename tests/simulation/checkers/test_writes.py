"""The checker `writes` notices what it is there for, and nothing where nothing is wrong."""

from __future__ import annotations

from functools import partial

from sessile.simulation.browsers import Jar
from sessile.simulation.campaign import campaign
from sessile.simulation.serving import Op, Request, Verb, Work
from tests.simulation.planted import hunt
from tests.simulation.scenes import calm_world


def test_it_notices() -> None:
    """Two writes of one name."""
    runs, _, found = hunt("two processes give the same stamps", first=1, at_most=40, checker="writes")
    assert runs, "nothing found"
    assert found.startswith("writes: ")


def test_it_says_nothing_of_what_is_well() -> None:
    """The same seeds, with nothing planted."""
    done = campaign(range(1, 11), jobs=1)
    assert not [finding for found in done.found for finding in found.findings if finding.checker == "writes"]


def test_a_login_takes_along_what_its_server_wrote_meanwhile() -> None:
    """That server is no holder: what it wrote is not in its table any more when the login is made."""
    world = calm_world(nodes=3, browsers=1, strategy="primary-backup", copies=2)
    world.traffic.open(1, world.now_ms + 300)
    world.schedule.run_until(world.now_ms + 300)
    (chronicle,) = world.history.chronicles.values()
    (proxy,) = [process for process in world.living() if not process.node.placement.is_holder(chronicle.key)]
    login = Work((Op(Verb.LOGIN, value="alice"),), think_ms=200)
    for number, work in enumerate((login, Work((Op(Verb.SET, "x", 2),))), 1_000):
        request = Request(number, Jar(-1), chronicle.header, work, world)
        request.process = proxy
        proxy.enqueue_request(partial(proxy.serve, request))
    world.schedule.run_until(world.now_ms + 100)
    proxy.engine.table.drop(chronicle.key)  # as repair does
    world.schedule.run_until(world.now_ms + 400)
    assert not world.findings.found
    (made,) = [other for other in world.history.chronicles.values() if other is not chronicle]
    assert next(iter(made.writes.values())).values["x"] == 2
