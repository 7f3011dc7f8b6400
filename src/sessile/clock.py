"""The one place that reads the clock by which sessions expire."""

from __future__ import annotations

import time
from typing import Final

__all__ = ["boot_clock_ms"]

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_clock_ms() -> int:
    """Milliseconds on a clock that never goes back and counts the time the machine was suspended."""
    return time.clock_gettime_ns(_CLOCK) // 1_000_000
