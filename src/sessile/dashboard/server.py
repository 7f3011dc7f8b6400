"""An ASGI app served by uvicorn inside a loop that is somebody else's, on a socket that listens already.

It starts no process and takes no signal: whoever runs the loop decides when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from sessile.dashboard.control import App

__all__ = ["InnerServer"]

STOP_S = 1


class _Unsignalled(uvicorn.Server):
    """Leaves signals to the loop's owner."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class InnerServer:
    """Serves `app` on `listener` until it is stopped."""

    def __init__(self, app: App, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_S,
        )
        self._server = _Unsignalled(config)
        self._listener = listener
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to take connections."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def stop(self) -> None:
        """Finish what is under way, a second at the most."""
        if self._serving is None:
            self._listener.close()
            return
        self._server.should_exit = True
        await self._serving
