"""A timeout that blames the other side only for time that this process had.

Where other threads compute, each step of a trip waits for the interpreter's lock, and a trip of a millisecond takes a second:
the store is well, and this process is late. So a timeout is counted in turns of the event loop. A turn that came on time
counts; one that came late shows that the process was starved, or stopped, and does not. An idle process gives up after the
timeout, as ever; a starved one waits on, but not longer than `STRETCH_MAX` timeouts. Then nobody can tell who was slow, and
that is another error: `Starved`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["STRETCH_MAX", "Starved", "Turns", "within"]

STRETCH_MAX: Final = 5.0
"""The longest wait of a starved process, in timeouts."""
TURNS: Final = 20
"""Turns on time in one timeout."""
LATE_PART: Final = 0.25
"""A turn that is late by more than this part of itself was late."""
LATE_MIN_S: Final = 0.01
"""An operating system may be late by this much without anybody being starved."""


class Starved(TimeoutError):
    """No answer was heard in time, and this process had too little of that time for itself."""


class Turns:
    """What is left of one timeout.

    Args:
        timeout_s: the timeout.
        now_s: when it begins.
    """

    def __init__(self, timeout_s: float, now_s: float) -> None:
        self.step_s = timeout_s / TURNS
        """The next turn is due after this time."""
        self.is_starved = False
        """Whether it ended because too many turns were late."""
        self._timeout_s = timeout_s
        self._last_s = now_s
        self._on_time = 0
        self._waited_s = 0.0

    def is_over(self, now_s: float) -> bool:
        """A turn has come; whether it was the last. However long a process was stopped, that costs one timeout at most."""
        turn_s, self._last_s = now_s - self._last_s, now_s
        self._waited_s += min(turn_s, self._timeout_s)
        self._on_time += turn_s - self.step_s <= max(LATE_PART * self.step_s, LATE_MIN_S)
        self.is_starved = self._on_time < TURNS
        return not self.is_starved or self._waited_s >= STRETCH_MAX * self._timeout_s


@contextlib.asynccontextmanager
async def within(timeout_s: float, *, insist_s: float = 0.0) -> AsyncIterator[None]:
    """Cancel what is in here when its time is over.

    Args:
        timeout_s: for so long an idle process waits.
        insist_s: where it has not ended so much later, it is cancelled once more; 0 for never.

    Raises:
        Starved: time was over, and this process may be to blame.
        TimeoutError: time was over, and it is not.
    """
    loop = asyncio.get_running_loop()
    turns = Turns(timeout_s, loop.time())
    timer: asyncio.TimerHandle
    try:
        async with asyncio.timeout(None) as again, asyncio.timeout(None) as timeout:

            def turn() -> None:
                nonlocal timer
                now_s = loop.time()
                if not turns.is_over(now_s):
                    timer = loop.call_later(turns.step_s, turn)
                    return
                timeout.reschedule(now_s)
                if insist_s:
                    again.reschedule(now_s + insist_s)

            timer = loop.call_later(turns.step_s, turn)
            try:
                yield
            finally:
                timer.cancel()
    except TimeoutError as error:
        if turns.is_starved and (timeout.expired() or again.expired()):
            raise Starved from error
        raise
