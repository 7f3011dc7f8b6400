"""The one place that reads the clock by which sessions expire, and how its milliseconds come of seconds."""

from __future__ import annotations

import time
from typing import Final

__all__ = ["boot_clock_ms", "whole_ms"]

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_clock_ms() -> int:
    """Milliseconds on a clock that never goes back and counts the time the machine was suspended."""
    return time.clock_gettime_ns(_CLOCK) // 1_000_000


def whole_ms(seconds: float) -> int:
    """A duration in whole milliseconds, as records and nodes count."""
    return round(seconds * 1000)
