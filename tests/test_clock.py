from __future__ import annotations

from sessile.clock import boot_clock_ms


def test_the_clock_never_goes_back() -> None:
    """Whole milliseconds, each reading at least the one before."""
    readings = [boot_clock_ms() for _ in range(1000)]
    assert readings == sorted(readings)
    assert all(type(reading) is int for reading in readings)
