"""What the ASGI middleware answers in place of the app, and how it waits for other holders."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sessile.asgi import SessionMiddleware
from sessile.errors import EncodeError, SessionEnded, SessionTooLarge
from sessile.session import Session
from tests.asgi_client import Answer, AsgiBrowser, answer, engine_of, put, sends, wrapped
from tests.fakes import FakeBackend, make_engine, make_pair

if TYPE_CHECKING:
    from tests.asgi_client import App, Receive, Send


def overtaken(browser: AsgiBrowser, verb: Any, app: App) -> Answer:
    """The answer to a request during which another one rotates or ends the session."""
    engine = engine_of(browser)
    other = browser.copy()

    async def play() -> Answer:
        async def slow(scope: Any, receive: Receive, send: Send) -> None:
            scope["session"].get("a")
            await other.call(app=SessionMiddleware(sends(verb), engine=engine))
            await app(scope, receive, send)

        return await browser.call(app=SessionMiddleware(slow, engine=engine))

    return asyncio.run(play())


@pytest.mark.parametrize("verb", [Session.rotate, Session.logout])
def test_a_change_that_came_too_late_is_a_409(verb: Any) -> None:
    """The app's own answer is swallowed, to its last byte; no cookie is touched and nothing is stored by a cache."""
    browser = wrapped(put(a=1))
    browser.ask()
    before = dict(browser.cookies)
    got = overtaken(browser, verb, sends(put(a=2), headers=[(b"set-cookie", b"theme=dark")]))
    assert (got.raised, got.status) == (None, 409)
    assert got.types == ["http.response.start", "http.response.body"]
    assert got.header(b"cache-control") == [b"no-store"]
    assert got.header(b"vary") == [b"Cookie"]
    assert int(got.header(b"content-length")[0]) == len(got.body) > 0
    assert browser.cookies == before
    assert engine_of(browser).stats()["conflicts"] == 1


def test_a_write_with_an_old_id_is_a_409() -> None:
    """SessionRotated, raised in the handler, needs no care of the app's."""
    browser = wrapped(put(a=1))
    browser.ask()
    late = browser.copy()
    browser.ask(app=SessionMiddleware(sends(Session.rotate), engine=engine_of(browser)))
    got = late.ask()
    assert (got.raised, got.status) == (None, 409)
    assert got.header(b"set-cookie") == []


def test_a_request_is_refused_once() -> None:
    """An app that fails again after its answer was replaced does not get a second head out."""
    browser = wrapped(put(a=1))
    browser.ask()

    async def stubborn(scope: Any, receive: Receive, send: Send) -> None:
        scope["session"]["a"] = 2
        await answer(send)
        raise SessionEnded("again")

    got = overtaken(browser, Session.logout, stubborn)
    assert got.types == ["http.response.start", "http.response.body"]
    assert got.status == 409


def test_a_full_server_is_a_503() -> None:
    """With a hint when to come back, and without a cookie."""
    engine = make_engine(sessions_max=1)
    wrapped(put(a=1), engine=engine).ask()
    got = wrapped(put(a=1), engine=engine).ask()
    assert (got.raised, got.status) == (None, 503)
    assert got.header(b"retry-after") == [b"1"]
    assert got.header(b"set-cookie") == []


def test_a_conflict_after_the_head_is_the_servers_to_show() -> None:
    """It is too late for another answer: the exception breaks the response off."""
    browser = wrapped(put(a=1))
    browser.ask()

    async def streaming(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scope["session"]["a"] = 2
        await send({"type": "http.response.body", "body": b"last"})

    got = overtaken(browser, Session.logout, streaming)
    assert isinstance(got.raised, SessionEnded)
    assert got.types == ["http.response.start"]


@pytest.mark.parametrize(
    ("mistake", "error"),
    [
        (lambda session: session.update(x=object()), EncodeError),
        (lambda session: session.setdefault("x", []).append(object()), EncodeError),
        (lambda session: session.update(x="x" * 2**17), SessionTooLarge),
        (lambda session: session.setdefault("x", []).append("x" * 2**17), SessionTooLarge),
    ],
)
def test_a_mistake_of_the_app_is_its_own(mistake: Any, error: type[Exception]) -> None:
    """No 409 and no 503: its framework shows the exception, at the assignment or at the commit."""
    engine = make_engine()
    got = wrapped(mistake, engine=engine).ask()
    assert isinstance(got.raised, error)
    assert got.messages == []
    assert engine.stats()["sessions"] == 0


# -- other holders -----------------------------------------------------------------------------------------------------


def test_other_holders_are_asked_before_the_app_runs_and_told_before_the_head_leaves() -> None:
    """The app finds what it needs without waiting; the answer waits for the confirmation."""
    backend, engine = make_pair()
    browser = wrapped(put(a=1), engine=engine)
    browser.ask()
    for key in engine.table:
        engine.table.drop(key)
    found: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        found.append((len(backend.pulls), scope["session"]["a"]))
        scope["session"]["a"] = 2
        backend.gate = asyncio.Event()
        await answer(send)

    async def play() -> None:
        left: list[Any] = []
        asking = asyncio.create_task(browser.call(app=SessionMiddleware(app, engine=engine), on_send=left.append))
        while len(backend.pushes) < 2 and not asking.done():
            await asyncio.wait([asking], timeout=0)
        assert left == []
        assert backend.gate is not None
        backend.gate.set()
        assert (await asking).status == 200
        assert len(left) == 2

    asyncio.run(play())
    assert found == [(1, 1)]


def test_silence_of_the_other_holders_is_a_503_for_those_who_need_the_session() -> None:
    """A request that does not touch its session is answered as ever."""
    backend, engine = make_pair()
    browser = wrapped(put(a=1), engine=engine)
    browser.ask()
    for key in engine.table:
        engine.table.drop(key)
    backend.is_reachable = False
    before = dict(browser.cookies)
    got = browser.ask(app=SessionMiddleware(sends(len), engine=engine))
    assert (got.raised, got.status, got.header(b"retry-after")) == (None, 503, [b"1"])
    assert browser.ask(app=SessionMiddleware(sends(id), engine=engine)).status == 200
    assert browser.cookies == before


def test_a_change_that_is_not_confirmed_is_a_503_where_that_is_set() -> None:
    """With `degraded=refuse`; no cookie tells of what may be lost."""
    backend = FakeBackend(is_confirming=False)
    _, engine = make_pair(backend, degraded="refuse")
    got = wrapped(put(a=1), engine=engine).ask()
    assert (got.raised, got.status, got.header(b"set-cookie")) == (None, 503, [])


@pytest.mark.parametrize("name", ["a", "cart"])
def test_an_answer_that_only_read_waits_for_what_it_shows(name: str) -> None:
    """Another request's write waits for its confirmation: so does this head, once, and the body leaves at once."""
    backend, engine = make_pair()
    browser = wrapped(put(a=1, cart=["book"]), engine=engine)
    browser.ask()
    (key,) = engine.table
    app = SessionMiddleware(sends(lambda session: session[name]), engine=engine)
    assert browser.ask(app=app).status == 200
    assert backend.waits == []

    async def play() -> None:
        left: list[Any] = []
        backend.unsettled.add(key)
        backend.gate = asyncio.Event()
        backend.is_confirming = False  # so that it stays unsettled
        asking = asyncio.create_task(browser.call(app=app, on_send=left.append))
        while not backend.waits and not asking.done():
            await asyncio.wait([asking], timeout=0)
        assert left == []
        backend.gate.set()
        assert (await asking).status == 200

    asyncio.run(play())
    assert [waited for waited, _ in backend.waits] == [key]
    assert engine.stats()["degraded"] == 1


def test_an_answer_that_did_not_look_waits_for_nothing() -> None:
    """What it does not show need not be confirmed."""
    backend, engine = make_pair()
    browser = wrapped(put(a=1), engine=engine)
    browser.ask()
    backend.unsettled.update(engine.table)
    assert browser.ask(app=SessionMiddleware(sends(id), engine=engine)).status == 200
    assert backend.waits == []


def test_a_read_whose_wait_is_in_vain_is_a_503_where_that_is_set() -> None:
    """With `degraded=refuse`: what it would show may be lost."""
    backend, engine = make_pair(degraded="refuse")
    browser = wrapped(put(a=1), engine=engine)
    browser.ask()
    backend.unsettled.update(engine.table)
    backend.is_confirming = False
    got = browser.ask(app=SessionMiddleware(sends(len), engine=engine))
    assert (got.raised, got.status, got.header(b"set-cookie")) == (None, 503, [])
