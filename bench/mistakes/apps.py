"""Applications for the servers of a mistake, imported by name; everything else is set by the environment.

They are written as the README writes them: Starlette builds its middleware when the server starts, not when the module is read.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from sessile.asgi import SessionMiddleware
from sessile.status import StatusApp
from sessile.wsgi import SessionMiddleware as WsgiMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request

__all__ = ["asgi", "keyword", "mounted", "wsgi"]


async def count(request: Request) -> PlainTextResponse:
    """Count in the session."""
    session = request.scope["session"]
    session["n"] = session.get("n", 0) + 1
    return PlainTextResponse(str(session["n"]))


async def healthy(request: Request) -> PlainTextResponse:
    """For whoever starts the server; it touches no session."""
    del request
    return PlainTextResponse("ok")


def _app(*more: Mount, **settings: Any) -> Starlette:
    routes = [*more, Route("/ops", StatusApp()), Route("/healthz", healthy), Route("/", count)]
    return Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, **settings)])


def _count_wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    session = environ["sessile.session"]
    body = b"ok"
    if environ["PATH_INFO"] != "/healthz":
        session["n"] = session.get("n", 0) + 1
        body = b"%d" % session["n"]
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


asgi = _app()
keyword = _app(url="sticky://")
mounted = _app(Mount("/inner", _app()))

if os.environ.get("MISTAKE_APP") == "wsgi":  # the only one that is built when the module is read
    wsgi = WsgiMiddleware(_count_wsgi)
