"""Browsers make as many requests as they may, and the balancer sends them where it should."""

from __future__ import annotations

import pytest

from tests.simulation.scenes import calm_world


@pytest.mark.parametrize("routing", ["sticky", "round-robin", "random"])
def test_requests_are_made_answered_and_bounded(routing: str) -> None:
    """All that were allowed, each answered; sticky ones at one server for each jar."""
    world = calm_world(routing=routing, browsers=3, behaviours=("tabs", "bursts"))
    world.traffic.open(30, world.now_ms + 5_000)
    served: dict[int, set[int]] = {}
    for process in world.living():
        real = process.serve

        def serve(request: object, real: object = real, place: int = process.place) -> None:
            served.setdefault(request.jar.number, set()).add(place)  # type: ignore[attr-defined]
            real(request)  # type: ignore[operator]

        process.serve = serve  # type: ignore[method-assign]
    world.schedule.run_until(world.now_ms + 5_000)
    assert world.traffic.requests == 30 and world.traffic.is_idle
    assert not world.findings.found
    assert all(len(places) == 1 for places in served.values()) is (routing == "sticky")


def test_a_request_to_a_dead_server_is_sent_again() -> None:
    """What was not executed may go elsewhere."""
    world = calm_world(routing="sticky", browsers=1)
    world.traffic.open(20, world.now_ms + 3_000)
    world.schedule.run_until(world.now_ms + 100)
    for process in world.living()[:2]:
        world.crash(process, is_silent=False)
    world.schedule.run_until(world.now_ms + 4_000)
    assert world.traffic.is_idle
    assert world.coverage.counts["request status 200"] >= 15


def test_a_probe_looks_at_one_server() -> None:
    """And changes nothing."""
    world = calm_world()
    world.traffic.probe(b"", world.living()[1])
    assert not world.traffic.is_idle
    world.schedule.run_until(world.now_ms + 100)
    assert world.traffic.is_idle and world.coverage.counts["request status 200"] == 1


def test_a_glance_is_given_up() -> None:
    """It may be at a server that is gone, or that dies before it has answered."""
    world = calm_world()
    first, second, _ = world.living()
    second.pause()
    world.traffic.glance(b"", second)
    world.crash(first, is_silent=False)
    world.crash(second, is_silent=False)
    world.traffic.glance(b"", first)
    assert not world.traffic.is_idle
    world.schedule.run_until(world.now_ms + 1_600)
    assert world.traffic.is_idle and not world.coverage.counts["request status 200"]
