"""An ASGI server and a browser in one: it calls an application with a raw scope and keeps what it was sent.

Nothing is hidden: the messages are there as they came, in order, with what was known of the world when each came.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sessile.asgi import SessionMiddleware
from tests.fakes import make_engine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from sessile.engine import Engine

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

__all__ = ["Answer", "AsgiBrowser", "answer", "engine_of", "fields", "put", "sends", "wrapped"]


async def answer(send: Send, status: int = 200, headers: Any = (), body: bytes = b"") -> None:
    """What a handler sends to be done."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


def sends(do: Callable[[Any], Any], *, status: int = 200, headers: Any = ()) -> App:
    """An application that does this with the session and then answers."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        do(scope["session"])
        await answer(send, status, headers)

    return app


class Answer:
    """What one call of an application sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.raised: BaseException | None = None

    @property
    def types(self) -> list[str]:
        return [str(message["type"]) for message in self.messages]

    @property
    def status(self) -> int:
        (start,) = [message for message in self.messages if "status" in message]
        return int(start["status"])

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the answer, or of the accepted WebSocket."""
        return next(list(message.get("headers") or ()) for message in self.messages)

    def header(self, name: bytes) -> list[bytes]:
        """Every value of this header."""
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)


class AsgiBrowser:
    """Sends requests to an application, each in an event loop of its own, and keeps cookies."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.cookies: dict[bytes, bytes] = {}

    def scope(self, kind: str = "http", **changes: Any) -> dict[str, Any]:
        """A scope as servers make it; None leaves a part out."""
        cookie = b"; ".join(b"%b=%b" % pair for pair in self.cookies.items())
        scope: dict[str, Any] = {
            "type": kind,
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http" if kind == "http" else "ws",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost"), *([(b"cookie", cookie)] if cookie else [])],
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 8_000),
        }
        return {name: value for name, value in {**scope, **changes}.items() if value is not None}

    def ask(self, *received: Message, app: App | None = None, **changes: Any) -> Answer:
        """One call; what it raises is kept in the answer."""
        return asyncio.run(self.call(*received, app=app, **changes))

    async def call(
        self,
        *received: Message,
        app: App | None = None,
        on_send: Callable[[Message], None] | None = None,
        **changes: Any,
    ) -> Answer:
        """One call in the running event loop; `on_send` sees each message at the moment it would leave."""
        got = Answer()
        waiting = list(received) or [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Message:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if on_send is not None:
                on_send(message)
            got.messages.append(message)

        try:
            await (app or self.app)(self.scope(**changes), receive, send)
        except Exception as error:  # noqa: BLE001  # a server's border; tests look at it
            got.raised = error
        if got.messages:
            self.keep(got.header(b"set-cookie"))
        return got

    def keep(self, set_cookies: list[bytes]) -> None:
        """Keep, replace or forget a cookie for each Set-Cookie value."""
        for set_cookie in set_cookies:
            pair, _, attributes = set_cookie.partition(b";")
            name, _, value = pair.partition(b"=")
            self.cookies.pop(name, None)
            if b"max-age=0" not in attributes.lower():
                self.cookies[name] = value

    def copy(self) -> AsgiBrowser:
        """Another tab with the same cookies."""
        other = AsgiBrowser(self.app)
        other.cookies = dict(self.cookies)
        return other


def wrapped(do: Any, *, engine: Engine | None = None, **answered: Any) -> AsgiBrowser:
    """A browser before an application that does this with the session and answers."""
    return AsgiBrowser(SessionMiddleware(sends(do, **answered), engine=engine or make_engine()))


def put(**values: Any) -> Any:
    return lambda session: session.update(values)


def fields(browser: AsgiBrowser, engine: Engine) -> dict[str, Any]:
    """What the next request finds."""
    found: list[dict[str, Any]] = []
    browser.ask(app=SessionMiddleware(sends(lambda session: found.append(dict(session))), engine=engine))
    return found[0]


def engine_of(browser: AsgiBrowser) -> Engine:
    assert isinstance(browser.app, SessionMiddleware)
    return browser.app.engine
