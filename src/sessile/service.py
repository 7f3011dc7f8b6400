"""The base class of all backends: it runs on one event loop, and may be called from any thread or loop.

A service is started once, on the running loop or on a loop in a thread of its own. Calls from that loop run at once. Calls
from other loops and from threads are passed to it; a thread blocks until the result is there. If the loop was closed, the next
call of `start` starts the service again on another one: only IO is bound to the loop, state is not.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sessile.blocking import running_loop
from sessile.errors import SettingsError
from sessile.forks import call_after_fork, keep_forever, notice_fork
from sessile.portal import Portal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Service"]

T = TypeVar("T")
CROSSING_S: Final = 5.0
"""How long beyond its own timeout a call from another thread or loop waits before it is given up."""
RETRY_S: Final = 1.0
"""Pause before a start that failed is tried again, in seconds."""


class Service:
    """Base of what runs on a loop. Subclasses implement `begin`, `end`, `abandon` and `forget`."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        """The loop it runs on; None while it is stopped."""
        self._starting: asyncio.Task[None] | None = None
        self._refused: str | None = None
        """The error message of the last start; None if it succeeded."""
        self._refused_s = 0.0
        self._portal: Portal | None = None
        self._portal_lock = threading.Lock()
        call_after_fork(self._after_fork)

    async def begin(self) -> None:
        """Start on the running loop. Raises SettingsError if it cannot start."""

    async def end(self) -> None:
        """Stop cleanly, on the loop it runs on."""

    def abandon(self) -> None:
        """Drop everything that is bound to the loop, which was closed."""

    def forget(self) -> None:
        """Called in a forked child: leave connections to the parent, and keep inherited objects from being finalised."""

    @property
    def is_running(self) -> bool:
        """Whether it was started, in this process, on a loop that still runs."""
        notice_fork()
        return self.loop is not None and not self.loop.is_closed()

    async def start(self) -> None:
        """Start on the running loop, unless it is running. Calls during a start wait for that start.

        Raises:
            SettingsError: it cannot start. Calls within `RETRY_S` get the same error without another attempt, because every
                request calls this, and a start that fails costs a certificate and a name lookup.
        """
        if self.is_running:
            return
        if self._refused is not None and time.monotonic() - self._refused_s < RETRY_S:
            raise SettingsError(self._refused)
        loop = asyncio.get_running_loop()
        if self._starting is None or self._starting.get_loop() is not loop:
            self._starting = loop.create_task(self._begin(loop))
        try:
            await asyncio.shield(self._starting)
        finally:
            if self._starting is not None and self._starting.done():
                self._starting = None

    async def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.loop is not None:
            self.loop = None
            self.abandon()
        try:
            await self.begin()
        except SettingsError as error:
            self._refused, self._refused_s = str(error), time.monotonic()
            raise
        self.loop, self._refused = loop, None

    def start_in_thread(self) -> None:
        """Start on a loop in a thread of its own, until the program exits. Raises what `start` raises."""
        with self._portal_lock:
            if not self.is_running:
                self._portal = self._portal or Portal()
                self._portal.run(self.start())
                atexit.register(self.stop_in_thread)

    async def stop(self) -> None:
        """Stop cleanly, from any loop."""
        notice_fork()
        loop = self.loop
        if loop is None or loop.is_closed():
            return
        if asyncio.get_running_loop() is not loop:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.stop(), loop))
            return
        await self.end()
        self.loop = None

    def stop_in_thread(self) -> None:
        """Stop what `start_in_thread` started."""
        notice_fork()  # a child that served no request comes here first when it ends
        with self._portal_lock:
            portal, self._portal = self._portal, None
            atexit.unregister(self.stop_in_thread)
            if portal is not None:
                portal.run(self.stop())
                portal.close()

    async def ask(self, make: Callable[[], Coroutine[Any, Any, T]], timeout_s: float) -> T | None:
        """Run the coroutine that `make` returns on this service's loop. Returns its result; None if the loop is gone."""
        loop = self.loop
        if loop is None or loop.is_closed():
            return None
        here = running_loop()
        if here is loop:
            return await make()
        crossing = asyncio.run_coroutine_threadsafe(make(), loop)
        try:
            if here is not None:
                return await asyncio.wait_for(asyncio.wrap_future(crossing), timeout_s + CROSSING_S)
            return crossing.result(timeout_s + CROSSING_S)
        except TimeoutError:
            crossing.cancel()
            return None

    def _after_fork(self) -> None:
        if self.loop is not None or self._starting is not None or self._portal is not None:
            keep_forever(dict(vars(self)))
        atexit.unregister(self.stop_in_thread)
        self.loop = self._starting = self._portal = self._refused = None
        self._portal_lock = threading.Lock()
        self.forget()
