"""Two applications for real servers, which import them by name: `asgi` and `wsgi`. The secret comes from the environment.

Each answers with what it knows of itself and of the session, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from sessile.asgi import SessionMiddleware as AsgiMiddleware
from sessile.asgi import run
from sessile.wsgi import SessionMiddleware as WsgiMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sessile.engine import Engine

__all__ = ["asgi", "wsgi"]


def told(engine: Engine, session: Any) -> bytes:
    """Count, and say what there is to say."""
    is_new = session.new
    said = {
        "pid": os.getpid(),
        "new": is_new,
        "n": session.increment("n"),
        "fields": dict(session),
        "writer": engine.writer,
        "stats": engine.stats(),
        "linked": 0 if engine.backend is None else engine.backend.status().get("linked"),
    }
    return json.dumps(said).encode()


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    """Has no lifespan, as little apps have none: it fails at anything but HTTP and WebSocket."""
    assert scope["type"] in {"http", "websocket"}, "no lifespan here"
    session = scope["session"]
    if scope["type"] == "http":
        body = told(asgi.engine, session)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
        return
    session["joined"] = True
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        session["said"] = message["text"]
        await send({"type": "websocket.send", "text": told(asgi.engine, session).decode()})


def _wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    body = told(wsgi.engine, environ["sessile.session"])
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


asgi = AsgiMiddleware(_asgi)
wsgi = WsgiMiddleware(_wsgi)

if __name__ == "__main__":
    run("tests.served:asgi", port=int(sys.argv[1]))
