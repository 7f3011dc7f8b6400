"""fastapi-redis-sdk: it gives a session another id by itself when `user_id`, its principal, changes."""

from __future__ import annotations

import os
from typing import Any

from bench.races.requests import arrive_async, given_by, told


def build(_store: str, redis_port: int) -> Any:
    """The app."""
    os.environ["REDIS_URL"] = f"redis://127.0.0.1:{redis_port}"
    # Each of these packages is there only in this peer's own environment.
    from fastapi import FastAPI, Request
    from fastapi.responses import PlainTextResponse
    from redis_fastapi import FastAPIRedis  # type: ignore[import-not-found]

    app = FastAPI()
    FastAPIRedis(app).lifespan().sessions()

    async def handle(request: Any, verb: str) -> PlainTextResponse:
        if verb == "plain":
            return PlainTextResponse("{}")
        given, session = given_by(request.url.query), request.session
        dict(session)
        await arrive_async(given)
        if verb == "set":
            session[given["name"]] = given["value"]
        elif verb == "rotate":
            session["user_id"] = session["user"] = "ann"
        elif verb == "logout":
            session.clear()
        return PlainTextResponse(told(session))

    handle.__annotations__ = {"request": Request, "verb": str}
    app.get("/{verb}", response_class=PlainTextResponse)(handle)
    return app
