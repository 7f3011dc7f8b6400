"""starsessions on Redis, loaded before the handler as its documentation recommends."""

from __future__ import annotations

from typing import Any

from bench.races.requests import arrive_async, given_by, told


def build(_store: str, redis_port: int) -> Any:
    """The app."""
    # Each of these packages is there only in this peer's own environment.
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from starsessions import (  # type: ignore[import-not-found]
        SessionAutoloadMiddleware,
        SessionMiddleware,
        regenerate_session_id,
    )
    from starsessions.stores.redis import RedisStore  # type: ignore[import-not-found]

    async def handler(request: Any) -> PlainTextResponse:
        path, given, session = request.url.path, given_by(request.url.query), request.session
        if path == "/plain":
            return PlainTextResponse("{}")
        dict(session)
        await arrive_async(given)
        if path == "/set":
            session[given["name"]] = given["value"]
        elif path == "/rotate":
            regenerate_session_id(request)
            session["user"] = "ann"
        elif path == "/logout":
            session.clear()
        return PlainTextResponse(told(session))

    paths = ("/plain", "/show", "/set", "/rotate", "/logout")
    app = SessionAutoloadMiddleware(Starlette(routes=[Route(path, handler) for path in paths]))
    return SessionMiddleware(app, store=RedisStore(f"redis://127.0.0.1:{redis_port}"), lifetime=3_600)
