"""The WSGI middleware against a strict server (PEP 3333): heads, refusals, threads. Bodies and servers: beside it."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, ClassVar
from wsgiref.validate import validator

import pytest

from sessile.errors import SettingsError
from sessile.session import Session
from sessile.wsgi import SessionMiddleware
from tests.fakes import SECRET, FakeBackend, cookie_names, make_engine
from tests.wsgi_client import Answer, WsgiBrowser, does, engine_of, fields, put, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator


# -- the head ----------------------------------------------------------------------------------------------------------


def test_building_a_middleware_does_nothing() -> None:
    """Settings are checked; no thread is started."""
    threads = threading.active_count()
    SessionMiddleware(does(put()), secret=SECRET)
    assert threading.active_count() == threads
    misspelt: Any = {"secert": SECRET}
    with pytest.raises(SettingsError, match="secret"):
        SessionMiddleware(does(put()), **misspelt)


def test_a_session_goes_on() -> None:
    """The id is set once, the version whenever it grows, and a read sets nothing."""
    browser = wrapped(does(lambda session: session.increment("n")))
    assert cookie_names(browser.ask().set_cookies) == ["sid", "sid_v"]
    got = browser.ask()
    assert cookie_names(got.set_cookies) == ["sid_v"]
    assert got.header("cache-control") == ["no-store"]
    assert got.header("vary") == ["Cookie"]
    assert (got.status, got.body, got.raised) == ("200 OK", b"done", None)
    assert fields(browser) == {"n": 2}


def test_an_answer_that_does_not_depend_on_the_session_passes_untouched() -> None:
    """The very list of headers reaches the server."""
    headers = [("X", "y")]
    got: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", headers)
        return [b""]

    middleware: Any = SessionMiddleware(app, secret=SECRET)
    middleware(WsgiBrowser(app).environ(), lambda _, given: got.append(given))
    assert got[0] is headers


@pytest.mark.parametrize("status", ["200 OK", "302 Found", "304 Not Modified", "404 Not Found", "500 Oh"])
def test_headers_follow_whatever_the_status(status: str) -> None:
    """Read: `Vary`, and as cacheable as the app says. Written: `no-store`. The app's own headers and cookies stay."""
    headers = [("Set-Cookie", "theme=dark"), ("Cache-Control", "max-age=60"), ("Vary", "Accept")]
    read = wrapped(does(len, status=status, headers=headers)).ask()
    assert read.header("vary") == ["Accept, Cookie"]
    assert read.header("cache-control") == ["max-age=60"]
    assert read.header("set-cookie") == ["theme=dark"]
    written = wrapped(does(put(a=1), status=status, headers=headers)).ask()
    assert written.header("cache-control") == ["no-store"]
    assert cookie_names(written.set_cookies) == ["sid", "sid_v", "theme"]
    assert len(headers) == 3


@pytest.mark.parametrize(("scheme", "name"), [("http", "sid"), ("https", "__Host-sid")])
def test_the_scheme_decides_on_the_prefix(scheme: str, name: str) -> None:
    """Over HTTPS cookies are `__Host-` and `Secure`."""
    got = wrapped(does(put(a=1))).ask(wsgi__url_scheme=scheme)
    assert cookie_names(got.set_cookies) == [name, f"{name}_v"]


def test_a_cookie_header_of_any_bytes_is_read() -> None:
    """A server hands bytes on as Latin-1 (PEP 3333, "Unicode Issues"); other cookies may hold whatever they like."""
    browser = wrapped(does(put(a=1)))
    browser.ask()
    cookie = "x=\xff\xfe; " + "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    found: list[Any] = []
    middleware = wrapped(does(lambda session: found.append(dict(session))), engine_of(browser)).app
    assert browser.ask(app=middleware, HTTP_COOKIE=cookie).raised is None
    assert found == [{"a": 1}]


def test_a_path_that_is_excluded_passes_untouched() -> None:
    """The whole path counts, with the part under which the app is mounted."""
    seen: list[bool] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.append("sessile.session" in environ)
        start_response("200 OK", [])
        return []

    browser = wrapped(app, make_engine(exclude=("/shop/static/",)))
    for script, path in (("/shop", "/static/app.css"), ("", "/shop/static/x"), ("", "/static/x"), ("/shop", "/")):
        browser.ask(SCRIPT_NAME=script, PATH_INFO=path)
    assert seen == [False, False, True, True]


def test_a_middleware_inside_another_one_of_its_engine_is_transparent() -> None:
    """One session object, one pair of cookies."""
    engine = make_engine()
    inner = SessionMiddleware(does(lambda session: session.increment("n")), engine=engine)
    browser = wrapped(inner, engine)
    assert cookie_names(browser.ask().set_cookies) == ["sid", "sid_v"]
    browser.ask()
    assert fields(browser) == {"n": 2}
    assert engine.stats()["created"] == 1


@pytest.mark.parametrize("server", ["0.0.0.0", "shop.example"])
def test_a_server_that_is_reachable_needs_a_secret(server: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without one every answer is 503, and the log has the remedy once."""
    browser = WsgiBrowser(SessionMiddleware(does(put(a=1))))
    for _ in range(3):
        got = browser.ask(SERVER_NAME=server)
        assert (got.raised, got.status) == (None, "503 Service Unavailable")
    (line,) = caplog.messages
    assert server in line and "sessile keygen" in line


class Refusing(FakeBackend):
    """Cannot join."""

    is_running: ClassVar[bool] = False

    def start_in_thread(self) -> None:
        raise SettingsError("me=127.0.0.1:2: the node's port cannot be had")


def test_a_server_that_cannot_join_answers_503_and_says_why_once(caplog: pytest.LogCaptureFixture) -> None:
    """No request ends in a traceback."""
    browser = WsgiBrowser(SessionMiddleware(does(put(a=1)), engine=make_engine(backend=Refusing())))
    assert [browser.ask().status for _ in range(3)] == ["503 Service Unavailable"] * 3
    assert caplog.messages == ["me=127.0.0.1:2: the node's port cannot be had"]


def test_a_mistake_that_the_app_meets_in_its_session_is_a_503(caplog: pytest.LogCaptureFixture) -> None:
    """A forked child that is no member learns it at the first touch of a session."""

    def touch(session: Session) -> None:
        raise SettingsError("this process was forked, says a test")

    browser = WsgiBrowser(SessionMiddleware(does(touch), engine=make_engine()))
    assert [browser.ask().status for _ in range(2)] == ["503 Service Unavailable"] * 2
    assert caplog.messages == ["this process was forked, says a test"]


def test_a_health_check_lets_a_server_join_and_does_not_wait_for_it() -> None:
    """It is answered while the server joins in a thread, which is started once."""
    gate, joined = threading.Event(), threading.Event()

    class Joining(FakeBackend):
        is_running: ClassVar[bool] = False
        starts = 0

        def start_in_thread(self) -> None:
            self.starts += 1
            assert gate.wait(20)
            Joining.is_running = True
            joined.set()

    backend = Joining()
    engine = make_engine(backend=backend, exclude=("/healthz",))
    ready: list[bool] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        ready.append(engine.is_ready)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    browser = wrapped(app, engine)
    for _ in range(3):
        browser.ask(PATH_INFO="/healthz")
    gate.set()
    assert joined.wait(20)
    browser.ask(PATH_INFO="/healthz")
    assert (ready, backend.starts) == ([False, False, False, True], 1)


# -- answers in place of the app's -------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_generator", [True, False])
@pytest.mark.parametrize("verb", [Session.rotate, Session.logout])
def test_a_change_that_came_too_late_is_a_409(verb: Any, is_generator: bool) -> None:  # noqa: FBT001  # a parameter
    """Whether the head is started in the call or at the first step of a generator; no cookie is touched."""
    browser = wrapped(does(put(a=1)))
    browser.ask()
    before = dict(browser.cookies)
    other = browser.copy()

    def steps(environ: Any, start_response: Any) -> Iterator[bytes]:
        environ["sessile.session"]["a"] = 2
        other.ask(app=wrapped(does(verb), engine_of(browser)).app)
        start_response("200 OK", [("Set-Cookie", "theme=dark")])
        yield b"never"

    app = steps if is_generator else lambda environ, start: list(steps(environ, start))
    got = browser.ask(app=wrapped(app, engine_of(browser)).app)
    assert (got.raised, got.status) == (None, "409 Conflict")
    assert got.header("cache-control") == ["no-store"]
    assert got.header("content-length") == [str(len(got.body))]
    assert browser.cookies == before
    assert engine_of(browser).stats()["conflicts"] == 1


def test_a_write_with_an_old_id_is_a_409() -> None:
    """SessionRotated, raised in the handler, needs no care of the app's."""
    browser = wrapped(does(put(a=1)))
    browser.ask()
    late = browser.copy()
    browser.ask(app=wrapped(does(Session.rotate), engine_of(browser)).app)
    got = late.ask()
    assert (got.raised, got.status, got.set_cookies) == (None, "409 Conflict", [])


def test_a_full_server_is_a_503() -> None:
    """With a hint when to come back, and without a cookie."""
    engine = make_engine(sessions_max=1)
    wrapped(does(put(a=1)), engine).ask()
    got = wrapped(does(put(a=1)), engine).ask()
    assert (got.raised, got.status) == (None, "503 Service Unavailable")
    assert got.header("retry-after") == ["1"]
    assert got.set_cookies == []


# -- under the validator, and in threads -------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [put(a=1), len, Session.logout, id])
def test_the_validator_finds_nothing(verb: Any) -> None:
    """`wsgiref.validate` around the middleware and inside it: neither side breaks PEP 3333."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        verb(environ["sessile.session"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]

    browser = WsgiBrowser(validator(SessionMiddleware(validator(app), engine=make_engine())))
    for _ in range(2):
        got = browser.ask()
        assert (got.raised, got.status, got.body) == (None, "200 OK", b"done")


def test_the_validator_finds_nothing_in_a_stream() -> None:
    """The body is iterated and closed as PEP 3333 wants, with a commit at its end."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        environ["sessile.session"]["a"] = 0
        start_response("200 OK", [("Content-Type", "text/plain")])
        environ["sessile.session"]["a"] = 1
        return iter([b"one", b"two"])

    inner = make_engine()
    browser = WsgiBrowser(validator(SessionMiddleware(validator(app), engine=inner)))
    got = browser.ask()
    assert (got.raised, got.body) == (None, b"onetwo")
    assert inner.stats()["late"] == 1


def test_threads_lose_nothing() -> None:
    """Eight threads of a server, 200 requests each, one browser: every increment counts."""
    browser = wrapped(does(lambda session: session.increment("n")))
    browser.ask()
    failed: list[Answer] = []

    def work(mine: WsgiBrowser) -> None:
        for _ in range(200):
            got = mine.ask()
            if got.raised or got.status != "200 OK":
                failed.append(got)

    threads = [threading.Thread(target=work, args=(browser.copy(),)) for _ in range(8)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert failed == []
    assert fields(browser) == {"n": 1_601}
    assert engine_of(browser).stats()["created"] == 1
