"""The Starlette app that every ASGI contender serves, with sessions or without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from bench.peers.workload import HANDLERS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request


def build(*, sessions: bool) -> Starlette:
    """An app with the routes of the workload; without sessions its handlers work on one plain dict."""
    plain: dict[str, Any] = {}

    def endpoint(handle: Callable[[Any], str]) -> Callable[[Request], Awaitable[PlainTextResponse]]:
        async def with_session(request: Request) -> PlainTextResponse:
            return PlainTextResponse(handle(request.session))

        async def without(_request: Request) -> PlainTextResponse:
            return PlainTextResponse(handle(plain))

        return with_session if sessions else without

    return Starlette(routes=[Route(path, endpoint(handle)) for path, handle in HANDLERS.items()])
