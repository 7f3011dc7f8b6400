from __future__ import annotations

from sessile.clock import boot_clock_ms, whole_ms


def test_the_clock_never_goes_back() -> None:
    """Whole milliseconds, each reading at least the one before."""
    readings = [boot_clock_ms() for _ in range(1000)]
    assert readings == sorted(readings)
    assert all(type(reading) is int for reading in readings)


def test_a_duration_is_whole_milliseconds() -> None:
    """To the nearest one."""
    assert [whole_ms(seconds) for seconds in (0, 0.0004, 0.25, 1.4996, 3600)] == [0, 0, 250, 1500, 3_600_000]
