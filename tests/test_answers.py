"""Which error of a session becomes which answer, and what that answer tells browsers and caches."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from sessile import asgi, wsgi
from sessile.answers import LOGGED_MAX, Answer, _logged, answer_to
from sessile.engine import Engine
from sessile.errors import (
    FieldUnreadable,
    SessionConflict,
    SessionEnded,
    SessionError,
    SessionLimit,
    SessionRotated,
    SessionTooLarge,
    SessionTooLate,
    SessionUnavailable,
    SettingsError,
)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (SessionConflict, 409),
        (SessionEnded, 409),
        (SessionRotated, 409),
        (SessionLimit, 503),
        (SessionUnavailable, 503),
        (SessionTooLarge, None),
        (SessionTooLate, None),
        (FieldUnreadable, None),
        (SessionError, None),
    ],
)
def test_the_answer_to_each_error(kind: type[SessionError], status: int | None) -> None:
    """What another try may mend is answered; a mistake of the application is left to its framework."""
    answer = answer_to(kind("the details stay in the log"))
    assert (None if answer is None else answer.status) == status


def test_a_mistake_in_the_settings_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """503 without a time to come back: it does not pass by itself. Another mistake is another line, up to a limit."""
    _logged.clear()
    answers = [answer_to(SettingsError(f"idle_timeout={number}")) for number in (1, 1, 2, 1)]
    assert [(answer.status, answer.retry_after_s) for answer in answers if answer] == [(503, 0)] * 4
    assert caplog.messages == ["idle_timeout=1", "idle_timeout=2"]
    assert all(answer and b"idle_timeout" not in answer.body for answer in answers)
    for number in range(LOGGED_MAX * 2):
        answer_to(SettingsError(f"me={number}"))
    assert len(caplog.messages) == LOGGED_MAX
    _logged.clear()


def test_a_middleware_inside_another_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Where their engines differ, in ASGI and WSGI alike."""

    def service(environ: Any, start_response: Any) -> list[bytes]:
        del environ
        start_response("200 OK", [])
        return []

    _logged.clear()
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http"}
    one, other = (Engine(secret="a secret of the test, long enough", sweeps=False, environ={}) for _ in range(2))
    for inner, said in ((one, 0), (other, 1), (other, 1)):
        app: Any = wsgi.SessionMiddleware(wsgi.SessionMiddleware(service, engine=inner), engine=one)
        assert list(app(dict(environ), lambda *_: None)) == []
        asgi_app = asgi.SessionMiddleware(PlainTextResponse("ok"), engine=inner)
        assert TestClient(asgi.SessionMiddleware(asgi_app, engine=one)).get("/").text == "ok"
        assert len([line for line in caplog.messages if "give both the same engine" in line]) == said
    _logged.clear()


def test_every_session_error_is_decided_on() -> None:
    """A new kind of session error is entered above, so that somebody decides what a browser is told."""

    def below(kind: type[SessionError]) -> set[type[SessionError]]:
        return {kind}.union(*(below(each) for each in kind.__subclasses__()))

    assert below(SessionError) == {
        *(SessionConflict, SessionEnded, SessionRotated, SessionLimit, SessionUnavailable),
        *(FieldUnreadable, SessionTooLarge, SessionTooLate, SessionError),
    }


def the_answer(error: SessionError) -> Answer:
    answer = answer_to(error)
    assert answer is not None
    return answer


@pytest.mark.parametrize("kind", [SessionConflict, SessionUnavailable])
def test_an_answer_is_whole_and_stored_nowhere(kind: type[SessionError]) -> None:
    """Its length is its body's, caches keep it for nobody, it sets no cookie, and tells nothing of the inside."""
    answer = the_answer(kind("secret detail"))
    headers = dict(answer.headers())
    assert len(headers) == len(answer.headers())
    assert headers[b"content-length"] == b"%d" % len(answer.body)
    assert headers[b"content-type"] == b"text/plain; charset=utf-8"
    assert headers[b"cache-control"] == b"no-store" and headers[b"vary"] == b"Cookie"
    assert b"set-cookie" not in headers
    assert b"secret detail" not in answer.body and answer.body.endswith(b"\n")
    assert all(name == name.lower() for name in headers)


def test_only_what_passes_by_itself_says_when_to_come_back() -> None:
    """503 comes with Retry-After; 409 does not: it may be tried again at once."""
    assert (b"retry-after", b"1") in the_answer(SessionUnavailable()).headers()
    assert the_answer(SessionUnavailable()).reason == "Service Unavailable"
    assert b"retry-after" not in dict(the_answer(SessionEnded()).headers())
    assert the_answer(SessionEnded()).reason == "Conflict"
