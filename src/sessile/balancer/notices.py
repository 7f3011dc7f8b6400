"""Which warnings are due: what goes wrong again and again is said once, and then once in a while with how often it was.

A warning is known by its kind: the sentence without what differs from one request to the next. Bounded, because part of
a kind may come from outside. Pure: time is an argument.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Notices"]

EVERY_S: Final = 60.0
KINDS_MAX: Final = 1024


class Notices:
    """What was said, and when."""

    def __init__(self, every_s: float = EVERY_S, kinds_max: int = KINDS_MAX) -> None:
        self._every_s = every_s
        self._kinds_max = kinds_max
        self._said: dict[str, tuple[float, int]] = {}

    def due(self, kind: str, now: float) -> int:
        """How often it happened since it was last said, this time included; 0 if it is not to be said now."""
        said = self._said.get(kind)
        if said is None:
            if len(self._said) >= self._kinds_max:
                del self._said[next(iter(self._said))]
            self._said[kind] = (now, 0)
            return 1
        at, times = said
        times += 1
        if now - at < self._every_s:
            self._said[kind] = (at, times)
            return 0
        self._said[kind] = (now, 0)
        return times
