"""The control API and the dashboard page, as an ASGI app over whatever runs the servers.

It holds no state and takes no decision: `Controlled` does, and answers with an `Outcome` that is passed on as it is.
Everything it answers but the page's files is JSON.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sessile.dashboard import files, guard

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["ACTIONS", "Controlled", "Outcome", "control_app"]

ACTIONS: Final = ("kill", "pause", "resume", "restart", "drain")
_NO_STORE: Final = {"Cache-Control": "no-store"}

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request: an HTTP status and the JSON that goes with it."""

    status: int
    data: dict[str, Any]


class Controlled(Protocol):
    """What the control API controls."""

    def status(self) -> dict[str, Any]:
        """What `GET /api/status` answers."""
        ...

    async def act(self, name: str, action: str) -> Outcome:
        """Do one of `ACTIONS` to the server of this name."""
        ...

    async def add(self) -> Outcome:
        """Start one more server."""
        ...


def control_app(controlled: Controlled) -> App:
    """The app for the control port."""
    page = files.load("sessile.dashboard")

    async def index(request: Request) -> Response:
        name = request.path_params.get("name", "dashboard.html")
        if name not in page:
            return _error(404, "there is no such file")
        return Response(page[name].body, headers=files.headers_of(page[name]))

    async def status(request: Request) -> Response:
        del request
        return JSONResponse(controlled.status(), headers=_NO_STORE)

    async def act(request: Request) -> Response:
        name, action = request.path_params["name"], request.path_params["action"]
        if action not in ACTIONS:
            return _error(404, f"there is no action {action!r}; there are {', '.join(ACTIONS)}")
        return _told(await controlled.act(name, action))

    async def add(request: Request) -> Response:
        del request
        return _told(await controlled.add())

    routes = [
        Route("/", index, methods=["GET"]),
        Route("/static/{name}", index, methods=["GET"]),
        Route("/api/status", status, methods=["GET"]),
        Route("/api/servers", add, methods=["POST"]),
        Route("/api/servers/{name}/{action}", act, methods=["POST"]),
    ]
    return _guarded(Starlette(routes=routes, exception_handlers={HTTPException: _http_error}))


def _guarded(app: App) -> App:
    """The app behind the guard."""

    async def guarded(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        reason = guard.refusal(scope["method"], scope["headers"]) if scope["type"] == "http" else None
        await (app if reason is None else _error(403, reason))(scope, receive, send)

    return guarded


def _told(outcome: Outcome) -> Response:
    return JSONResponse(outcome.data, outcome.status, headers=_NO_STORE)


def _error(status: int, sentence: str) -> Response:
    return _told(Outcome(status, {"error": sentence}))


async def _http_error(request: Request, error: Exception) -> Response:
    """What the router itself answers: no such path, or not with this method."""
    assert isinstance(error, HTTPException), "registered for nothing else"
    sentence = f"{request.method} {request.url.path}: {error.detail.lower()}"
    return JSONResponse({"error": sentence}, error.status_code, headers=error.headers)
