"""Virtual time goes in order, and a trace tells runs apart."""

from __future__ import annotations

from sessile.simulation.schedule import Schedule, Trace


def test_things_happen_in_the_order_of_their_times_and_then_of_their_plans() -> None:
    """Equal times keep the order in which they were planned; what is overdue comes at once; time ends where it was told."""
    schedule, seen = Schedule(), list[tuple[int, str]]()

    def note(name: str) -> None:
        seen.append((schedule.now_ms, name))

    schedule.at(5, lambda: note("b"))
    schedule.after(2, lambda: note("a"))
    schedule.after(2, lambda: schedule.at(1, lambda: note("overdue")))
    schedule.at(5, lambda: note("c"))
    schedule.at(9, lambda: note("not yet"))
    schedule.run_until(7)
    assert seen == [(2, "a"), (2, "overdue"), (5, "b"), (5, "c")]
    assert schedule.now_ms == 7


def test_a_trace_is_the_same_only_for_the_same() -> None:
    """Another time, another process, another byte, another order: another digest."""

    def digest(*entries: tuple[int, int, bytes]) -> str:
        trace = Trace()
        for entry in entries:
            trace.add(*entry)
        return trace.digest

    one, other = (1, 0, b"a"), (2, 0, b"b")
    assert digest(one, other) == digest(one, other)
    assert len({digest(one, other), digest(other, one), digest((1, 1, b"a"), other), digest((1, 0, b"A"), other)}) == 4
