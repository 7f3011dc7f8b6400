"""The WSGI middleware (PEP 3333): Flask, Django, Pyramid, Bottle, or an app of one's own.

`environ["sessile.session"]` is the session; it is opened at its first touch. It is committed when the app calls
`start_response`, whatever the status; what is changed later, while a body is generated, is committed before the body
ends and again at `close()`. `write`, `exc_info`, `close` and `wsgi.file_wrapper` work as without the middleware: a body
that runs no code of the app passes through untouched.

Building the middleware does no IO, starts no thread and draws no randomness.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from sessile.answers import ANSWERED, answer_to, warn_of_nesting
from sessile.blocking import run_blocking
from sessile.cookies import add_headers
from sessile.engine import engine_of
from sessile.errors import SettingsError
from sessile.forks import notice_fork
from sessile.servers import enrol, join_soon, stop_loading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from sessile.answers import Answer
    from sessile.engine import Engine
    from sessile.errors import SessionError
    from sessile.keywords import Keywords
    from sessile.session import Session

    _ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

__all__ = ["SessionMiddleware"]


class SessionMiddleware:
    """Gives every request of `app` a session.

    Args:
        app: a WSGI application.
        engine: the engine to use; without it, middlewares with equal settings share one.
        settings: settings of the engine, by name: `url`, `secret`, `idle_timeout`, …; see `sessile.Settings`.

    Raises:
        SettingsError: a setting is unknown, malformed or contradicts another.
    """

    def __init__(self, app: WSGIApplication, *, engine: Engine | None = None, **settings: Unpack[Keywords]) -> None:
        self.app = app
        try:
            self.engine = engine_of(**settings) if engine is None else engine
        except SettingsError as error:
            stop_loading(error)
            raise
        self._exclude = self.engine.settings.exclude
        enrol(self.engine)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "uwsgi.version" in environ:  # it forks in C, so that no hook of Python's runs
            notice_fork()
        if self._is_left_alone(environ):
            return self.app(environ, start_response)
        if "sessile.engine" in environ:
            warn_of_nesting()
        engine = self.engine
        backend = engine.backend
        exchange = None
        try:
            if backend is not None and not backend.is_running:
                backend.start_in_thread()
            cookie = environ.get("HTTP_COOKIE")
            is_https = environ.get("wsgi.url_scheme") == "https"
            if not is_https and engine.doubts_http:
                forwarded = environ.get("HTTP_X_FORWARDED_PROTO") or environ.get("HTTP_FORWARDED") or ""
                engine.hear_of_proxy(forwarded.encode("latin-1"))
            session = engine.open(
                (cookie.encode("latin-1"),) if cookie else (),
                is_https=is_https,
                server=environ.get("SERVER_NAME"),
            )
            environ["sessile.session"] = session
            environ["sessile.engine"] = engine
            exchange = _Exchange(engine, session, start_response)
            body = self.app(environ, exchange.start_response)
            return exchange.body(body, environ.get("wsgi.file_wrapper"))
        except ANSWERED as error:
            if exchange is not None:
                refusal = exchange.refuse(error)
            else:
                answer = answer_to(error)
                refusal = None if answer is None else _start_answer(answer, start_response)
            if refusal is None:
                raise
            return refusal

    def _is_left_alone(self, environ: WSGIEnvironment) -> bool:
        """Whether the path is excluded, or a middleware further out with the same engine has opened the session."""
        if environ.get("sessile.engine") is self.engine:
            return True
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        if not (self._exclude and path.startswith(self._exclude)):
            return False
        join_soon(self.engine)
        return True


class _Exchange:
    """One request's answer on its way out."""

    __slots__ = ("_cookies", "_engine", "_is_refused", "_is_started", "_session", "_start_response")

    def __init__(self, engine: Engine, session: Session, start_response: StartResponse) -> None:
        self._engine = engine
        self._session = session
        self._start_response = start_response
        self._is_started = False
        self._is_refused = False
        self._cookies: list[bytes] = []

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """Commit, and start the response with the cookies that follow.

        A second call, with `exc_info`, replaces the head of an answer that has not left: what the first call committed
        stays committed, and its cookies go with the new head.
        """
        if not self._is_started and self._session.accessed:
            self._commit()
            self._cookies = self._engine.cookies(self._session)
        self._is_started = self._session.is_head_sent = True
        if self._session.accessed:
            raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            add_headers(raw, self._cookies)
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

    def body(self, body: Iterable[bytes], file_wrapper: object) -> Iterable[bytes]:
        """The body, watched only where code of the app may still run while it is sent."""
        try:
            self.commit_late()
        except BaseException:
            _close(body)
            raise
        if isinstance(body, list | tuple) or (isinstance(file_wrapper, type) and isinstance(body, file_wrapper)):
            return body
        return _WatchedBody(self, body)

    def commit_late(self) -> None:
        if self._is_started and not self._is_refused and self._session.may_have_changed:
            self._commit(is_late=True)

    def _commit(self, *, is_late: bool = False) -> None:
        steps = self._engine.commit(self._session, is_late=is_late)
        if steps:
            run_blocking(self._engine.settle(steps))

    def refuse(self, error: SessionError | SettingsError) -> Iterable[bytes] | None:
        """Answer for the app when a session could not be kept or told; None when it is too late for that."""
        answer = answer_to(error)
        if answer is None or self._is_started:
            return None
        self._is_started = self._is_refused = True
        return _start_answer(answer, self._start_response, self._engine.refusal_cookies(self._session))


class _WatchedBody:
    """A body that the app generates, with a commit before it ends."""

    __slots__ = ("_body", "_exchange", "_parts", "_refusal")

    def __init__(self, exchange: _Exchange, body: Iterable[bytes]) -> None:
        self._exchange = exchange
        self._body = body
        self._parts = iter(body)
        self._refusal: Iterator[bytes] | None = None

    def __iter__(self) -> _WatchedBody:
        return self

    def __next__(self) -> bytes:
        if self._refusal is not None:
            return next(self._refusal)
        try:
            part = next(self._parts)
            self._exchange.commit_late()  # before any part leaves: it may be the last one that the client needs
            return part  # noqa: TRY300 - a commit that fails is an answer of its own
        except StopIteration:
            self._exchange.commit_late()
            raise
        except ANSWERED as error:
            # A generator calls start_response at its first step, so that is where its commit may fail.
            refusal = self._exchange.refuse(error)
            if refusal is None:
                raise
            self._refusal = iter(refusal)
            return next(self._refusal)

    def close(self) -> None:
        try:
            _close(self._body)
        finally:
            self._exchange.commit_late()


def _start_answer(answer: Answer, start_response: StartResponse, cookies: Iterable[bytes] = ()) -> list[bytes]:
    headers = [(name.decode(), value.decode()) for name, value in answer.headers(cookies)]
    start_response(f"{answer.status} {answer.reason}", headers)
    return [answer.body]


def _close(body: Iterable[bytes]) -> None:
    """Close a body that can be closed, as a server must once it was given one."""
    close = getattr(body, "close", None)
    if close is not None:
        close()
