"""After the head of the response no cookie can carry a new id: what would need one raises where it happens, and changes nothing.

The same table under ASGI, WebSocket and WSGI; streams, background tasks, generators and second heads.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from sessile.asgi import SessionMiddleware as AsgiMiddleware
from sessile.errors import SessionTooLate
from sessile.session import Session
from sessile.wsgi import SessionMiddleware as WsgiMiddleware
from tests.asgi_client import AsgiBrowser
from tests.asgi_client import fields as asgi_fields
from tests.fakes import FakeBrowser, cookie_names, make_engine, make_pair, settled
from tests.wsgi_client import WsgiBrowser
from tests.wsgi_client import fields as wsgi_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.asgi_client import Receive, Send

    Do = Callable[[Session], object]


def then(*steps: Do) -> Do:
    """All of these, in order."""

    def do(session: Session) -> None:
        for step in steps:
            step(session)

    return do


def put(session: Session) -> None:
    session["b"] = 2


def login(session: Session) -> None:
    session.login("ann")


NEEDS_AN_ID = {
    "login": login,
    "rotate": Session.rotate,
    "logout and a value": then(Session.logout, put),
    "logout and a login": then(Session.logout, login),
    "end and an increment": then(Session.end, lambda session: session.increment("n")),
    "logout and a default": then(Session.logout, lambda session: session.setdefault("l", [])),
}
NEEDS_NONE: dict[str, tuple[Do, dict[str, Any]]] = {
    "nothing": (len, {"a": 1}),
    "a value": (put, {"a": 1, "b": 2}),
    "an increment": (lambda session: session.increment("n"), {"a": 1, "n": 1}),
    "a removal": (lambda session: session.pop("a"), {}),
    "logout": (Session.logout, {}),
    "logout and clear": (then(Session.logout, Session.clear), {}),
    "logout and a look": (then(Session.logout, lambda session: session.get("b")), {}),
}


def raises(session: Session, do: Do) -> None:
    with pytest.raises(SessionTooLate, match="after the head of the response"):
        do(session)


# -- the session and its engine ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("do", NEEDS_AN_ID.values(), ids=NEEDS_AN_ID)
def test_what_needs_a_new_id_raises_once_the_head_has_left(do: Do) -> None:
    """The call itself raises, and a handler that goes on has lost nothing of what it had."""
    browser = settled(make_engine(), a=1)
    session = browser.open()
    assert session["a"] == 1
    browser.finish(session)
    raises(session, do)
    has_ended = (
        browser.engine.commit(session, is_late=True) == [] and not session.opened.record
    )  # by a logout before it
    assert browser.look() == ({} if has_ended else {"a": 1})


@pytest.mark.parametrize(("do", "left"), NEEDS_NONE.values(), ids=NEEDS_NONE)
def test_what_needs_none_is_kept(do: Do, left: dict[str, Any]) -> None:
    """A session whose id the browser knows may be written to and ended whenever it is."""
    browser = settled(make_engine(), a=1)
    session = browser.open()
    browser.finish(session)
    do(session)
    browser.engine.commit(session, is_late=True)
    assert browser.look() == left


@pytest.mark.parametrize("do", [put, login, Session.rotate, lambda session: session.increment("n")])
def test_a_first_write_after_the_head_raises(do: Do) -> None:
    """The browser would never learn the id; removing what is not there is a KeyError as ever."""
    engine = make_engine()
    browser = FakeBrowser(engine)
    session = browser.open()
    browser.finish(session)
    raises(session, do)
    session.clear()
    assert session.pop("a", None) is None
    assert engine.commit(session, is_late=True) == []
    assert (dict(session), len(engine.table)) == ({}, 0)


def test_a_session_that_began_before_the_head_goes_on_after_it() -> None:
    """Its id left with the head."""
    browser = FakeBrowser(make_engine())
    session = browser.open()
    session["a"] = 1
    browser.finish(session)
    put(session)
    browser.engine.commit(session, is_late=True)
    assert browser.look() == {"a": 1, "b": 2}


def test_a_late_end_and_the_raise_after_it_end_the_session() -> None:
    """The logout stands, whatever the handler tried afterwards."""
    browser = settled(make_engine(), a=1)
    session = browser.open()
    browser.finish(session)
    session.logout()
    raises(session, put)
    browser.engine.commit(session, is_late=True)
    assert browser.open().new


def test_a_commit_that_is_late_begins_no_session() -> None:
    """Whoever drives the engine itself, and asks for no cookies, is refused at the commit; nothing is stored."""
    for do in (put, login):
        engine = make_engine()
        session = FakeBrowser(engine).open()
        do(session)
        with pytest.raises(SessionTooLate):
            engine.commit(session, is_late=True)
        assert len(engine.table) == 0
    browser = settled(make_engine(), a=1)
    session = browser.open()
    login(session)
    with pytest.raises(SessionTooLate):
        browser.engine.commit(session, is_late=True)
    assert browser.look() == {"a": 1}


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("do", NEEDS_AN_ID.values(), ids=NEEDS_AN_ID)
def test_what_came_too_late_is_counted_and_said_once(do: Do, is_new: bool, caplog: pytest.LogCaptureFixture) -> None:  # noqa: FBT001
    """A background task's error may be seen by nobody: one line in the log names the call and the remedy."""
    engine = make_engine()
    for _ in range(2):
        browser = FakeBrowser(engine) if is_new else settled(engine, a=1)
        session = browser.open()
        browser.finish(session)
        with pytest.raises(SessionTooLate):
            do(session)
        engine.commit(session, is_late=True)
    assert engine.stats()["too_late"] == 2
    (line,) = caplog.messages
    assert line.startswith("session") and "before the response starts" in line
    assert not is_new or len(engine.table) == 0


# -- ASGI ----------------------------------------------------------------------------------------------------------------

START: dict[str, Any] = {
    "http": {"type": "http.response.start", "status": 200, "headers": []},
    "websocket": {"type": "websocket.accept"},
}


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("is_touched", [True, False])
@pytest.mark.parametrize("do", NEEDS_AN_ID.values(), ids=NEEDS_AN_ID)
def test_asgi_after_the_head(do: Do, is_touched: bool, kind: str) -> None:  # noqa: FBT001  # a parameter of the test
    """In a stream, a background task or an open WebSocket, whether the session was touched before or not."""
    engine = make_engine()
    browser = AsgiBrowser(AsgiMiddleware(_starts_with(lambda session: session.update(a=1)), engine=engine))
    browser.ask()
    caught: list[BaseException] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        session = scope["session"]
        if is_touched:
            assert session["a"] == 1
        await send(START[kind])
        try:
            do(session)
        except SessionTooLate as error:
            caught.append(error)

    got = browser.ask(app=AsgiMiddleware(app, engine=engine), kind=kind)
    assert (got.raised, len(caught)) == (None, 1)
    assert got.header(b"set-cookie") == []
    assert asgi_fields(browser, engine) in ({"a": 1}, {})  # ended, where a logout came first


def _starts_with(do: Do) -> Any:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        do(scope["session"])
        await send(START["http"])
        await send({"type": "http.response.body", "body": b""})

    return app


def test_asgi_an_error_that_nobody_catches_reaches_the_server() -> None:
    """It is the application's mistake: no answer of ours can replace the one that has left."""
    engine = make_engine()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START["http"])
        scope["session"]["a"] = 1

    got = AsgiBrowser(AsgiMiddleware(app, engine=engine)).ask()
    assert isinstance(got.raised, SessionTooLate)
    assert got.types == ["http.response.start"]
    assert len(engine.table) == 0


def test_asgi_a_task_that_logs_in_while_the_head_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cookies are settled once the changes are on their way to others: a login in that moment comes too late."""
    backend, engine = make_pair()
    caught: list[BaseException] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        session = scope["session"]
        session["a"] = 1

        push = backend.push

        async def slow(*arguments: Any) -> Any:
            try:
                login(session)
            except SessionTooLate as error:
                caught.append(error)
            return await push(*arguments)

        monkeypatch.setattr(backend, "push", slow)
        await send(START["http"])
        await send({"type": "http.response.body", "body": b""})

    browser = AsgiBrowser(AsgiMiddleware(app, engine=engine))
    got = asyncio.run(browser.call())
    assert (got.raised, len(caught)) == (None, 1)
    assert cookie_names(got.header(b"set-cookie")) == ["sid", "sid_v"]
    monkeypatch.undo()
    assert asgi_fields(browser, engine) == {"a": 1}


# -- WSGI ----------------------------------------------------------------------------------------------------------------


def _early(do: Do) -> Any:
    """Calls start_response, and does this before it returns its body."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        do(environ["sessile.session"])
        return [b"x"]

    return app


def _generates(do: Do) -> Any:
    """A generator, which calls start_response at its first step and does this at its second."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"x"
        do(environ["sessile.session"])
        yield b"y"

    return app


def _second_head(do: Do) -> Any:
    """Does this between the first call of start_response and the second one, with exc_info."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        try:
            do(environ["sessile.session"])
        except SessionTooLate:
            start_response("500 Internal Server Error", [], sys.exc_info())
            raise
        return [b"x"]

    return app


@pytest.mark.parametrize("make", [_early, _generates, _second_head])
@pytest.mark.parametrize("do", NEEDS_AN_ID.values(), ids=NEEDS_AN_ID)
def test_wsgi_after_start_response(do: Do, make: Callable[[Do], Any]) -> None:
    """The cookies went into the first head: whatever needs others raises, also where a second head may follow."""
    engine = make_engine()
    browser = WsgiBrowser(WsgiMiddleware(_before(lambda session: session.update(a=1)), engine=engine))
    browser.ask()
    got = browser.ask(app=WsgiMiddleware(make(do), engine=engine))
    assert isinstance(got.raised, SessionTooLate)
    assert got.set_cookies == []
    assert wsgi_fields(browser) in ({"a": 1}, {})


@pytest.mark.parametrize("make", [_early, _generates])
@pytest.mark.parametrize(("do", "left"), NEEDS_NONE.values(), ids=NEEDS_NONE)
def test_wsgi_what_needs_no_id_is_kept(do: Do, left: dict[str, Any], make: Callable[[Do], Any]) -> None:
    """As ever."""
    engine = make_engine()
    browser = WsgiBrowser(WsgiMiddleware(_before(lambda session: session.update(a=1)), engine=engine))
    browser.ask()
    got = browser.ask(app=WsgiMiddleware(make(do), engine=engine))
    assert got.raised is None
    assert wsgi_fields(browser) == left


def _before(do: Do) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        do(environ["sessile.session"])
        start_response("200 OK", [])
        return [b"x"]

    return app


def test_wsgi_a_generator_may_begin_a_session_at_its_first_step() -> None:
    """Before start_response nothing has left, wherever the code of the app runs."""
    engine = make_engine()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        login(environ["sessile.session"])
        start_response("200 OK", [])
        yield b"x"
        put(environ["sessile.session"])

    browser = WsgiBrowser(WsgiMiddleware(app, engine=engine))
    assert browser.ask().raised is None
    assert wsgi_fields(browser) == {"b": 2}
