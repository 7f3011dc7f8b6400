"""How one server is, for `sessile status` and for monitoring: an endpoint to be mounted at a path of one's own choice.

It tells what the engine counts and how its cluster is, and nothing of any session. Who asks must send the token
(`Authorization: Bearer …`); for everybody else nothing is there: 404, whatever else was wrong. It touches no session.

Without a token, every response is 503 and says what to set; the same line is logged once. The service itself starts: a missing
token is no reason to stop it.
"""

from __future__ import annotations

import hmac
import json
import os
import socket
from typing import TYPE_CHECKING, Any, Final

from sessile.answers import log_once
from sessile.errors import SettingsError
from sessile.kinds import SECRET_BYTES_MIN
from sessile.token import derive_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping
    from wsgiref.types import StartResponse, WSGIEnvironment

    from sessile.engine import Engine
    from sessile.settings import Settings

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["TOKEN_VARIABLE", "StatusApp", "StatusWSGIApp", "fingerprints", "status_of"]

TOKEN_VARIABLE: Final = "SESSILE_STATUS_TOKEN"  # noqa: S105 - the name of the variable
FINGERPRINT_BYTES: Final = 4
_METHODS: Final = frozenset({"GET", "HEAD"})


def status_of(engine: Engine) -> dict[str, Any]:
    """How this process's server is, as plain values; in the demo's `GET /api/status` each server is told in the same way."""
    stats = engine.stats()
    cluster = {} if engine.backend is None else engine.backend.status()
    return {
        "name": cluster.get("name") or socket.gethostname(),
        "pid": os.getpid(),
        "strategy": engine.settings.scheme,
        "secrets": fingerprints(engine.settings),
        "node": cluster.get("name", ""),
        "state": "draining" if engine.is_draining else cluster.get("state", "ready"),
        "sessions": stats["sessions"],
        "copies": cluster.get("backup", 0) + cluster.get("other", 0),
        "bytes": stats["bytes"],
        "bytes_sent": cluster.get("bytes_sent", 0),
        "bytes_received": cluster.get("bytes_received", 0),
        "stats": stats,
        "cluster": cluster,
    }


def fingerprints(settings: Settings) -> list[str]:
    """A mark for each secret, the one that signs first: servers whose marks are alike read each other's cookies.

    It is derived as a cookie's key is, in one direction, for this purpose alone.
    """
    context = ("shown in the status", settings.cluster, settings.cookie_name)
    return [derive_key(secret, *context)[:FINGERPRINT_BYTES].hex() for secret in settings.secrets]


class _Door:
    """Who may look, and what is answered."""

    def __init__(self, app: str, engine: Engine | None, token: str | None) -> None:
        self._engine = engine
        self._token = b""
        self._mistake = ""
        """Why there is no token to compare with; empty where there is."""
        try:
            self._token = _checked(app, token)
        except SettingsError as error:
            self._mistake = str(error)
            log_once(error)

    def answer(self, method: str, credentials: list[bytes], here: Engine | None) -> tuple[str, bytes, str]:
        """Status line, body and its type; `credentials` are the values of the request's Authorization fields."""
        if self._mistake:
            return "503 Service Unavailable", f"{self._mistake}\n".encode(), "text/plain; charset=utf-8"
        engine = self._engine or here
        if engine is None or method not in _METHODS or len(credentials) != 1 or not self._is_token(credentials[0]):
            return "404 Not Found", b"Not Found\n", "text/plain; charset=utf-8"
        return "200 OK", json.dumps(status_of(engine), default=str).encode(), "application/json"

    def _is_token(self, credentials: bytes) -> bool:
        """RFC 6750 §2.1; the time it takes tells nothing of the token."""
        scheme, _, told = credentials.partition(b" ")
        return hmac.compare_digest(told.strip(), self._token) and scheme.lower() == b"bearer"


class StatusApp:
    """An ASGI app that tells how this server is.

    Args:
        engine: whose status; without it, the one of the `SessionMiddleware` around it.
        token: the token that requests must carry, at least 16 visible ASCII characters; by default `SESSILE_STATUS_TOKEN`.
            If there is none, or it is not valid, every response is 503, and the reason is logged once.
    """

    def __init__(self, engine: Engine | None = None, *, token: str | None = None) -> None:
        self._door = _Door("StatusApp", engine, token)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        del receive  # no question here has a body
        if scope["type"] != "http":
            return
        credentials = [value for name, value in scope["headers"] if name == b"authorization"]
        line, body, kind = self._door.answer(scope["method"], credentials, scope.get("sessile.engine"))
        headers = [(name.lower().encode(), value.encode()) for name, value in _headers(body, kind)]
        await send({"type": "http.response.start", "status": int(line[:3]), "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


class StatusWSGIApp:
    """The same for WSGI."""

    def __init__(self, engine: Engine | None = None, *, token: str | None = None) -> None:
        self._door = _Door("StatusWSGIApp", engine, token)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        given = environ.get("HTTP_AUTHORIZATION")
        credentials = [] if given is None else [given.encode("latin-1")]
        method = environ["REQUEST_METHOD"]
        line, body, kind = self._door.answer(method, credentials, environ.get("sessile.engine"))
        start_response(line, _headers(body, kind))
        return [b"" if method == "HEAD" else body]


def _headers(body: bytes, kind: str) -> list[tuple[str, str]]:
    return [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]


def _checked(app: str, given: str | None) -> bytes:
    """The token of this app, given to it or in the environment.

    Raises:
        SettingsError: the token is missing, too short, or has characters that a header cannot carry.
    """
    label = "token=" if given is not None else TOKEN_VARIABLE
    token = (os.environ.get(TOKEN_VARIABLE, "") if given is None else given).strip()
    if not token:
        raise SettingsError(
            f"{app} has no token and answers 503: set {TOKEN_VARIABLE}, or give it token=; `sessile keygen` draws one"
        )
    if len(token) < SECRET_BYTES_MIN:
        raise SettingsError(
            f"{app} answers 503, since {label} is shorter than {SECRET_BYTES_MIN} characters: `sessile keygen` draws one"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsError(f"{app} answers 503, since {label} holds what a header cannot: `sessile keygen` draws one")
    return token.encode("ascii")
