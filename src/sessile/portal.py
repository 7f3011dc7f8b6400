"""An event loop in a thread of its own, for programs that have none: WSGI servers, scripts.

Callers cross to it one way, `Portal.run`. It is a daemon thread: it keeps no process alive.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Final, TypeVar

from sessile.forks import dropped_by

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

__all__ = ["Portal"]

T = TypeVar("T")
CLOSE_S: Final = 2.0


@dropped_by("Service", "in a child the loop is never finalised, and Service makes another portal when it starts anew")
class Portal:
    """A running loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="sessile-portal", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run this on the loop, wait for it, and return or raise what it does."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def close(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
