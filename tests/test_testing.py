"""The helpers for tests of applications: a client that is in a session, in one line."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from sessile.asgi import SessionMiddleware as AsgiMiddleware
from sessile.errors import SettingsError
from sessile.testing import engine_of, flask_client, issue, session_cookies, starlette_client
from sessile.wsgi import SessionMiddleware as WsgiMiddleware
from tests.fakes import SECRET, FakeBrowser, make_engine, make_pair
from tests.wsgi_client import WsgiBrowser

MIDDLEWARE: Any = AsgiMiddleware


async def show(request: Any) -> JSONResponse:
    session = request.session
    return JSONResponse({"subject": session.subject, "read_only": session.read_only, **session})


async def put(request: Any) -> JSONResponse:
    request.session.update(request.query_params)
    return await show(request)


async def login(request: Any) -> JSONResponse:
    request.session.login(request.query_params["user"])
    return await show(request)


async def logout(request: Any) -> JSONResponse:
    request.session.logout()
    return await show(request)


ROUTES = [Route("/", show), Route("/put", put), Route("/login", login), Route("/logout", logout)]


def an_app(**settings: Any) -> Starlette:
    return Starlette(routes=ROUTES, middleware=[Middleware(MIDDLEWARE, engine=make_engine(**settings))])


def wsgi_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [repr(sorted(environ["sessile.session"].items())).encode()]


# -- finding the engine ------------------------------------------------------------------------------------------------


def test_the_engine_is_found_however_deep_it_stands() -> None:
    """Around the app, added to it, under other middlewares, before and after the first request."""

    class Around:
        def __init__(self, app: Any) -> None:
            self.app = app

    around: Any = Around
    engine = make_engine()
    bare = Starlette(routes=ROUTES)
    assert engine_of(AsgiMiddleware(bare, engine=engine)) is engine
    assert engine_of(WsgiMiddleware(wsgi_app, engine=engine)) is engine
    assert engine_of(Around(Around(AsgiMiddleware(bare, engine=engine)))) is engine
    stacked = Starlette(middleware=[Middleware(around), Middleware(MIDDLEWARE, engine=engine)])
    assert engine_of(stacked) is engine
    assert engine_of(stacked) is engine
    fast = FastAPI()
    fast.add_middleware(MIDDLEWARE, engine=engine)
    assert engine_of(fast) is engine


@pytest.mark.parametrize("app", [Starlette(routes=ROUTES), wsgi_app, object(), None])
def test_an_app_without_the_middleware_is_an_error(app: Any) -> None:
    """The message says what is missing; an app with an `engine` of something else does not fool it."""
    with pytest.raises(SettingsError, match="SessionMiddleware"):
        engine_of(app)


def test_an_engine_of_something_else_is_not_ours() -> None:
    """A database's, for example."""

    class App:
        engine = object()

        def __init__(self) -> None:
            self.app = AsgiMiddleware(Starlette(routes=ROUTES), engine=ours)

    ours = make_engine()
    assert engine_of(App()) is ours


def test_an_app_that_contains_itself_ends() -> None:
    """The search is bounded."""

    class Loop:
        @property
        def app(self) -> Loop:
            return Loop()

    with pytest.raises(SettingsError):
        engine_of(Loop())


# -- clients -----------------------------------------------------------------------------------------------------------


def test_a_starlette_client_is_in_a_session() -> None:
    """With its values and its user, in one line; another client of the same app is not."""
    app = an_app()
    client = starlette_client(app, {"cart": ["book"]}, subject="ann")
    assert client.get("/").json() == {"subject": "ann", "read_only": False, "cart": ["book"]}
    other = starlette_client(app, {"cart": []})
    assert other.get("/").json() == {"subject": None, "read_only": False, "cart": []}
    assert client.get("/").json()["cart"] == ["book"]


def test_a_starlette_client_goes_on_as_a_browser_does() -> None:
    """Writes, a login and a logout replace its cookies: there is one of each name at any time."""
    client = starlette_client(an_app(), {"a": "1"})
    for path, expected in (
        ("/put?b=2", {"subject": None, "read_only": False, "a": "1", "b": "2"}),
        ("/login?user=ann", {"subject": "ann", "read_only": False, "a": "1", "b": "2"}),
        ("/put?b=3", {"subject": "ann", "read_only": False, "a": "1", "b": "3"}),
    ):
        assert client.get(path).json() == expected
        assert client.get("/").json() == expected
        assert sorted(cookie.name for cookie in client.cookies.jar) == ["sid", "sid_v"]
    client.get("/logout")
    assert [cookie.name for cookie in client.cookies.jar] == []


@pytest.mark.parametrize("base_url", ["https://shop.example", "https://testserver", "http://127.0.0.1:8000"])
def test_a_starlette_client_may_have_another_address(base_url: str) -> None:
    """Over HTTPS its cookies have their prefix; options are those of the test client."""
    client = starlette_client(an_app(), {"a": "1"}, base_url=base_url, headers={"x-test": "1"})
    assert client.get("/put?b=2").json()["a"] == "1"
    assert client.get("/").json()["b"] == "2"
    is_https = base_url.startswith("https")
    assert sorted(cookie.name for cookie in client.cookies.jar) == (
        ["__Host-sid", "__Host-sid_v"] if is_https else ["sid", "sid_v"]
    )
    assert client.headers["x-test"] == "1"


def test_a_client_for_fastapi_is_the_same() -> None:
    """A handler finds the session; `with` works as without."""
    app = FastAPI()
    app.add_middleware(MIDDLEWARE, secret=SECRET)

    @app.get("/me")
    def me(request: Request) -> dict[str, Any]:
        return dict(request.session)

    with starlette_client(app, {"name": "ann"}) as client:
        assert client.get("/me").json() == {"name": "ann"}


def test_cookies_are_for_any_other_client() -> None:
    """By name, for a framework that is not known here; `is_https` names them for HTTPS."""
    browser = WsgiBrowser(WsgiMiddleware(wsgi_app, engine=make_engine()))
    browser.cookies = session_cookies(browser.app, {"a": 1}, subject="ann")
    assert browser.ask().body == b"[('a', 1)]"
    assert sorted(session_cookies(browser.app, {"a": 1}, is_https=True)) == ["__Host-sid", "__Host-sid_v"]


def test_a_client_with_a_cookie_jar_of_flasks_kind_is_in_a_session() -> None:
    """What Flask's client asks of us: `app.test_client(**options)` and `client.set_cookie(name, value)`."""

    class Client(WsgiBrowser):
        def set_cookie(self, name: str, value: str) -> None:
            self.cookies[name] = value

    class App:
        wsgi_app = WsgiMiddleware(wsgi_app, engine=make_engine())

        def test_client(self, **options: Any) -> Client:
            assert options == {"use_cookies": True}
            return Client(self.wsgi_app)

    client = flask_client(App(), {"a": 1}, subject="ann", use_cookies=True)
    assert client.ask().body == b"[('a', 1)]"


def test_a_session_that_is_put_in_place_has_no_limits_lifted() -> None:
    """What a test stores is refused where an app's would be."""
    with pytest.raises(ValueError, match="fields_max"):
        session_cookies(an_app(fields_max=1), {"a": 1, "b": 2})


@pytest.mark.parametrize(("is_https", "name"), [(False, "sid"), (True, "__Host-sid")])
def test_a_session_may_be_issued(is_https: bool, name: str) -> None:  # noqa: FBT001  # a parameter of the test
    """Stored outside of any request: the cookies by name, with which a browser is in it."""
    engine = make_engine()
    browser = FakeBrowser(engine, is_https=is_https)
    browser.cookies = issue(engine, {"cart": ["book"]}, subject="ann", is_https=is_https)
    assert sorted(browser.cookies) == [name, f"{name}_v"]
    session = browser.open()
    assert (dict(session), session.subject, session.new) == ({"cart": ["book"]}, "ann", False)
    assert browser.finish(session) == []


def test_no_session_is_issued_where_others_should_be_told() -> None:
    """Storing outside of any request waits for nobody, so it refuses and stores nothing."""
    backend, engine = make_pair()
    with pytest.raises(SettingsError, match="sticky://"):
        issue(engine, {"a": 1})
    assert len(engine.table) == len(backend.pushes) == 0
