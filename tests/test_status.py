from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from sessile import answers
from sessile.asgi import SessionMiddleware
from sessile.engine import Engine
from sessile.settings import Settings
from sessile.status import TOKEN_VARIABLE, StatusApp, StatusWSGIApp, fingerprints, status_of
from sessile.wsgi import SessionMiddleware as WSGISessionMiddleware
from tests.network.clusters import cluster_of, ran

if TYPE_CHECKING:
    import httpx2

TOKEN = "it-is-long-enough"
SECRET = "a secret of the status, long enough"


@pytest.fixture
def engine() -> Engine:
    return Engine(url="sticky://", secret=SECRET, sweeps=False)


def asked(app: StatusApp, method: str = "GET", *credentials: str) -> httpx2.Response:
    headers = [(b"Authorization", one.encode("latin-1")) for one in credentials]
    answer: httpx2.Response = TestClient(app).request(method, "/anywhere", headers=headers)
    return answer


def test_who_sends_the_token_is_told(engine: Engine) -> None:
    """What the engine counts, and nothing that anybody keeps."""
    app = StatusApp(engine, token=TOKEN)
    answer = asked(app, "GET", f"Bearer {TOKEN}")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == status_of(engine)
    assert answer.json()["stats"]["sessions"] == 0
    assert (answer.json()["state"], answer.json()["strategy"], answer.json()["cluster"]) == ("ready", "sticky", {})
    head = asked(app, "HEAD", f"bearer {TOKEN}")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 0


def test_whether_cookies_are_read_alike_is_told_without_the_secret() -> None:
    """Equal for equal secrets, cluster and cookie name; another for any other; in order."""

    def marks(*secrets: str, **more: Any) -> list[str]:
        return fingerprints(Settings.load(secret=list(secrets), **more))

    first, second = SECRET, SECRET[::-1]
    assert marks(first, second) == list(reversed(marks(second, first)))
    assert marks(first) == marks(first, second)[:1] != marks(first, cookie_name="other")
    assert marks(first) != marks(first, cluster="other")
    assert all(len(mark) == 8 and mark not in first.encode().hex() for mark in marks(first, second))
    assert fingerprints(Settings.load()) == []


@pytest.mark.parametrize(
    ("method", "credentials"),
    [
        ("GET", []),
        ("GET", [""]),
        ("GET", ["Bearer"]),
        ("GET", ["Bearer "]),
        ("GET", [f"Bearer {TOKEN[:-1]}"]),
        ("GET", [f"Bearer {TOKEN}x"]),
        ("GET", [f"Bearer {TOKEN.upper()}"]),
        ("GET", [f"Basic {TOKEN}"]),
        ("GET", [TOKEN]),
        ("GET", ["Bearer \xff"]),
        ("GET", [f"Bearer {TOKEN}", f"Bearer {TOKEN}"]),
        ("POST", [f"Bearer {TOKEN}"]),
        ("OPTIONS", [f"Bearer {TOKEN}"]),
    ],
)
def test_for_everybody_else_nothing_is_there(engine: Engine, method: str, credentials: list[str]) -> None:
    """One and the same 404, whatever was wrong: not even that a token would help is told."""
    answer = asked(StatusApp(engine, token=TOKEN), method, *credentials)
    assert (answer.status_code, answer.text) == (404, "Not Found\n")
    assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((None, None), "has no token and answers 503: set SESSILE_STATUS_TOKEN, or give it token=;"),
        ((None, "  "), "has no token and answers 503: set SESSILE_STATUS_TOKEN, or give it token=;"),
        (("", TOKEN), "has no token and answers 503: set SESSILE_STATUS_TOKEN, or give it token=;"),
        (("hush", None), "answers 503, since token= is shorter than 16 characters:"),
        ((None, "hush"), "answers 503, since SESSILE_STATUS_TOKEN is shorter than 16 characters:"),
        (("ü" * 16, None), "answers 503, since token= holds what a header cannot:"),
    ],
)
def test_without_a_token_it_says_what_to_set(
    given: tuple[str | None, str | None],
    said: str,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is built, and the service starts; every answer is 503 with the line that the log has once, never with the token."""
    monkeypatch.setattr(answers, "_logged", set())
    token, variable = given
    if variable is None:
        monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(TOKEN_VARIABLE, variable)
    line = f"StatusApp {said} `sessile keygen` draws one"
    for credentials in ([], ["Bearer "], [f"Bearer {token}"]):
        answer = asked(StatusApp(engine, token=token), "GET", *credentials)
        assert (answer.status_code, answer.text) == (503, f"{line}\n")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("ERROR", line)]
    told: list[str] = []
    app: Any = StatusWSGIApp(engine, token=token)
    body = b"".join(app({"REQUEST_METHOD": "GET"}, lambda status, _: told.append(status)))
    assert (told, body.decode()) == (["503 Service Unavailable"], f"StatusWSGIApp {said} `sessile keygen` draws one\n")


def test_the_token_may_come_from_the_environment(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting of that name there is not, and none is missed."""
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert asked(StatusApp(engine), "GET", f"Bearer {TOKEN}").status_code == 200
    assert Settings.load(secret=SECRET).url == "sticky://"


def test_behind_the_middleware_it_finds_the_engine(engine: Engine) -> None:
    """Mounted in an app whose sessions it tells of; it begins none itself. Without a middleware there is nothing to tell."""
    status = StatusApp(token=TOKEN)
    routes = [Route("/ops/sessile", status)]
    sessions = SessionMiddleware(Starlette(routes=routes), engine=engine)
    client = TestClient(sessions)
    answer = client.get("/ops/sessile", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.json() == status_of(engine)
    assert "set-cookie" not in answer.headers
    assert client.get("/ops/sessile").status_code == 404
    assert asked(status, "GET", f"Bearer {TOKEN}").status_code == 404


def test_wsgi_is_told_the_same(engine: Engine) -> None:
    """By the same door."""

    def ask(app: Any, **environ: str) -> tuple[str, bytes]:
        answers: list[str] = []
        given = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "SERVER_NAME": "127.0.0.1", **environ}
        body = app(given, lambda status, _headers: answers.append(status))
        return answers[0], b"".join(body)

    app = WSGISessionMiddleware(StatusWSGIApp(token=TOKEN), engine=engine)
    status, body = ask(app, HTTP_AUTHORIZATION=f"Bearer {TOKEN}")
    assert (status, json.loads(body)) == ("200 OK", status_of(engine))
    assert ask(app) == ("404 Not Found", b"Not Found\n")
    assert ask(app, HTTP_AUTHORIZATION=f"Bearer {TOKEN}", REQUEST_METHOD="HEAD") == ("200 OK", b"")


def test_a_member_tells_of_its_cluster() -> None:
    """Its name among the members is its name; how it sees them is there."""

    async def run() -> None:
        async with cluster_of(2) as (one, other):
            told = status_of(one)
            assert told["name"] == told["node"] == str(one.settings.me)
            assert told["cluster"]["members"] == {str(other.settings.me): "alive"}
            one.is_draining = True
            assert (status_of(one)["state"], told["state"]) == ("draining", "ready")

    ran(run())


def test_it_is_no_app_for_anything_but_http(engine: Engine) -> None:
    """A WebSocket is not accepted, and a lifespan not answered."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        for kind in ("websocket", "lifespan"):
            await StatusApp(engine, token=TOKEN)({"type": kind}, send, send)  # type: ignore[arg-type]

    ran(run())
    assert sent == []
