"""The WSGI middleware and what PEP 3333 allows between `start_response` and `close`: `write`, `exc_info`, bodies, files."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper

import pytest

from sessile.errors import EncodeError, SessionEnded
from sessile.session import Session
from tests.fakes import cookie_names
from tests.wsgi_client import Answer, does, engine_of, fields, put, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def break_off() -> None:
    raise RuntimeError("halfway")


class Body:
    """An iterable that counts how often it is closed."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self.parts = parts
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts)

    def close(self) -> None:
        self.closed += 1


class IteratorBody(Body):
    """The same, an iterator itself."""

    parts: Iterator[bytes]

    def __next__(self) -> bytes:
        return next(self.parts)

    def __iter__(self) -> Iterator[bytes]:
        return self


# -- start_response ----------------------------------------------------------------------------------------------------


def test_an_error_page_replaces_a_head_that_has_not_left() -> None:
    """`start_response` again, with `exc_info`: what was committed stays, and its cookies go with the new head."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["sessile.session"]["a"] = 1
        start_response("200 OK", [("X-First", "1")])
        try:
            break_off()
        except RuntimeError:
            start_response("500 Oh", [("X-Second", "2")], sys.exc_info())
        return [b"sorry"]

    browser = wrapped(app)
    got = browser.ask()
    assert (got.status, got.body, got.raised) == ("500 Oh", b"sorry", None)
    assert got.header("x-first") == []
    assert cookie_names(got.set_cookies) == ["sid", "sid_v"]
    assert fields(browser) == {"a": 1}


def test_an_error_after_the_head_left_reaches_the_server() -> None:
    """The server raises what `exc_info` holds, and the app's close is called."""
    body: list[IteratorBody] = []

    def app(environ: Any, start_response: Any) -> Any:
        environ["sessile.session"]["a"] = 1
        start_response("200 OK", [])

        def parts() -> Iterator[bytes]:
            yield b"x"
            try:
                break_off()
            except RuntimeError:
                start_response("500 Oh", [], sys.exc_info())

        body.append(IteratorBody(parts()))
        return body[0]

    got = wrapped(app).ask()
    assert (str(got.raised), got.status, got.body) == ("halfway", "200 OK", b"x")
    assert body[0].closed == 1


def test_the_write_callable_is_the_servers() -> None:
    """Old applications write; what they change while they do is kept before they return."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["sessile.session"]["a"] = 1
        write = start_response("200 OK", [])
        write(b"one ")
        environ["sessile.session"]["a"] = 2
        write(b"two ")
        return [b"three"]

    browser = wrapped(app)
    got = browser.ask()
    assert (got.body, got.raised) == (b"one two three", None)
    assert engine_of(browser).stats()["late"] == 1
    assert fields(browser) == {"a": 2}


def test_an_exception_before_the_head_discards_the_changes() -> None:
    """Nothing is stored, and the exception reaches the server as it is."""
    browser = wrapped(does(put(a=1)))
    browser.ask()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["sessile.session"]["a"] = 2
        raise RuntimeError("the handler's own")

    got = browser.ask(app=wrapped(app, engine_of(browser)).app)
    assert (str(got.raised), got.status) == ("the handler's own", "")
    assert fields(browser) == {"a": 1}


def test_a_mistake_of_the_app_is_its_own() -> None:
    """No 409 and no 503: whatever runs the app shows it."""
    got = wrapped(does(lambda session: session.setdefault("x", []).append(object()))).ask()
    assert isinstance(got.raised, EncodeError)
    assert got.status == ""


# -- bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [list, tuple])
def test_a_list_passes_through_as_it_is(make: Any) -> None:
    """A server may look at its length: the very object is handed on."""
    body = make([b"a", b"b"])

    def app(environ: Any, start_response: Any) -> Any:
        environ["sessile.session"]["a"] = 1
        start_response("200 OK", [])
        return body

    assert wrapped(app).ask().returned is body


class NextlessFileWrapper:
    """As servers write it for the old iteration protocol: `__getitem__` only."""

    def __init__(self, file: Any, size: int = 8192) -> None:
        self.file, self.size = file, size

    def __getitem__(self, _: int) -> bytes:
        if data := self.file.read(self.size):
            return bytes(data)
        raise IndexError


@pytest.mark.parametrize("kind", [FileWrapper, NextlessFileWrapper])
def test_a_file_passes_through_as_it_is(kind: Any) -> None:
    """A server sends the very object it made by `sendfile`; wrapped, it would be read in Python."""
    made: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        environ["sessile.session"]["a"] = 1
        start_response("200 OK", [])
        made.append(environ["wsgi.file_wrapper"](io.BytesIO(b"x" * 20_000)))
        return made[0]

    got = wrapped(app).ask(wsgi__file_wrapper=kind)
    assert got.returned is made[0]
    assert got.body == b"x" * 20_000
    assert cookie_names(got.set_cookies) == ["sid", "sid_v"]


@pytest.mark.parametrize("is_generator", [True, False])
def test_a_generator_starts_its_response_at_its_first_step(is_generator: bool) -> None:  # noqa: FBT001  # a parameter
    """Nothing of the app has run when it returns; what it changes later is kept before the part that may tell of it."""

    def parts(environ: Any, start_response: Any) -> Iterator[bytes]:
        environ["sessile.session"]["at"] = "start"
        start_response("200 OK", [])
        for number in range(3):
            environ["sessile.session"]["at"] = number
            yield b"x"

    def app(environ: Any, start_response: Any) -> Any:
        body = parts(environ, start_response)
        return body if is_generator else IteratorBody(body)

    browser = wrapped(app)
    got = browser.ask()
    assert (got.body, got.raised) == (b"xxx", None)
    assert cookie_names(got.set_cookies) == ["sid", "sid_v"]
    assert engine_of(browser).stats()["late"] == 3
    assert fields(browser) == {"at": 2}


def test_a_stream_is_committed_when_it_ends_and_not_only_when_it_is_closed() -> None:
    """A client that has the last byte may come back before the server has closed the body."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"x"
        environ["sessile.session"]["a"] = "streamed"

    browser = wrapped(does(put(a="start")))
    browser.ask()
    middleware: Any = wrapped(app, engine_of(browser)).app
    body = middleware(browser.environ(), Answer().start_response)
    assert list(body) == [b"x"]
    assert fields(browser) == {"a": "streamed"}
    body.close()


def test_an_iterable_whose_iteration_runs_the_app_is_watched() -> None:
    """A class with a generator for `__iter__`, as frameworks stream: what it changes while it is sent is kept."""

    class Streaming:
        def __init__(self, session: Any) -> None:
            self.session = session

        def __iter__(self) -> Iterator[bytes]:
            yield b"x"
            self.session["a"] = "streamed"
            yield b"y"

    def app(environ: Any, start_response: Any) -> Any:
        environ["sessile.session"]["a"] = "start"
        start_response("200 OK", [])
        return Streaming(environ["sessile.session"])

    browser = wrapped(app)
    assert browser.ask().body == b"xy"
    assert fields(browser) == {"a": "streamed"}


def test_what_close_changes_is_kept() -> None:
    """Frameworks end their requests in `close()`."""

    def app(environ: Any, start_response: Any) -> Any:
        session = environ["sessile.session"]
        session["a"] = 1
        start_response("200 OK", [])

        class Closing(IteratorBody):
            def close(self) -> None:
                super().close()
                session["a"] = "closed"

        return Closing(iter([b"x"]))

    browser = wrapped(app)
    browser.ask()
    assert fields(browser) == {"a": "closed"}


@pytest.mark.parametrize("kind", [Body, IteratorBody])
@pytest.mark.parametrize("breaks", [None, 1, 3])
def test_close_is_called_once(kind: Any, breaks: int | None) -> None:
    """Whether the body came to its end, broke, or the client went away: exactly once."""
    bodies: list[Any] = []

    def parts() -> Iterator[bytes]:
        for number in range(3):
            if number == breaks:
                raise RuntimeError("the handler's own")
            yield b"x"

    def app(environ: Any, start_response: Any) -> Any:
        environ["sessile.session"]["a"] = 1
        start_response("200 OK", [])
        bodies.append(kind(parts()))
        return bodies[-1]

    def go_away(_: Answer) -> None:
        raise OSError("the client went away")

    wrapped(app).ask()
    wrapped(app).ask(after_each=go_away)
    assert [body.closed for body in bodies] == [1, 1]


def test_a_body_that_never_reaches_the_server_is_closed() -> None:
    """The session ended between head and return, so the commit fails: PEP 3333 leaves the close to whoever has the body."""
    browser = wrapped(does(put(a=1)))
    browser.ask()
    bodies: list[Body] = []
    other = browser.copy()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        environ["sessile.session"]["a"] = 2
        other.ask(app=wrapped(does(Session.logout), engine_of(browser)).app)
        bodies.append(Body([b"x"]))
        return bodies[0]

    got = browser.ask(app=wrapped(app, engine_of(browser)).app)
    assert isinstance(got.raised, SessionEnded)
    assert bodies[0].closed == 1


def test_an_empty_body_is_an_answer() -> None:
    """Nothing to send, and the session is stored all the same."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        environ["sessile.session"]["a"] = 1
        start_response("204 No Content", [])
        return iter(())

    browser = wrapped(app)
    assert browser.ask().body == b""
    assert fields(browser) == {"a": 1}
