"""The ASGI middleware on WebSocket scopes: the head is `websocket.accept`, and everything after it is late."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sessile.asgi import SessionMiddleware
from sessile.errors import SessionEnded
from sessile.session import Session
from tests.asgi_client import AsgiBrowser, answer, engine_of, fields, put, sends, wrapped
from tests.fakes import cookie_names, make_engine

if TYPE_CHECKING:
    from sessile.engine import Engine
    from tests.asgi_client import App, Message, Receive, Send

CONNECT = {"type": "websocket.connect"}


def text(said: str) -> Message:
    return {"type": "websocket.receive", "text": said}


def socket(app: App, engine: Engine) -> App:
    return SessionMiddleware(app, engine=engine)


def known(**values: Any) -> AsgiBrowser:
    """A browser that is in a session with these values, by HTTP."""
    browser = wrapped(put(**values))
    browser.ask()
    return browser


async def echo(scope: Any, receive: Receive, send: Send) -> None:
    """Accepts; `name=value` sets a field and is answered by all fields; ends when the browser goes."""
    session = scope["session"]
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        name, _, value = message["text"].partition("=")
        if value:
            session[name] = value
        await send({"type": "websocket.send", "text": repr(dict(session))})


def test_a_websocket_has_the_session_of_its_browser() -> None:
    """What HTTP stored is read; a socket that only reads sets no cookie, and its answer varies by cookie."""
    browser = known(a="1")

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept", "headers": [(b"x", b"y")] if scope["session"]["a"] == "1" else []})

    got = browser.ask(CONNECT, app=socket(app, engine_of(browser)), kind="websocket")
    assert got.headers == [(b"x", b"y"), (b"vary", b"Cookie")]


def test_a_socket_that_does_not_touch_the_session_passes_untouched() -> None:
    """The very message of the app reaches the server."""
    accept = {"type": "websocket.accept"}

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(accept)

    assert AsgiBrowser(socket(app, make_engine())).ask(CONNECT, kind="websocket").messages == [accept]
    assert "headers" not in accept


def test_a_write_before_accept_sets_cookies_with_it() -> None:
    """The answer to the handshake is an HTTP response with headers: a session may begin there."""
    engine = make_engine()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scope["session"]["a"] = 1
        await send({"type": "websocket.accept", "subprotocol": "chat"})

    browser = AsgiBrowser(socket(app, engine))
    got = browser.ask(CONNECT, kind="websocket", scheme="wss")
    assert got.messages[0]["subprotocol"] == "chat"
    assert cookie_names(got.header(b"set-cookie")) == ["__Host-sid", "__Host-sid_v"]
    found: list[Any] = []
    browser.ask(app=socket(sends(lambda session: found.append(dict(session))), engine), scheme="https")
    assert found == [{"a": 1}]


def test_a_write_after_accept_is_kept_and_counted_late() -> None:
    """It is committed before the next message leaves, so that whoever got that message finds it stored."""
    browser = known(a="1")
    engine = engine_of(browser)
    found: list[dict[str, Any]] = []

    def on_send(message: Message) -> None:
        if message["type"] == "websocket.send":
            issued = engine.open((b"; ".join(b"%b=%b" % pair for pair in browser.cookies.items()),), is_https=False)
            found.append(dict(issued))

    messages = [CONNECT, text("b=2"), text("hello"), text("b=3")]
    got = asyncio.run(browser.call(*messages, app=socket(echo, engine), kind="websocket", on_send=on_send))
    assert [value["b"] for value in found] == ["2", "2", "3"]
    assert got.types == ["websocket.accept"] + ["websocket.send"] * 3
    assert engine.stats()["late"] == 2
    assert fields(browser, engine) == {"a": "1", "b": "3"}


def test_a_write_after_the_last_message_is_kept() -> None:
    """The app returns, or closes, with changes that no message has taken along."""
    for says_goodbye in (True, False):
        browser = known(a="1")
        engine = engine_of(browser)

        async def app(scope: Any, receive: Receive, send: Send, *, closes: bool = says_goodbye) -> None:
            await send({"type": "websocket.accept"})
            scope["session"]["b"] = "2"
            if closes:
                await send({"type": "websocket.close", "code": 1000})

        got = browser.ask(CONNECT, app=socket(app, engine), kind="websocket")
        assert got.types == ["websocket.accept"] + ["websocket.close"] * says_goodbye
        assert fields(browser, engine) == {"a": "1", "b": "2"}
        assert engine.stats()["late"] == 1


def test_a_socket_and_requests_beside_it_lose_nothing() -> None:
    """A socket lives long: what requests store meanwhile is not overwritten by what it opened with."""
    browser = known(n=0)
    engine = engine_of(browser)

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        session = scope["session"]
        session.get("n")
        await send({"type": "websocket.accept"})
        for _ in range(3):
            await browser.copy().call(app=socket(sends(lambda other: other.increment("n")), engine))
            session.increment("n")
            session["mine"] = True
            await send({"type": "websocket.send", "text": "done"})

    browser.ask(CONNECT, app=socket(app, engine), kind="websocket")
    assert fields(browser, engine) == {"n": 6, "mine": True}


def test_a_socket_whose_session_ended_is_told() -> None:
    """A logout elsewhere: the next write of the socket raises SessionEnded, and nothing comes back."""
    browser = known(a="1")
    engine = engine_of(browser)

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scope["session"].get("a")
        await send({"type": "websocket.accept"})
        await browser.copy().call(app=socket(sends(Session.logout), engine))
        scope["session"]["b"] = 2
        await send({"type": "websocket.send", "text": "never"})

    got = browser.ask(CONNECT, app=socket(app, engine), kind="websocket")
    assert isinstance(got.raised, SessionEnded)
    assert got.types == ["websocket.accept"]
    assert engine.stats()["sessions"] == 0


def test_a_socket_that_cannot_be_served_is_closed() -> None:
    """Before accept, with a code that says why: try again later (1013), or not with these cookies (1008)."""
    engine = make_engine(sessions_max=1)
    wrapped(put(a=1), engine=engine).ask()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scope["session"]["a"] = 1
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "swallowed"})

    got = AsgiBrowser(socket(app, engine)).ask(CONNECT, kind="websocket")
    assert (got.raised, got.messages) == (None, [{"type": "websocket.close", "code": 1013}])

    browser = known(a="1")
    late = browser.copy()
    browser.ask(app=socket(sends(Session.rotate), engine_of(browser)))
    got = late.ask(CONNECT, app=socket(app, engine_of(browser)), kind="websocket")
    assert (got.raised, got.messages) == (None, [{"type": "websocket.close", "code": 1008}])


def test_a_denial_response_is_an_answer() -> None:
    """The extension `websocket.http.response`: cookies go with the head of the denial, the body follows."""
    engine = make_engine()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scope["session"]["tries"] = 1
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    browser = AsgiBrowser(socket(app, engine))
    got = browser.ask(CONNECT, kind="websocket")
    assert got.status == 401
    assert cookie_names(got.header(b"set-cookie")) == ["sid", "sid_v"]
    assert got.header(b"cache-control") == [b"no-store"]
    assert fields(browser, engine) == {"tries": 1}


def test_an_exception_before_accept_discards_the_changes() -> None:
    """As for HTTP: nothing was promised to anybody."""
    browser = known(a="1")
    engine = engine_of(browser)

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scope["session"]["a"] = "2"
        raise RuntimeError("the handler's own")

    got = browser.ask(CONNECT, app=socket(app, engine), kind="websocket")
    assert str(got.raised) == "the handler's own"
    assert fields(browser, engine) == {"a": "1"}


def test_a_plain_answer_in_the_same_app_is_none_of_its_business() -> None:
    """One middleware serves both kinds of scope at the same time."""
    engine = make_engine()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scope["session"].increment("n")
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await answer(send)

    browser = AsgiBrowser(socket(app, engine))
    for kind in ("http", "websocket", "http"):
        browser.ask(kind=kind)
    assert fields(browser, engine) == {"n": 3}
