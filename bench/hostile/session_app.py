"""A small application on sessions, as ASGI and as WSGI: it tells what its session holds, and writes where it is asked to.

`/read` only looks. `/write?NAME` puts the name into the session. Both answer with JSON: whether the session is new, its
key and its fields. `uvicorn bench.hostile.session_app:served` serves it.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from sessile import Engine
from sessile.asgi import SessionMiddleware
from sessile.wsgi import SessionMiddleware as WsgiSessionMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping
    from wsgiref.types import StartResponse, WSGIEnvironment

    from sessile import Session

__all__ = ["COOKIE_NAME", "SECRET", "asgi", "engine", "served", "wsgi"]

SECRET: Final = "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"
COOKIE_NAME: Final = "trial"
JSON_TYPE: Final = "application/json"


def engine(secret: str = SECRET, cookie_name: str = COOKIE_NAME, **settings: Any) -> Engine:
    """An engine with the trial's settings, or a stranger's."""
    return Engine(url="sticky://", secret=secret, cookie_name=cookie_name, **settings)


def _answer(session: Session, path: str, query: str) -> bytes:
    if path == "/write":
        session["who"] = query
    told = {"new": session.new, "fields": {name: session[name] for name in session}, "key": session.key}
    return json.dumps(told).encode()


async def _asgi_app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    del receive
    body = _answer(scope["session"], scope["path"], scope["query_string"].decode("latin-1"))
    headers = [(b"content-type", JSON_TYPE.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _wsgi_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = _answer(environ["sessile.session"], environ["PATH_INFO"], environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", JSON_TYPE), ("Content-Length", str(len(body)))])
    return [body]


def asgi(shared: Engine) -> SessionMiddleware:
    """The application as ASGI."""
    return SessionMiddleware(_asgi_app, engine=shared)


def wsgi(shared: Engine) -> WsgiSessionMiddleware:
    """The application as WSGI."""
    return WsgiSessionMiddleware(_wsgi_app, engine=shared)


async def served(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    """The whole application as a server runs it: health, and the rest in a session."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/healthz":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
    else:
        await _served(scope, receive, send)


_served = asgi(engine(os.environ.get("TRIAL_SECRET", SECRET)))
