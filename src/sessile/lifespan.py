"""The life of a server as ASGI tells it: join the cluster before the app starts, leave it after the app has ended.

An app that knows nothing of lifespan is spoken for. On SIGTERM a server first says that it is draining and goes on serving,
so that balancers send new requests elsewhere, and only then lets its own handler stop it.

ASGI lifespan protocol 2.0: https://asgi.readthedocs.io/en/latest/specs/lifespan.html
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

from sessile.errors import SessileError
from sessile.forks import call_after_fork, cut_off

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from types import FrameType

    from sessile.engine import Engine

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

__all__ = ["live", "refuse_to_start"]

_LOG: Final = logging.getLogger("sessile")
_LOOPS: Final = frozenset({"asyncio", "uvloop", "rloop"})
"""Packages whose loops put a function of theirs, which does nothing, into Python's table for `add_signal_handler`."""
READ_BYTES: Final = 4_096


class _CannotStartError(Exception):
    """The server has been told why."""


async def live(engine: Engine, app: App, scope: Message, receive: Receive, send: Send) -> None:
    """One lifespan of a server: the app's, with the cluster's around it."""
    backend = engine.backend
    assert backend is not None, "alone, there is nothing to join"
    is_asked = False

    async def leave() -> None:
        await backend.stop()
        engine.close()

    async def receive_() -> Message:
        nonlocal is_asked
        is_asked = True
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                await backend.start()
            except SessileError as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                raise _CannotStartError from None
        return message

    async def send_(message: Message) -> None:
        if message["type"] in {"lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed"}:
            await leave()
        await send(message)
        if message["type"] == "lifespan.startup.complete":
            drain_on_sigterm(engine)

    try:
        try:
            await app(scope, receive_, send_)
        except _CannotStartError:
            raise
        except Exception:
            if is_asked:
                await leave()
                raise
        if not is_asked:
            await receive_()
            await send_({"type": "lifespan.startup.complete"})
            await receive_()
            await send_({"type": "lifespan.shutdown.complete"})
    except _CannotStartError:
        return


async def refuse_to_start(reason: str, receive: Receive, send: Send) -> None:
    """One lifespan of a server that is not to start."""
    if (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.failed", "message": reason})


def drain_on_sigterm(engine: Engine) -> None:
    """Let SIGTERM mark the engine as draining, and reach the server's own handler `drain_grace` later.

    A second SIGTERM reaches that handler at once. In a forked child, which inherits this handler without its loop, the first
    one does. Does nothing outside the main thread, or where the server has no handler in Python.
    """
    grace_s = engine.settings.drain_grace
    if not grace_s or threading.current_thread() is not threading.main_thread():
        return
    servers_own = signal.getsignal(signal.SIGTERM)
    if not callable(servers_own):
        _LOG.warning(
            "drain_grace=%gs has no effect, since this process does not hear SIGTERM: start one process that serves by "
            "itself (hypercorn --workers 0), or set drain_grace=0",
            grace_s,
        )
        return
    loop, pid = asyncio.get_running_loop(), os.getpid()
    is_loops = str(getattr(servers_own, "__module__", "")).partition(".")[0] in _LOOPS
    held = _HeldSignal(loop, signal.SIGTERM) if is_loops else None

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, servers_own)
        servers_own(number, frame)
        if held is not None:
            held.release()

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        if engine.is_draining or loop.is_closed() or os.getpid() != pid:
            stop(number, frame)
            return
        engine.is_draining = True
        loop.call_soon_threadsafe(loop.call_later, grace_s, stop, number, None)

    signal.signal(signal.SIGTERM, on_sigterm)


class _HeldSignal:
    """Keeps a signal from a loop whose `add_signal_handler` the server has used.

    Such a loop calls the server's handler when it reads the signal's number from its wakeup descriptor
    (`signal.set_wakeup_fd`), whatever Python's handler of the signal does. So another descriptor takes its place, and every
    number but this one is passed on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, number: int) -> None:
        self._loop = loop
        self._number = number
        self._reading, self._writing = socket.socketpair()
        self._reading.setblocking(False)
        self._writing.setblocking(False)
        self._loops = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        loop.add_reader(self._reading, self._pass_on)
        call_after_fork(self._after_fork)

    def release(self) -> None:
        """Let the loop have its descriptor again, and the number that was kept from it."""
        if self._loops >= 0:
            signal.set_wakeup_fd(self._loops, warn_on_full_buffer=False)
            os.write(self._loops, bytes([self._number]))
        self._close()

    def _pass_on(self) -> None:
        with contextlib.suppress(BlockingIOError):
            numbers = self._reading.recv(READ_BYTES).replace(bytes([self._number]), b"")
            if numbers and self._loops >= 0:
                os.write(self._loops, numbers)

    def _close(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._reading)
        self._reading.close()
        self._writing.close()

    def _after_fork(self) -> None:
        """The loop is the parent's, and so is what is written to these."""
        cut_off(self._reading.fileno())
        cut_off(self._writing.fileno())
        self._loops = -1
