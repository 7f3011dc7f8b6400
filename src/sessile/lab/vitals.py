"""What a server of the demo owes to those who run it: a health check for the balancer, its figures for the supervisor.

It stands in front of everything else in the server. `/healthz` is for anybody; the rest answers only to who knows the
token, which never passes through the balancer, and is not there (404) for everybody else. A draining server says 503 and
goes on serving: new users go elsewhere, the ones it has stay.
"""

from __future__ import annotations

import hmac
import os
import time
from typing import TYPE_CHECKING, Any, Final

from sessile.lab.replies import Message, Receive, Send, send_json
from sessile.lab.states import Phase

if TYPE_CHECKING:
    from sessile.dashboard.control import App
    from sessile.engine import Engine

__all__ = ["DRAIN_PATH", "SERVE_PATH", "STATUS_PATH", "TOKEN_HEADER", "Vitals"]

HEALTH_PATH: Final = "/healthz"
STATUS_PATH: Final = "/_lab/status"
DRAIN_PATH: Final = "/_lab/drain"
SERVE_PATH: Final = "/_lab/serve"
TOKEN_HEADER: Final = "X-Sessile-Lab"  # noqa: S105 - the name of the header


class Vitals:
    """The outermost ASGI layer of one server."""

    def __init__(self, app: App, engine: Engine, token: str) -> None:
        self._app = app
        self._engine = engine
        self._token = token.encode()
        self._requests = 0
        self._started = time.monotonic()
        self.phase = Phase.JOINING

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http" and scope["path"] == HEALTH_PATH:
            phase = self._phase()
            await send_json(send, 200 if phase is Phase.READY else 503, {"state": phase})
        elif scope["type"] == "http" and self._is_supervisor(scope):
            await self._obey(scope["method"], scope["path"], send)
        else:
            self._requests += 1
            await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        if self._engine.backend is not None:
            await self._app({"type": "lifespan"}, receive, self._sending(send))
            return
        await receive()
        self.phase = Phase.READY
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.phase = Phase.DRAINING
        self._engine.close()
        await send({"type": "lifespan.shutdown.complete"})

    def _sending(self, send: Send) -> Send:
        """`send` that notices when the server has joined its cluster."""

        async def send_(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self.phase = Phase.READY
            await send(message)

        return send_

    def _phase(self) -> Phase:
        """What it says of itself; on SIGTERM the engine says so first."""
        return Phase.DRAINING if self._engine.is_draining else self.phase

    def _is_supervisor(self, scope: Message) -> bool:
        wanted = TOKEN_HEADER.lower().encode()
        told = [value for name, value in scope["headers"] if name == wanted]
        return len(told) == 1 and hmac.compare_digest(told[0], self._token)

    async def _obey(self, method: str, path: str, send: Send) -> None:
        if (method, path) == ("POST", DRAIN_PATH):
            self.phase = Phase.DRAINING
        elif (method, path) == ("POST", SERVE_PATH):
            self.phase = Phase.READY
        elif (method, path) != ("GET", STATUS_PATH):
            await send_json(send, 404, {"error": "there is nothing here"})
            return
        await send_json(send, 200, self._figures())

    def _figures(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "phase": self._phase(),
            "requests": self._requests,
            "uptime_s": round(time.monotonic() - self._started, 1),
            "stats": self._engine.stats(),
            "cluster": {} if self._engine.backend is None else self._engine.backend.status(),
        }
