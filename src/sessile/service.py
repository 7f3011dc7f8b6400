"""Something that lives on one event loop and is asked from anywhere: the part that all backends share.

It is started once, on the loop of whoever starts it or on one in a thread of its own. Questions of that loop are asked at
once; those of other loops and of threads cross over to it, and a thread waits. A loop that was closed is noticed: state
belongs to no loop, IO does, and the next one who starts it starts it anew.
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
"""What a question from another thread may take beyond its own timeout before the loop it crossed to is given up."""
RETRY_S: Final = 1.0
"""Pause before a start that failed is tried again, in seconds."""


class Service:
    """Base of what lives on a loop: `begin`, `end`, `abandon` and `forget` are its own."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where it runs; None while it does not."""
        self._starting: asyncio.Task[None] | None = None
        self._refused: str | None = None
        """Why the last start failed; None if it did not."""
        self._refused_s = 0.0
        self._portal: Portal | None = None
        self._portal_lock = threading.Lock()
        call_after_fork(self._after_fork)

    async def begin(self) -> None:
        """Start on the running loop. Raises SettingsError where it cannot."""

    async def end(self) -> None:
        """End in good order, on the loop that it began on."""

    def abandon(self) -> None:
        """The loop it ran on was closed: let go of what is left."""

    def forget(self) -> None:
        """In a forked child: leave everything to the parent, and keep what was inherited from being finalised."""

    @property
    def is_running(self) -> bool:
        """Whether it was started, in this process, on a loop that still runs."""
        notice_fork()
        return self.loop is not None and not self.loop.is_closed()

    async def start(self) -> None:
        """Start on the running loop; once, whoever asks, and whoever asks meanwhile waits for it.

        Raises:
            SettingsError: it cannot. Who asks within `RETRY_S` gets the same error without another attempt: a start that
                fails costs a certificate and a name lookup, and every request asks for it.
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
        """Start from a program without a loop; it ends when the program does. Raises as `start` does."""
        with self._portal_lock:
            if not self.is_running:
                self._portal = self._portal or Portal()
                self._portal.run(self.start())
                atexit.register(self.stop_in_thread)

    async def stop(self) -> None:
        """End in good order."""
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
        """The same for a program without a loop."""
        notice_fork()  # a child that served no request comes here first when it ends
        with self._portal_lock:
            portal, self._portal = self._portal, None
            atexit.unregister(self.stop_in_thread)
            if portal is not None:
                portal.run(self.stop())
                portal.close()

    async def ask(self, make: Callable[[], Coroutine[Any, Any, T]], timeout_s: float) -> T | None:
        """What the coroutine that `make` gives returns, run where this lives; None where that loop is gone."""
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
