"""The ASGI middleware: Starlette, FastAPI, Litestar, Quart, Django's ASGI handler, or an app of one's own.

`scope["session"]` is the session, for HTTP and WebSocket alike. It is committed when the head of the response leaves,
whatever its status; what is changed later, in a stream, a background task or an open WebSocket, is committed before the
next part leaves and again when the app returns. An exception before the head leaves discards the changes.

Building the middleware does no IO, starts no thread and draws no randomness.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, Unpack

from sessile.answers import ANSWERED, answer_to, warn_of_nesting
from sessile.blocking import running_loop
from sessile.cookies import add_headers
from sessile.engine import engine_of
from sessile.errors import SettingsError
from sessile.lifespan import live, refuse_to_start
from sessile.servers import is_loading, join_soon

if TYPE_CHECKING:
    from sessile.engine import Engine
    from sessile.errors import SessionError
    from sessile.keywords import Keywords
    from sessile.session import Session
    from sessile.visit import Step

__all__ = ["SessionMiddleware", "run"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

UNAVAILABLE: Final = 503
_KINDS: Final = frozenset({"http", "websocket"})
_HTTPS: Final = frozenset({"https", "wss"})
KEEP_ALIVE_S: Final = 60
"""A balancer keeps connections to servers, and should be the one to close them: a request must not meet a server's FIN."""
_HEADS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class SessionMiddleware:
    """Gives every request of `app` a session.

    Args:
        app: an ASGI 3 application.
        engine: the engine to use; without it, middlewares with equal settings share one.
        settings: settings of the engine, by name: `url`, `secret`, `idle_timeout`, …; see `sessile.Settings`.

    Raises:
        SettingsError: a setting is unknown, malformed or contradicts another. While a server loads the app, or an event
            loop runs in this thread, the server is told instead: it does not start, and where it has no lifespan, every
            answer is 503.
    """

    def __init__(self, app: App, *, engine: Engine | None = None, **settings: Unpack[Keywords]) -> None:
        self.app = app
        self._engine: Engine | None = None
        self._exclude: tuple[str, ...] = ()
        try:
            self._engine = engine_of(**settings) if engine is None else engine
            self._exclude = self._engine.settings.exclude
        except SettingsError as error:
            # Starlette builds its middleware at the first call, in which servers take an exception for an app that
            # knows no lifespan. One that is raised while they load the app is shown as a traceback.
            if running_loop() is None and not is_loading():
                raise
            self._mistake = str(error)

    @property
    def engine(self) -> Engine:
        """The engine. Raises SettingsError where the settings make none."""
        if self._engine is None:
            raise SettingsError(self._mistake)
        return self._engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: PLR0912  # one frame a request
        kind = scope["type"]
        engine = self._engine
        if engine is None:
            await self._refuse_all(scope, receive, send)
            return
        backend = engine.backend
        if kind == "lifespan" and backend is not None:
            await live(engine, self.app, scope, receive, send)
            return
        outer = scope.get("sessile.engine")
        if kind not in _KINDS or outer is engine:  # a middleware further out shares it
            await self.app(scope, receive, send)
            return
        if self._exclude and scope["path"].startswith(self._exclude):
            join_soon(engine)
            await self.app(scope, receive, send)
            return
        if outer is not None:
            warn_of_nesting()
        headers = scope["headers"]
        if type(headers) is not list:
            headers = list(headers)
        by_name = dict(headers)  # one pass in C: as good as always, no name comes twice
        if len(by_name) == len(headers):
            cookie = by_name.get(b"cookie")
            cookie_headers = () if cookie is None else (cookie,)
        else:  # HTTP/2 allows several Cookie fields (RFC 9113 §8.2.3)
            cookie_headers = tuple([value for name, value in headers if name == b"cookie"])
        is_https = scope.get("scheme") in _HTTPS
        if not is_https and engine.doubts_http:
            engine.hear_of_proxy(by_name.get(b"x-forwarded-proto") or by_name.get(b"forwarded") or b"")
        exchange = None
        try:
            is_websocket = kind == "websocket"
            session = engine.open(
                cookie_headers, is_https=is_https, server=scope.get("server"), is_lasting=is_websocket
            )
            if is_websocket:
                receive = _noted(receive, engine, session)
            exchange = _Exchange(engine, session, scope, send)
            scope["session"] = session
            scope["sessile.engine"] = engine
            if backend is not None:
                if not backend.is_running:
                    await backend.start()
                await engine.prepare(session)
            await self.app(scope, receive, exchange.send)
        except ANSWERED as error:
            refused = _refuse(error, scope, send) if exchange is None else exchange.refuse(error)
            if not await refused:
                raise
            return
        if session.may_have_changed:
            await exchange.finish()

    async def _refuse_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stand for an app whose sessions have a mistake in their settings."""
        if scope["type"] == "lifespan":
            await refuse_to_start(self._mistake, receive, send)
        elif scope["type"] in _KINDS:
            await _refuse(SettingsError(self._mistake), scope, send)


def run(app: App | str, *, host: str = "127.0.0.1", port: int = 8000, **options: Any) -> None:
    """Serve an app with uvicorn as a member of a cluster is best served: with its lifespan, by one process.

    On SIGTERM it says so to balancers for `drain_grace`, ends what is under way, hands over and leaves.

    Args:
        app: the application, or where it is found: `"module:name"`.
        host: the address to serve at.
        port: its port.
        options: any others of `uvicorn.run`, but `lifespan`, `workers` and `reload`.

    Raises:
        SettingsError: uvicorn is not installed, or an option would start several processes.
    """
    for name in ("workers", "reload", "lifespan"):
        if name in options:
            raise SettingsError(
                f"{name} cannot be given: a member is one process with its lifespan; start one for each core, each with "
                "a port and a me= of its own"
            )
    try:
        import uvicorn  # noqa: PLC0415  # not a dependency
    except ImportError:
        raise SettingsError("uvicorn is not installed: pip install uvicorn") from None
    options.setdefault("timeout_keep_alive", KEEP_ALIVE_S)
    uvicorn.run(app, host=host, port=port, lifespan="on", **options)


class _Exchange:
    """One request's answer on its way out."""

    _is_started = False
    _is_refused = False

    def __init__(self, engine: Engine, session: Session, scope: Scope, send: Send) -> None:
        self._engine = engine
        self._session = session
        self._scope = scope
        self._send = send

    def send(self, message: Message) -> Awaitable[None]:
        """Commit what must be committed before this message leaves, and let it leave.

        No coroutine of its own: what needs no waiting costs no frame on the way to the server.
        """
        if self._is_refused:
            return _nothing()
        session = self._session
        if self._is_started:
            if session.may_have_changed:  # before any part leaves: it may be the last one, whatever it says
                return self._send_late(message)
        elif message["type"] in _HEADS:
            if self._engine.is_draining and self._scope["type"] == "http":
                message = {**message, "headers": [*(message.get("headers") or ()), (b"connection", b"close")]}
            if session.may_have_changed:
                return self._commit_and_send_head(message)
            if session.accessed:
                if self._engine.backend is not None:  # what was read may wait for its confirmation
                    return self._commit_and_send_head(message)
                return self._send_head(message)
            self._is_started = session.is_head_sent = True
        return self._send(message)

    async def finish(self) -> None:
        """Commit what the app changed after the last byte. Without an answer there is nothing to keep."""
        if self._is_started and not self._is_refused:
            await self._commit_late()

    async def refuse(self, error: SessionError | SettingsError) -> bool:
        """Answer for the app when a session could not be kept or told; False when it is too late for that."""
        if self._is_refused:
            return True
        if self._is_started:
            return False
        self._is_refused = True
        cookies = self._engine.refusal_cookies(self._session)
        self._is_refused = await _refuse(error, self._scope, self._send, cookies)
        return self._is_refused

    def _commit_and_send_head(self, message: Message) -> Awaitable[None]:
        try:
            steps = self._engine.commit(self._session)
        except ANSWERED as error:
            return self._refuse_or_raise(error)
        self._session.is_head_sent = True  # a task of this request that runs while holders confirm comes too late
        return self._settle_and_send_head(steps, message) if steps else self._send_head(message)

    async def _settle_and_send_head(self, steps: list[Step], message: Message) -> None:
        try:
            await self._engine.settle(steps)
        except ANSWERED as error:
            await self._refuse_or_raise(error)
        else:
            await self._send_head(message)

    async def _refuse_or_raise(self, error: SessionError | SettingsError) -> None:
        if not await self.refuse(error):
            raise error

    def _send_head(self, message: Message) -> Awaitable[None]:
        headers = list(message.get("headers") or ())
        add_headers(headers, self._engine.cookies(self._session))
        self._is_started = True
        return self._send({**message, "headers": headers})

    async def _send_late(self, message: Message) -> None:
        await self._commit_late()
        await self._send(message)

    async def _commit_late(self) -> None:
        steps = self._engine.commit(self._session, is_late=True)
        if steps:
            await self._engine.settle(steps)


def _noted(receive: Receive, engine: Engine, session: Session) -> Receive:
    """Receive a WebSocket's messages; each from the browser is a use of the session, if the socket has looked at it."""

    async def noted() -> Message:
        message = await receive()
        if message["type"] == "websocket.receive":
            engine.used(session)
        return message

    return noted


async def _refuse(error: SessionError | SettingsError, scope: Scope, send: Send, cookies: Iterable[bytes] = ()) -> bool:
    """Answer for the app; False, and nothing is sent, where the error is for its framework."""
    answer = answer_to(error)
    if answer is None:
        return False
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1013 if answer.status == UNAVAILABLE else 1008})
    else:
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers(cookies)})
        await send({"type": "http.response.body", "body": answer.body})
    return True


async def _nothing() -> None:
    """What a refused request's further messages come to."""
