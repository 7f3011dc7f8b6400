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


def test_threads_go_on_while_the_loop_stands_still() -> None:
    """What requests do is done; what the loop is to do waits for it, be it stopped, late after a stop, or slow."""
    process = calm_world(threads=True).living()[0]
    seen: list[str] = []
    request, event = (lambda: seen.append("request")), (lambda: seen.append("event"))
    process.pause(loop_only=True)
    process.enqueue(event)
    process.enqueue_request(request)
    assert seen == ["request"]
    process.resume()
    assert seen == ["request", "event"]
    process.pause()
    process.enqueue(event)
    process.enqueue_request(request)
    assert len(seen) == 2
    process.thaw()
    assert seen[2:] == ["request"]
    process.resume()
    assert seen[3:] == ["event"]


def test_a_process_without_threads_has_one_gate() -> None:
    """Requests wait as everything else does, in order."""
    process = calm_world().living()[0]
    seen: list[str] = []
    process.pause()
    process.enqueue_request(lambda: seen.append("request"))
    process.enqueue(lambda: seen.append("event"))
    assert not seen
    process.resume()
    assert seen == ["request", "event"]
