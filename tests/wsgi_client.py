"""A WSGI server and a browser in one (PEP 3333): strict about what an application may do, and it keeps cookies.

It does what a server must: sends the head with the first byte that is not empty, lets `exc_info` replace a head that has
not left, and calls `close()` of the body it was given exactly once.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from sessile.wsgi import SessionMiddleware
from tests.fakes import make_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sessile.engine import Engine

    WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]

__all__ = ["Answer", "WsgiBrowser", "does", "engine_of", "fields", "put", "wrapped"]

PLAIN = [("Content-Type", "text/plain")]


class Answer:
    """What one call of an application came to."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.parts: list[bytes] = []
        self.returned: Any = None
        """The very object the application returned."""
        self.raised: BaseException | None = None
        self.is_head_sent = False

    def header(self, name: str) -> list[str]:
        """Every value of this header."""
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def set_cookies(self) -> list[bytes]:
        return [value.encode() for value in self.header("set-cookie")]

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """As PEP 3333 wants it: once, or again with `exc_info` while the head has not left."""
        if exc_info is not None and self.is_head_sent:
            raise exc_info[1].with_traceback(exc_info[2])
        assert exc_info is not None or not self.status, "start_response was called twice without exc_info"
        assert type(status) is str
        assert type(headers) is list
        assert all(type(name) is type(value) is str for name, value in headers)
        self.status, self.headers = status, list(headers)
        return self.write

    def write(self, data: bytes) -> None:
        assert self.status, "a byte came before start_response"
        assert type(data) is bytes
        self.is_head_sent = self.is_head_sent or bool(data)
        self.parts.append(data)


class WsgiBrowser:
    """Sends requests to an application, and keeps cookies."""

    def __init__(self, app: WsgiApp) -> None:
        self.app = app
        self.cookies: dict[str, str] = {}

    def environ(self, **changes: Any) -> dict[str, Any]:
        """An environ as servers make it; None leaves a part out, and `wsgi__x` stands for `wsgi.x`."""
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/",
            "QUERY_STRING": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "localhost",
            "HTTP_COOKIE": "; ".join(f"{name}={value}" for name, value in self.cookies.items()) or None,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        named = {name.replace("wsgi__", "wsgi."): value for name, value in changes.items()}
        return {name: value for name, value in {**environ, **named}.items() if value is not None}

    def ask(self, *, app: WsgiApp | None = None, after_each: Callable[[Answer], object] = id, **changes: Any) -> Answer:
        """One call; what it raises is kept in the answer. `after_each` is called after each part of the body."""
        got = Answer()
        try:
            got.returned = body = (app or self.app)(self.environ(**changes), got.start_response)
            try:
                for part in body:
                    got.write(part)
                    after_each(got)
            finally:
                close = getattr(body, "close", None)
                if close is not None:
                    close()
        except Exception as error:  # noqa: BLE001  # a server's border; tests look at it
            got.raised = error
        self.keep(got.set_cookies)
        return got

    def keep(self, set_cookies: list[bytes]) -> None:
        """Keep, replace or forget a cookie for each Set-Cookie value."""
        for set_cookie in set_cookies:
            pair, _, attributes = set_cookie.decode().partition(";")
            name, _, value = pair.partition("=")
            self.cookies.pop(name, None)
            if "max-age=0" not in attributes.lower():
                self.cookies[name] = value

    def copy(self) -> WsgiBrowser:
        """Another tab with the same cookies."""
        other = WsgiBrowser(self.app)
        other.cookies = dict(self.cookies)
        return other


def does(do: Any, *, status: str = "200 OK", headers: Any = PLAIN) -> WsgiApp:
    """An application that does this with the session and then answers."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        do(environ["sessile.session"])
        start_response(status, list(headers))
        return [b"done"]

    return app


def put(**values: Any) -> Any:
    return lambda session: session.update(values)


def wrapped(app: WsgiApp, engine: Engine | None = None) -> WsgiBrowser:
    return WsgiBrowser(SessionMiddleware(app, engine=engine or make_engine()))


def engine_of(browser: WsgiBrowser) -> Engine:
    assert isinstance(browser.app, SessionMiddleware)
    return browser.app.engine


def fields(browser: WsgiBrowser) -> dict[str, Any]:
    """What the next request finds."""
    found: list[dict[str, Any]] = []
    middleware = wrapped(does(lambda session: found.append(dict(session))), engine_of(browser)).app
    browser.ask(app=middleware)
    return found[0]
