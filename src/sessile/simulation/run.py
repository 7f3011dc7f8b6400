"""One run: faults and browsers for a while, then all is healed, then what must hold when all is quiet.

A run without findings proves nothing; a finding comes with its seed and options, which bring it back.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from sessile.simulation.checkers.quiet import disquiet
from sessile.simulation.checkers.scene import SETTLED_MS, Finding
from sessile.simulation.options import rng_of
from sessile.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.simulation.coverage import Coverage
    from sessile.simulation.options import Options
    from sessile.simulation.world import MakeNode

__all__ = ["Result", "run"]

FORM_MS_MAX: Final = 3_000
QUIET_MS_MAX: Final = 10_000
"""So long after everything was healed the copies must be alike."""
LOOK_MS: Final = 150
FORGOTTEN_MS: Final = 2_000
"""Every table has been swept this long after a tombstone has run out, however its clock differs."""
PROBES_MS_MAX: Final = 1_500
EPILOGUE_REQUESTS: Final = 12
EPILOGUE_MS: Final = 300
COMINGS_AND_GOINGS: Final = ("joins", "drains", "crashes", "restarts")


class Result(Struct, frozen=True):
    """What came of a run."""

    seed: int
    options: Options
    findings: tuple[Finding, ...]
    digest: str
    """A hash over all that happened."""
    requests: int
    virtual_ms: int
    coverage: Coverage


class _Stop(Exception):
    """Something was found; there is no need to go on."""


def run(
    seed: int, options: Options, *, make_node: MakeNode | None = None, show: Callable[[str], None] | None = None
) -> Result:
    """Run it to its end, or to the first phase that finds something."""
    world = World(seed, options, make_node=make_node, show=show)
    try:
        _live(world)
        if options.epilogue:
            _go_on(world)
        if options.encore:
            _lose_one_more(world)
        if options.afterlife:
            _look_again(world)
    except _Stop:
        pass
    for process in world.living():
        world.coverage.counts.update({f"node.{name}": count for name, count in process.node.counts.items()})
    world.coverage.counts["runs"] += 1
    return Result(
        seed,
        options,
        tuple(world.findings.found),
        world.trace.digest,
        world.traffic.requests,
        world.now_ms,
        world.coverage,
    )


def _live(world: World) -> None:
    """From the start to the first quiet."""
    schedule, options = world.schedule, world.options
    world.begin()
    _wait_for_quiet(world, FORM_MS_MAX, 20)
    until_ms = world.now_ms + options.duration
    world.traffic.open(options.requests, until_ms)
    world.faults.plan(until_ms)
    schedule.run_until(until_ms)
    world.heal()
    _settle(world)


def _go_on(world: World) -> None:
    """Requests when all has been well for long: nothing may fail, and nothing be stale.

    One server may come or go meanwhile: that excuses nothing that the others do.
    """
    world.quiet.is_on = False
    _rest(world, SETTLED_MS)
    until_ms = world.now_ms + EPILOGUE_MS
    world.traffic.open(EPILOGUE_REQUESTS, until_ms)
    strike = partial(world.faults.strike_once, COMINGS_AND_GOINGS, rng_of(world.seed, "epilogue"))
    world.schedule.after(EPILOGUE_MS // 3, world.join if world.options.glances else strike)
    world.schedule.run_until(until_ms)
    world.heal()
    _settle(world)


def _lose_one_more(world: World) -> None:
    """When all copies are there again, one more crash loses nothing."""
    living = world.living()
    if len(living) > 1:
        rng = rng_of(world.seed, "encore")
        world.crash(rng.choice(living), is_silent=rng.random() < 0.5)
        _settle(world)


def _look_again(world: World) -> None:
    """Look at every session again when the tombstones have been dropped and long requests are over."""
    world.quiet.is_on = False
    until_ms = world.now_ms + world.options.late
    _rest(world, world.options.tombstones + FORGOTTEN_MS)
    while world.now_ms < until_ms and any(process.requests for process in world.living()):
        _rest(world, LOOK_MS)
    _settle(world)


def _settle(world: World) -> None:
    """Wait until all is quiet, and look at every session from everywhere."""
    _wait_for_quiet(world, QUIET_MS_MAX, LOOK_MS)
    for checker in world.checkers:
        checker.is_quiet()
    for chronicle in world.history.chronicles.values():
        if chronicle.cookies:
            for process in world.living():
                world.traffic.probe(chronicle.header, process)
    until_ms = world.now_ms + PROBES_MS_MAX
    while not world.traffic.is_idle and world.now_ms < until_ms:
        world.schedule.run_until(world.now_ms + 10)
    if not world.traffic.is_idle:
        world.findings.add("quiet", world.now_ms, "requests are not answered when all is quiet")
    if world.findings:
        raise _Stop


def _wait_for_quiet(world: World, at_most_ms: int, every_ms: int) -> None:
    until_ms = world.now_ms + at_most_ms
    while True:
        world.schedule.run_until(world.now_ms + every_ms)
        if world.findings:
            raise _Stop
        problem = disquiet(world)
        if not problem:
            return
        if world.now_ms >= until_ms:
            world.findings.add("quiet", world.now_ms, f"after {at_most_ms} ms: {problem}")
            raise _Stop


def _rest(world: World, for_ms: int) -> None:
    world.schedule.run_until(world.now_ms + for_ms)
    if world.findings:
        raise _Stop
