"""A world of a few servers without faults, to look at its parts one by one."""

from __future__ import annotations

from typing import Any

from sessile.simulation.options import Options
from sessile.simulation.world import World

__all__ = ["calm_world"]


def calm_world(*, seed: int = 1, **options: Any) -> World:
    """Servers that found each other, and nobody who asks anything."""
    world = World(seed, Options(**{"behaviours": (), "latency": 1, **options}))
    world.begin()
    world.schedule.run_until(500)
    assert not world.findings.found
    return world
