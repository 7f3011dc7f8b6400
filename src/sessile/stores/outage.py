"""Whether a store is away, and for how long it is worth waiting for what it lacks.

A failover takes seconds. A request whose browser has seen more than is to be had at this moment waits for its end, and then
for the servers to bring what they could not bring meanwhile; but only so long after the outage began: in a long one nobody
waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from random import SystemRandom
from typing import Final

from sessile.forks import dropped_by

__all__ = ["PATIENCE_S", "Outage", "probe_in_s"]

FAILOVER_S: Final = 5.0
"""So long after an outage began its end is waited for."""
SETTLE_S: Final = 2.0
"""So long after its end, or after another primary was seen, servers may still bring what they had queued."""
PAUSE_S: Final = 0.02
PROBE_MIN_S: Final = 0.05
PROBE_MAX_S: Final = 1.0
PATIENCE_S: Final = FAILOVER_S + SETTLE_S
"""Nothing is waited for longer."""


@dropped_by("Shared", "a child that has not used the store knows of no outage")
class Outage:
    """The present outage, if there is one, and what is left of the last."""

    def __init__(self) -> None:
        self.reason = ""
        """Why the store is away; empty while it is there."""
        self._over = asyncio.Event()
        self._worth_until_s = 0.0

    def __bool__(self) -> bool:
        return bool(self.reason)

    def begin(self, reason: str) -> None:
        """The store is away from now on."""
        self.reason = reason
        self._over.clear()
        self._worth_until_s = max(self._worth_until_s, asyncio.get_running_loop().time() + FAILOVER_S)

    def end(self) -> None:
        """It is back."""
        self.reason = ""
        self._over.set()
        self._worth_until_s = 0.0
        self.unsettle()

    def unsettle(self) -> None:
        """Servers are bringing the store what it lacks; an outage that goes on is waited for no shorter."""
        self._worth_until_s = max(self._worth_until_s, asyncio.get_running_loop().time() + SETTLE_S)

    def worth_s(self) -> float:
        """For so many seconds more it is worth asking again, or 0."""
        return max(self._worth_until_s - asyncio.get_running_loop().time(), 0.0)

    async def pause(self, times: int, at_most_s: float) -> None:
        """Until it is worth asking again: the store is back, or others had time to bring something.

        Args:
            times: how often it was asked again already; the pauses grow.
            at_most_s: no longer than this.
        """
        if not self.reason:
            await asyncio.sleep(min(PAUSE_S * 2 ** min(times, 4), at_most_s))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._over.wait()


def probe_in_s(times: int) -> float:
    """So long until a store that is away is looked for again; drawn, so that servers are no herd.

    Args:
        times: how often it was looked for already.
    """
    return min(PROBE_MIN_S * 2.0 ** min(times, 10), PROBE_MAX_S) * SystemRandom().uniform(0.5, 1.5)
