"""The tasks that wait for the end of a session, such as an open WebSocket whose user logs out elsewhere.

The table calls `ended` for every end that this process learns of, from any thread. A waiter is woken on its own event loop.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from sessile.forks import call_after_fork

if TYPE_CHECKING:
    import asyncio

    from sessile.token import SessionKey

__all__ = ["Watchers"]


class Watchers:
    """The waiters of one process, by session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[SessionKey, set[asyncio.Future[None]]] = {}
        call_after_fork(self._after_fork)

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, key: SessionKey, timeout_s: float) -> None:
        """Wait until this process learns that the session has ended, at most for this time."""
        import asyncio  # noqa: PLC0415  # it takes a while, and most processes never wait

        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiting.setdefault(key, set()).add(waiter)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await waiter
        finally:
            with self._lock:
                waiters = self._waiting.get(key)
                if waiters is not None:
                    waiters.discard(waiter)
                    if not waiters:
                        del self._waiting[key]

    def ended(self, key: SessionKey) -> None:
        """Wake all waiters for the end of this session."""
        if key not in self._waiting:  # almost always
            return
        with self._lock:
            waiters = self._waiting.pop(key, set())
        for waiter in waiters:
            with contextlib.suppress(RuntimeError):  # its loop was closed meanwhile
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)

    def _after_fork(self) -> None:
        """The waiters belong to the parent process, and one of its threads may have held the lock."""
        self._lock, self._waiting = threading.Lock(), {}


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
