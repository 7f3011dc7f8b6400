"""A process: its gate, its clock, and the loop that drives its requests."""

from __future__ import annotations

from sessile.simulation.process import Clock
from sessile.simulation.schedule import Schedule
from tests.simulation.scenes import calm_world


def test_clocks_are_wrong_but_never_go_back() -> None:
    """By an offset and a rate, and by jumps forward; how long something takes is told in the world's time."""
    schedule = Schedule()
    clock = Clock(schedule, offset_ms=1_000, ppm=1_000)
    schedule.run_until(100_000)
    assert clock() == 1_000 + 100_000 + 100
    clock.jump(500)
    assert clock() == 101_600
    assert clock.until(clock() + 10_000) == 9_990 and clock.until(0) == 0


def test_a_paused_process_does_nothing_and_then_all_of_it() -> None:
    """What happens meanwhile waits, in order."""
    process = calm_world().living()[0]
    seen: list[int] = []
    process.pause()
    for number in range(3):
        process.enqueue(lambda n=number: seen.append(n))  # type: ignore[misc]
    assert seen == []
    process.resume()
    assert seen == [0, 1, 2]
    process.resume()
    assert seen == [0, 1, 2]


def test_a_slow_process_does_it_later_and_a_dead_one_never() -> None:
    """One thing at a time."""
    world = calm_world()
    process = world.living()[0]
    seen: list[int] = []
    process.slow_ms = 10
    process.enqueue(lambda: seen.append(world.now_ms))
    process.enqueue(lambda: seen.append(world.now_ms))
    began = world.now_ms
    world.schedule.run_until(began + 25)
    assert seen == [began + 10, began + 20]
    process.die()
    process.enqueue(lambda: seen.append(0))
    world.schedule.run_until(began + 100)
    assert len(seen) == 2 and repr(process) == "<Process s0:7400/1>"
