"""The life of a server as ASGI tells it: join the cluster before the app starts, leave it after the app has ended.

An app that knows nothing of lifespan is spoken for. On SIGTERM a server first says that it is draining and goes on serving,
so that balancers send new requests elsewhere, and only then lets its own handler stop it.

ASGI lifespan protocol 2.0: https://asgi.readthedocs.io/en/latest/specs/lifespan.html
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from sessile.errors import SessileError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from types import FrameType

    from sessile.engine import Engine

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

__all__ = ["live", "refuse_to_start"]


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
            drain_on_sigterm(engine)
        return message

    async def send_(message: Message) -> None:
        if message["type"] in {"lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed"}:
            await leave()
        await send(message)

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
        return
    loop, pid = asyncio.get_running_loop(), os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, servers_own)
        servers_own(number, frame)

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        if engine.is_draining or loop.is_closed() or os.getpid() != pid:
            stop(number, frame)
            return
        engine.is_draining = True
        loop.call_soon_threadsafe(loop.call_later, grace_s, stop, number, None)

    signal.signal(signal.SIGTERM, on_sigterm)
