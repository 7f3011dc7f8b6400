"""An event loop in a thread of its own, for programs that have none: WSGI servers, scripts.

Callers cross to it one way, `Portal.run`. It is a daemon thread: it keeps no process alive.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Final, TypeVar

from sessile.errors import SettingsError
from sessile.forks import dropped_by

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

__all__ = ["Portal", "green_threads"]

T = TypeVar("T")
CLOSE_S: Final = 2.0
_PATCHES: Final = {"gevent": ("gevent.monkey", "is_module_patched", "threading")} | {
    "eventlet": ("eventlet.patcher", "is_monkey_patched", "thread")
}
"""What replaces threads by tasks of one thread → the function that says whether it did: its module, its name, its argument."""


def green_threads() -> str:
    """The name of what has replaced the threads of this process by tasks of one thread; empty where nothing has."""
    for name, (module, function, argument) in _PATCHES.items():
        is_patched = getattr(sys.modules.get(module), function, None)
        if is_patched is not None and is_patched(argument):
            return name
    return ""


@dropped_by("Service", "in a child the loop is never finalised, and Service makes another portal when it starts anew")
class Portal:
    """A running loop in a thread.

    Raises:
        SettingsError: this process has no threads, since gevent or eventlet has replaced them.
    """

    def __init__(self) -> None:
        if patched := green_threads():
            # All of them would share the one thread, and with it the loop that asyncio takes for the running one.
            raise SettingsError(
                f"a cluster or store cannot be used under {patched}, which replaces the threads that it needs: use real "
                "threads (gunicorn --worker-class gthread --threads 16) or an ASGI server"
            )
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
