"""How tasks are ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["end_tasks"]

AGAIN_S: Final = 0.1


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel these and wait until all have ended, however they end.

    One that goes on is cancelled again: before Python 3.12 `asyncio.wait_for`, which drivers use, loses a cancellation that
    comes in the moment in which what it waits for is done (python/cpython#86296).
    """
    every = list(tasks)
    while left := [task for task in every if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=AGAIN_S)
    await asyncio.gather(*every, return_exceptions=True)  # an error that nobody has looked at is told otherwise
