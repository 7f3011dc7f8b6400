"""Litestar's server-side sessions on Redis. It has no way to give a session another id."""

from __future__ import annotations

from typing import Any

from bench.races.requests import arrive_async, given_by, told


def build(_store: str, redis_port: int) -> Any:
    """The app."""
    # Litestar is there only in this peer's own environment.
    from litestar import Litestar, Request, get  # type: ignore[import-not-found]
    from litestar.exceptions import NotFoundException  # type: ignore[import-not-found]
    from litestar.middleware.session.server_side import ServerSideSessionConfig  # type: ignore[import-not-found]
    from litestar.stores.redis import RedisStore  # type: ignore[import-not-found]

    async def handle(request: Any, verb: str) -> str:
        if verb == "plain":
            return "{}"
        if verb == "rotate":
            raise NotFoundException
        given, session = given_by(request.url.query), request.session
        dict(session)
        await arrive_async(given)
        if verb == "set":
            session[given["name"]] = given["value"]
        elif verb == "logout":
            request.clear_session()
            return "{}"
        return told(session)

    handle.__annotations__ = {"request": Request, "verb": str, "return": str}
    return Litestar(
        [get("/{verb:str}", media_type="text/plain")(handle)],
        middleware=[ServerSideSessionConfig().middleware],
        stores={"sessions": RedisStore.with_client(f"redis://127.0.0.1:{redis_port}")},
    )
