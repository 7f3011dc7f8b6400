"""The ASGI middleware on raw scopes: HTTP. WebSockets, frameworks and servers: beside it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from sessile import codec
from sessile.answers import _logged
from sessile.asgi import SessionMiddleware
from sessile.errors import SettingsError
from sessile.record import Record
from sessile.session import Session
from tests.asgi_client import AsgiBrowser, answer, engine_of, fields, put, sends, wrapped
from tests.fakes import SECRET, FakeBackend, cookie_names, make_engine, make_pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.engine import Engine
    from tests.asgi_client import Receive, Send


def held(engine: Engine) -> dict[str, Any]:
    """The fields of the only session in the table, at this moment."""
    (key,) = engine.table
    record = Record.unpack(engine.table.get(key) or b"")
    return {name: codec.decode(record.fields[name].value) for name in record.names()}


# -- before the request ------------------------------------------------------------------------------------------------


def test_building_a_middleware_does_nothing() -> None:
    """Settings are checked, and nothing else happens: no thread, no event loop, no lifespan of our own."""
    threads = threading.active_count()
    SessionMiddleware(sends(put()), secret=SECRET, idle_timeout="5m")
    assert threading.active_count() == threads
    misspelt: Any = {"idle_timeot": "5m"}
    with pytest.raises(SettingsError, match="idle_timeout"):
        SessionMiddleware(sends(put()), secret=SECRET, **misspelt)


def test_what_is_no_request_passes_untouched() -> None:
    """The lifespan, and kinds of scope that come later, go to the app as they are."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    middleware = SessionMiddleware(app, secret=SECRET)
    arguments: Any = ({"type": "lifespan"}, object(), object())
    asyncio.run(middleware(*arguments))
    assert all(one is other for one, other in zip(seen[0], arguments, strict=True))
    assert "session" not in arguments[0]


def test_a_path_that_is_excluded_passes_untouched() -> None:
    """Prefixes of paths need no session: nothing is in the scope, no holder is asked."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.append(scope.get("session"))
        await answer(send)

    backend, engine = make_pair(exclude=("/static/", "/healthz"))
    browser = AsgiBrowser(SessionMiddleware(app, engine=engine))
    browser.ask(app=SessionMiddleware(sends(put(a=1)), engine=engine))
    for key in engine.table:
        engine.table.drop(key)
    for path in ("/static/app.css", "/healthz", "/"):
        browser.ask(path=path)
    assert seen[:2] == [None, None]
    assert isinstance(seen[2], Session)
    assert len(backend.pulls) == 1


@pytest.mark.parametrize("server", [None, ("127.0.0.1", 80), ("::1", 80), ("testserver", 80), ("/run/app.sock", None)])
def test_a_server_on_this_machine_needs_no_secret(server: Any) -> None:
    """Neither one that does not say where the request came in (`server` is optional), nor one on a Unix socket."""
    got = AsgiBrowser(SessionMiddleware(sends(put(a=1)))).ask(server=server)
    assert (got.raised, got.status) == (None, 200)


def test_a_server_in_any_other_place_needs_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """Without one every answer is 503, and the log has the remedy once; with one it is served."""
    server = ("10.1.2.3", 80)
    assert AsgiBrowser(SessionMiddleware(sends(put(a=1)), engine=make_engine())).ask(server=server).status == 200
    browser = AsgiBrowser(SessionMiddleware(sends(put(a=1))))
    refused = [browser.ask(server=server) for _ in range(3)]
    assert [(got.raised, got.status) for got in refused] == [(None, 503)] * 3
    assert refused[0].header(b"retry-after") == [], "it does not pass by itself"
    (line,) = caplog.messages
    assert "10.1.2.3" in line and "sessile keygen" in line


MISTAKE: Any = {"url": "sticki://"}


def built_late(caller: Callable[[SessionMiddleware], Any]) -> Any:
    """What comes of a middleware with a mistake that is built on the loop, as Starlette does at the first call."""

    async def run() -> Any:
        return await caller(SessionMiddleware(sends(put(a=1)), secret=SECRET, **MISTAKE))

    return asyncio.run(run())


def test_a_mistake_that_is_found_late_does_not_let_the_server_start() -> None:
    """The lifespan fails with the line that names the setting, instead of raising: servers would go on without it."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    built_late(lambda middleware: middleware({"type": "lifespan"}, receive, send))
    (message,) = sent
    assert message["type"] == "lifespan.startup.failed"
    assert message["message"] == "url has an unknown scheme; did you mean 'sticky://'?"


def test_where_a_lifespan_cannot_every_answer_is_503(caplog: pytest.LogCaptureFixture) -> None:
    """A mounted app, or `--lifespan off`: each request is refused without a traceback, and the log has one line."""

    async def calls(middleware: SessionMiddleware) -> list[Any]:
        browser = AsgiBrowser(middleware)
        with pytest.raises(SettingsError, match="unknown scheme"):
            _ = middleware.engine
        return [
            *[await browser.call() for _ in range(3)],
            await browser.call({"type": "websocket.connect"}, kind="websocket"),
        ]

    _logged.clear()
    *answers, socket = built_late(calls)
    assert [(got.raised, got.status) for got in answers] == [(None, 503)] * 3
    assert (socket.raised, socket.messages) == (None, [{"type": "websocket.close", "code": 1013}])
    assert caplog.messages == ["url has an unknown scheme; did you mean 'sticky://'?"]


def test_a_server_that_cannot_join_answers_503_and_says_why_once(caplog: pytest.LogCaptureFixture) -> None:
    """Where no lifespan starts it, the first request finds out; an excluded one is answered, and finds out, too."""

    class Refusing(FakeBackend):
        is_running: ClassVar[bool] = False

        async def start(self) -> None:
            raise SettingsError("me=127.0.0.1:1: the node's port cannot be had")

    engine = make_engine(backend=Refusing(), exclude=("/healthz",))
    browser = AsgiBrowser(SessionMiddleware(sends(put(a=1)), engine=engine))
    assert [browser.ask().status for _ in range(3)] == [503] * 3
    assert caplog.messages == ["me=127.0.0.1:1: the node's port cannot be had"]
    assert not engine.is_ready


def test_a_health_check_lets_a_server_join_and_does_not_wait_for_it() -> None:
    """An excluded path is answered at once; `engine.is_ready` becomes true by it, without another request."""

    async def run() -> list[bool]:
        gate = asyncio.Event()

        class Joining(FakeBackend):
            is_running: ClassVar[bool] = False

            async def start(self) -> None:
                await gate.wait()
                Joining.is_running = True
                gate.clear()

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            ready.append(engine.is_ready)
            await answer(send)

        ready: list[bool] = []
        engine = make_engine(backend=Joining(), exclude=("/healthz",))
        browser = AsgiBrowser(SessionMiddleware(app, engine=engine))
        for _ in range(2):
            await browser.call(path="/healthz")
        gate.set()
        async with asyncio.timeout(20):
            while not engine.is_ready:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await browser.call(path="/healthz")
        engine.is_draining = True
        await browser.call(path="/healthz")
        return ready

    assert asyncio.run(run()) == [False, False, True, False]


def test_the_cookie_may_come_in_several_headers() -> None:
    """As HTTP/2 splits it (RFC 9113 §8.2.3); other headers are no cookies."""
    browser = wrapped(put(a=1))
    browser.ask()
    headers = [(b"host", b"x"), (b"x-cookie", b"sid=junk")] + [
        (b"cookie", b"%b=%b" % pair) for pair in browser.cookies.items()
    ]
    found: list[Any] = []
    app = SessionMiddleware(sends(lambda session: found.append(dict(session))), engine=engine_of(browser))
    assert browser.ask(app=app, headers=headers).header(b"set-cookie") == []
    assert found == [{"a": 1}]
    assert engine_of(browser).stats()["foreign"] == 0


# -- the head of the answer --------------------------------------------------------------------------------------------


def test_an_answer_that_does_not_depend_on_the_session_passes_untouched() -> None:
    """The very messages of the app reach the server: no copy, no header."""
    start = {"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]}

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(start)
        await send({"type": "http.response.body"})

    got = AsgiBrowser(SessionMiddleware(app, secret=SECRET)).ask()
    assert got.messages[0] is start
    assert start["headers"] == [(b"x", b"y")]


@pytest.mark.parametrize("status", [200, 204, 302, 304, 404, 500])
def test_an_answer_that_only_read_varies_by_cookie(status: int) -> None:
    """Whatever its status: a cache that stored it would show one user's page to another. It stays cacheable."""
    headers = [(b"cache-control", b"private, max-age=60")]
    got = wrapped(lambda session: session.get("a"), status=status, headers=headers).ask()
    assert got.header(b"vary") == [b"Cookie"]
    assert got.header(b"set-cookie") == []
    assert got.header(b"cache-control") == [b"private, max-age=60"]


@pytest.mark.parametrize("status", [200, 204, 302, 304, 404, 500])
def test_an_answer_that_sets_a_cookie_is_never_stored(status: int) -> None:
    """Whatever its status and whatever the app wished, `no-store` goes with each cookie that is set."""
    headers = [(b"Cache-Control", b"public, max-age=60"), (b"cache-control", b"immutable")]
    browser = wrapped(lambda session: session.increment("n"), status=status, headers=headers)
    for names in (["sid", "sid_v"], ["sid_v"]):
        got = browser.ask()
        assert cookie_names(got.header(b"set-cookie")) == names
        assert got.header(b"cache-control") == [b"no-store"]
        assert got.header(b"vary") == [b"Cookie"]
    assert fields(browser, engine_of(browser)) == {"n": 2}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ([b"Accept-Encoding"], [b"Accept-Encoding, Cookie"]),
        ([b"Accept, cookie"], [b"Accept, cookie"]),
        ([b"*"], [b"*"]),
        ([b""], [b"Cookie"]),
        ([b"Accept", b"COOKIE"], [b"Accept", b"COOKIE"]),
    ],
)
def test_vary_is_merged(theirs: list[bytes], ours: list[bytes]) -> None:
    """What the answer depends on by the app's word stays (RFC 9110 §12.5.5)."""
    got = wrapped(lambda session: session.get("a"), headers=[(b"Vary", value) for value in theirs]).ask()
    assert got.header(b"vary") == ours


def test_headers_of_the_app_survive() -> None:
    """Its own cookies and everything else stay, in their order; its list of headers is not changed."""
    headers = ((b"set-cookie", b"theme=dark"), (b"content-type", b"text/plain"), (b"set-cookie", b"lang=ko"))

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scope["session"]["a"] = 1
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    got = AsgiBrowser(SessionMiddleware(app, secret=SECRET)).ask()
    assert tuple(got.headers[:3]) == headers
    assert cookie_names(got.header(b"set-cookie")) == ["lang", "sid", "sid_v", "theme"]
    assert len(headers) == 3


def test_an_answer_without_headers_gets_ours() -> None:
    """`headers` is optional in `http.response.start`."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scope["session"]["a"] = 1
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    got = AsgiBrowser(SessionMiddleware(app, secret=SECRET)).ask()
    assert cookie_names(got.header(b"set-cookie")) == ["sid", "sid_v"]


def test_a_head_request_is_a_request() -> None:
    """It has the headers that GET would have, cookies included."""
    browser = wrapped(lambda session: session.increment("n"))
    assert cookie_names(browser.ask(method="HEAD").header(b"set-cookie")) == ["sid", "sid_v"]
    assert fields(browser, engine_of(browser)) == {"n": 1}


@pytest.mark.parametrize(("scheme", "name"), [("http", "sid"), ("https", "__Host-sid")])
def test_the_scheme_decides_on_the_prefix(scheme: str, name: str) -> None:
    """Over HTTPS cookies are `__Host-` and `Secure`."""
    got = wrapped(put(a=1)).ask(scheme=scheme)
    assert cookie_names(got.header(b"set-cookie")) == [name, f"{name}_v"]
    assert all((b"; Secure" in cookie) == (scheme == "https") for cookie in got.header(b"set-cookie"))


def test_a_logout_removes_the_cookies() -> None:
    """And the next request is a new session's."""
    browser = wrapped(put(a=1))
    browser.ask()
    browser.ask(app=SessionMiddleware(sends(Session.logout), engine=engine_of(browser)))
    assert browser.cookies == {}
    assert fields(browser, engine_of(browser)) == {}


# -- when it is committed ----------------------------------------------------------------------------------------------


def test_what_is_changed_before_the_head_is_committed_before_it_leaves() -> None:
    """When the server gets the head, the session is stored already."""
    engine = make_engine()
    browser = wrapped(put(a=1), engine=engine)
    at_the_time: list[dict[str, Any]] = []
    asyncio.run(browser.call(on_send=lambda _: at_the_time.append(held(engine))))
    assert at_the_time == [{"a": 1}, {"a": 1}]


def test_what_a_stream_changes_is_committed_before_its_next_part() -> None:
    """Any may be the last one; it is kept and counted late, and the cookie knows only what was there at the start."""
    engine = make_engine()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scope["session"]["at"] = "start"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            scope["session"]["at"] = number
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    browser = AsgiBrowser(SessionMiddleware(app, engine=engine))
    at_the_time: list[Any] = []
    got = asyncio.run(browser.call(on_send=lambda _: at_the_time.append(held(engine)["at"])))
    assert at_the_time == ["start", 0, 1, 2, 2]
    assert got.body == b"xxx"
    assert engine.stats()["late"] == 3
    assert fields(browser, engine) == {"at": 2}
    told = browser.ask(app=SessionMiddleware(sends(len), engine=engine))
    assert told.header(b"set-cookie") == [], "the request before has told the browser"


def test_what_a_background_task_changes_is_committed_at_the_return() -> None:
    """After the last byte the session is still the request's."""
    engine = make_engine()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scope["session"]["cart"] = ["book"]
        await answer(send)
        scope["session"]["cart"].append("pen")

    browser = AsgiBrowser(SessionMiddleware(app, engine=engine))
    assert browser.ask().raised is None
    assert fields(browser, engine) == {"cart": ["book", "pen"]}
    assert engine.stats()["late"] == 1


def test_a_session_that_is_first_touched_in_a_stream_is_kept() -> None:
    """The head was sent without a word of the session; the write counts all the same."""
    engine = make_engine()
    browser = wrapped(put(a=1), engine=engine)
    browser.ask()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scope["session"]["a"] = 2
        await send({"type": "http.response.body", "body": b""})

    browser.ask(app=SessionMiddleware(app, engine=engine))
    assert fields(browser, engine) == {"a": 2}


def test_an_exception_before_the_head_discards_the_changes() -> None:
    """Nothing is stored, and the exception reaches the server as it is."""
    engine = make_engine()
    browser = wrapped(put(a=1), engine=engine)
    browser.ask()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scope["session"]["a"] = 2
        raise RuntimeError("the handler's own")

    got = browser.ask(app=SessionMiddleware(app, engine=engine))
    assert str(got.raised) == "the handler's own"
    assert got.messages == []
    assert fields(browser, engine) == {"a": 1}


def test_an_exception_after_the_head_keeps_what_was_committed() -> None:
    """What the head told of stays; what was changed after it is discarded."""
    engine = make_engine()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scope["session"]["a"] = 2
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scope["session"]["b"] = 3
        raise RuntimeError("the handler's own")

    browser = AsgiBrowser(SessionMiddleware(app, engine=engine))
    assert str(browser.ask().raised) == "the handler's own"
    assert fields(browser, engine) == {"a": 2}


def test_an_app_that_answers_nothing_keeps_nothing() -> None:
    """A client that went away before the answer: there is nobody to tell the version to."""
    engine = make_engine()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scope["session"]["a"] = 1

    assert AsgiBrowser(SessionMiddleware(app, engine=engine)).ask().raised is None
    assert engine.stats()["sessions"] == 0


def test_requests_that_overlap_in_one_loop_lose_nothing() -> None:
    """Eight requests of one browser wait for each other between opening and answering."""
    engine = make_engine()
    browser = wrapped(put(n=0), engine=engine)
    browser.ask()

    async def play() -> None:
        everybody = asyncio.Barrier(8)

        async def app(scope: Any, receive: Receive, send: Send) -> None:
            scope["session"].increment("n")
            await everybody.wait()
            await answer(send)

        await asyncio.gather(*(browser.copy().call(app=SessionMiddleware(app, engine=engine)) for _ in range(8)))

    asyncio.run(play())
    assert fields(browser, engine) == {"n": 8}
