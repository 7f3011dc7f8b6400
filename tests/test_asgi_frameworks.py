"""The ASGI middleware where people put it: Starlette, FastAPI, mounts, several middlewares, test clients."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi import Request as FastRequest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient

from sessile.asgi import SessionMiddleware
from sessile.errors import EncodeError
from tests.fakes import SECRET, make_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request
    from starlette.websockets import WebSocket

    from sessile.engine import Engine


async def count(request: Request) -> Response:
    return PlainTextResponse(str(request.session.increment("n")))  # type: ignore[attr-defined]


def count_in_a_thread(request: Request) -> Response:
    assert threading.current_thread() is not threading.main_thread()
    return PlainTextResponse(str(request.session.increment("n")))  # type: ignore[attr-defined]


async def read(request: Request) -> Response:
    return JSONResponse(dict(request.session))


async def redirect(request: Request) -> Response:
    request.session["came"] = "from"
    return RedirectResponse("/read")


async def fail(request: Request) -> Response:
    request.session["lost"] = True
    raise RuntimeError("the handler's own")


async def forbid(request: Request) -> Response:
    request.session["tries"] = request.session.get("tries", 0) + 1
    raise HTTPException(403)


async def stream(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(3):
            request.session["streamed"] = number
            yield b"x"

    return StreamingResponse(parts())


async def later(request: Request) -> Response:
    def task() -> None:
        request.session["in the background"] = True

    return PlainTextResponse("done", background=BackgroundTask(task))


async def mistake(request: Request) -> Response:
    request.session["x"] = object()
    return PlainTextResponse("never")


async def chat(socket: WebSocket) -> None:
    socket.session["joined"] = True
    await socket.accept()
    async for said in socket.iter_text():
        socket.session["said"] = [*socket.session.get("said", []), said]
        await socket.send_json(dict(socket.session))


ROUTES: list[Any] = [
    Route("/count", count),
    Route("/thread", count_in_a_thread),
    Route("/read", read),
    Route("/redirect", redirect),
    Route("/fail", fail),
    Route("/forbid", forbid),
    Route("/stream", stream),
    Route("/later", later),
    Route("/mistake", mistake),
    WebSocketRoute("/chat", chat),
]


MIDDLEWARE: Any = SessionMiddleware


def an_app(engine: Engine, routes: list[Any] | None = None) -> Starlette:
    return Starlette(routes=routes or ROUTES, middleware=[Middleware(MIDDLEWARE, engine=engine)])


@pytest.fixture(params=["add", "wrap"])
def app(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The same app with the middleware inside Starlette's own error handling, and outside of everything."""
    engine = make_engine()
    yield an_app(engine) if request.param == "add" else SessionMiddleware(Starlette(routes=ROUTES), engine=engine)
    engine.close()


@pytest.fixture(params=["with", "without"])
def client(request: pytest.FixtureRequest, app: Any) -> Iterator[TestClient]:
    """A client whose app has been through its lifespan, and one whose app has not."""
    client = TestClient(app, raise_server_exceptions=False)
    with client if request.param == "with" else contextlib.nullcontext():
        yield client


def test_a_session_goes_on(client: TestClient) -> None:
    """`request.session` is the session, in coroutines and in threads, over several requests."""
    assert [client.get(path).text for path in ("/count", "/thread", "/count", "/thread")] == ["1", "2", "3", "4"]
    response = client.get("/read")
    assert response.json() == {"n": 4}
    assert response.headers["vary"] == "Cookie"
    assert "set-cookie" not in response.headers
    assert client.head("/read").headers["vary"] == "Cookie"


def test_a_redirect_carries_its_cookies(client: TestClient) -> None:
    """The page it leads to finds what was stored."""
    response = client.get("/redirect", follow_redirects=False)
    assert response.headers["cache-control"] == "no-store"
    assert client.get("/redirect").json() == {"came": "from"}


def test_an_answer_by_an_exception_is_an_answer(client: TestClient) -> None:
    """HTTPException is how handlers answer: what they stored is kept."""
    assert client.get("/forbid").status_code == client.get("/forbid").status_code == 403
    assert client.get("/read").json() == {"tries": 2}


def test_a_stream_and_a_background_task_are_kept(client: TestClient) -> None:
    """What changes after the head has left is there in the next request."""
    client.get("/count")
    assert client.get("/stream").text == "xxx"
    assert client.get("/later").text == "done"
    assert client.get("/read").json() == {"n": 1, "streamed": 2, "in the background": True}


def test_a_websocket_shares_the_session(client: TestClient) -> None:
    """Written before and after accept, and read by requests afterwards."""
    client.get("/count")
    with client.websocket_connect("/chat") as socket:
        socket.send_text("a")
        assert socket.receive_json() == {"n": 1, "joined": True, "said": ["a"]}
        assert client.get("/count").text == "2"
        socket.send_text("b")
        socket.receive_json()
    assert client.get("/read").json() == {"n": 2, "joined": True, "said": ["a", "b"]}


def test_an_exception_inside_the_framework_discards_the_changes() -> None:
    """With the middleware added to the app, its error page is outside: a 500 without a cookie, nothing stored."""
    engine = make_engine()
    client = TestClient(an_app(engine), raise_server_exceptions=False)
    assert client.get("/count").text == "1"
    response = client.get("/fail")
    assert response.status_code == 500
    assert "set-cookie" not in response.headers
    assert client.get("/read").json() == {"n": 1}
    with pytest.raises(RuntimeError, match="the handler's own"):
        TestClient(an_app(engine)).get("/fail")
    with pytest.raises(EncodeError, match=r"session\['x'\]"):
        TestClient(an_app(engine)).get("/mistake")


def test_a_mounted_app_has_its_own_sessions() -> None:
    """The middleware inside a Mount: the rest of the app has no session, and the mounted one works without a lifespan."""
    app = Starlette(
        routes=[Mount("/shop", app=an_app(make_engine())), Route("/bare", lambda _: PlainTextResponse("bare"))]
    )
    client = TestClient(app)
    assert [client.get("/shop/count").text for _ in range(3)] == ["1", "2", "3"]
    assert client.get("/bare").text == "bare"
    assert client.get("/shop/read").json() == {"n": 3}


def test_an_excluded_prefix_is_that_of_the_whole_path() -> None:
    """In a mounted app too: `exclude` names paths as the browser sees them."""

    async def has_session(request: Request) -> Response:
        return PlainTextResponse(str("session" in request.scope))

    inner = an_app(make_engine(exclude=("/shop/static/",)), [Route("/{path:path}", has_session)])
    client = TestClient(Starlette(routes=[Mount("/shop", app=inner)]))
    assert client.get("/shop/static/app.css").text == "False"
    assert client.get("/shop/other").text == "True"


def test_middlewares_side_by_side_share_a_session() -> None:
    """Two mounted apps with one engine: a user is in both."""
    engine = make_engine()
    app = Starlette(routes=[Mount("/one", app=an_app(engine)), Mount("/two", app=an_app(engine))])
    client = TestClient(app)
    assert [client.get(f"/{name}/count").text for name in ("one", "two", "one", "two")] == ["1", "2", "3", "4"]
    assert engine.stats()["created"] == 1


def test_a_middleware_inside_another_one_of_its_engine_is_transparent() -> None:
    """One session object, one commit, one pair of cookies."""
    engine = make_engine()
    inner = an_app(engine)
    app = Starlette(routes=[Mount("/inner", app=inner), *ROUTES], middleware=[Middleware(MIDDLEWARE, engine=engine)])
    client = TestClient(app)
    response = client.get("/inner/count")
    assert len(response.headers.get_list("set-cookie")) == 2
    assert response.headers.get_list("vary") == ["Cookie"]
    assert [client.get(path).text for path in ("/count", "/inner/count")] == ["2", "3"]
    assert (engine.stats()["created"], engine.stats()["conflicts"]) == (1, 0)


def test_what_stands_between_two_middlewares_of_an_engine_has_the_same_session() -> None:
    """A layer outside of the inner one writes before and after it: all in one new session, with one pair of cookies."""
    engine = make_engine()

    class Between:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            session = scope["session"]
            session["before"] = True
            await self.app(scope, receive, send)
            assert scope["session"] is session
            session["after"] = session["n"]

    client = TestClient(SessionMiddleware(Between(an_app(engine)), engine=engine))
    assert len(client.get("/count").headers.get_list("set-cookie")) == 2
    assert engine.stats()["created"] == 1
    assert client.get("/read").json() == {"n": 1, "before": True, "after": 1}


def test_middlewares_of_two_engines_keep_two_sessions() -> None:
    """With names of their own they do not touch each other's cookies."""
    outer, inner = make_engine(cookie_name="outer"), make_engine(cookie_name="inner", seed=2)
    kept: list[Any] = []

    class Outside:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                kept.append(scope["session"].increment("requests"))
            await self.app(scope, receive, send)

    app = SessionMiddleware(Outside(an_app(inner)), engine=outer)
    client = TestClient(app)
    assert [client.get("/count").text for _ in range(2)] == ["1", "2"]
    assert kept == [1, 2]
    assert sorted(client.cookies) == ["inner", "inner_v", "outer", "outer_v"]


def test_fastapi_handlers_have_the_session() -> None:
    """Coroutines, plain functions in threads, dependencies and background tasks of one app."""
    app = FastAPI()
    app.add_middleware(MIDDLEWARE, secret=SECRET)

    @app.post("/login")
    async def login(request: FastRequest, user: str) -> dict[str, Any]:
        request.session.login(user)  # type: ignore[attr-defined]
        return {"user": user}

    @app.post("/add")
    def add(request: FastRequest, item: str, tasks: BackgroundTasks) -> list[str]:
        cart: list[str] = request.session.setdefault("cart", [])
        cart.append(item)
        tasks.add_task(cart.append, f"gift for {item}")
        return cart

    @app.get("/me")
    async def me(request: FastRequest) -> dict[str, Any]:
        session: Any = request.session
        return {"user": session.subject, **session}

    client = TestClient(app)
    client.post("/add", params={"item": "book"})
    before = client.cookies["sid"]
    client.post("/login", params={"user": "ann"})
    assert client.cookies["sid"] != before
    client.post("/add", params={"item": "pen"})
    assert client.get("/me").json() == {"user": "ann", "cart": ["book", "gift for book", "pen", "gift for pen"]}


def test_clients_in_several_event_loops_share_one_engine() -> None:
    """Each TestClient brings a loop of its own; state belongs to none of them."""
    engine = make_engine()
    cookies: dict[str, str] = {}
    for number in range(1, 4):
        with TestClient(an_app(engine), cookies=cookies) as client:
            assert client.get("/count").text == str(number)
            cookies = {cookie.name: cookie.value or "" for cookie in client.cookies.jar}


def test_threads_of_the_framework_lose_nothing() -> None:
    """Parallel requests of one browser, each handled in a thread: every increment counts."""
    app = an_app(make_engine())
    first = TestClient(app)
    first.get("/count")
    cookies = dict(first.cookies)

    def work() -> None:
        client = TestClient(app, cookies=cookies)
        for _ in range(10):
            client.get("/thread")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert first.get("/read").json() == {"n": 41}


def test_apps_that_are_mounted_in_one_site_are_one_table() -> None:
    """Each has a middleware with the same settings, and neither loses the other's sessions."""
    layer = Middleware(SessionMiddleware, secret=SECRET, fields_max=11)
    shop, forum = (Starlette(routes=[Route("/count", count)], middleware=[layer]) for _ in range(2))
    client = TestClient(Starlette(routes=[Mount("/shop", shop), Mount("/forum", forum)]))
    assert [client.get(path).text for path in ("/shop/count", "/forum/count", "/shop/count")] == ["1", "2", "3"]
