"""Test clients that are already in a session, in one line for each framework.

::

    client = starlette_client(app, {"cart": ["book"]}, subject="ann")   # Starlette, FastAPI
    client = flask_client(app, {"cart": ["book"]}, subject="ann")
    cookies = session_cookies(app, {"cart": ["book"]}, subject="ann")   # any other: {cookie name: value}

The session is stored in the app's own engine, so what a test sees is what a user would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessile.engine import Engine
from sessile.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["engine_of", "flask_client", "issue", "session_cookies", "starlette_client"]

_LAYERS_MAX = 64


def engine_of(app: Any) -> Engine:
    """The engine of the session middleware in an ASGI or WSGI app, however deep it stands.

    Raises:
        SettingsError: there is no session middleware in it.
    """
    layer = app
    for _ in range(_LAYERS_MAX):
        engine = getattr(layer, "engine", None)
        if isinstance(engine, Engine):
            return engine
        if (
            layer is not None and getattr(layer, "middleware_stack", layer) is None
        ):  # Starlette builds it at the first request
            layer.middleware_stack = layer.build_middleware_stack()
        for name in ("middleware_stack", "wsgi_app", "app"):
            inner = getattr(layer, name, None)
            if inner is not None and inner is not layer:
                layer = inner
                break
        else:
            break
    raise SettingsError(f"no SessionMiddleware was found in {app!r}: add it, or wrap the app in it")


def session_cookies(
    app: Any, values: Mapping[str, Any], *, subject: str = "", is_https: bool = False
) -> dict[str, str]:
    """Store a session in the app's engine.

    Returns:
        The cookies, by name, with which a client is in it.
    """
    return issue(engine_of(app), values, subject=subject, is_https=is_https)


def issue(engine: Engine, values: Mapping[str, Any], *, subject: str = "", is_https: bool = False) -> dict[str, str]:
    """Store a session outside of any request.

    Returns:
        The cookies, by name, that a browser must present to be in it.

    Raises:
        SettingsError: the engine has other holders, which would have to be told.
    """
    if engine.backend is not None:
        raise SettingsError("a session is stored for tests where no other holder need be told: use sticky://")
    session = engine.open((), is_https=is_https)
    session.update(values)
    if subject:
        session.login(subject)
    engine.commit(session)
    return dict(cookie.decode().split(";", 1)[0].split("=", 1) for cookie in engine.cookies(session))


def starlette_client(app: Any, values: Mapping[str, Any], *, subject: str = "", **options: Any) -> Any:
    """A `starlette.testclient.TestClient` (FastAPI's is the same) whose user is in a session with these values."""
    from starlette.testclient import TestClient  # noqa: PLC0415  # Starlette is not a dependency

    client = TestClient(app, **options)
    is_https = str(client.base_url).startswith("https")
    host = str(client.base_url.host)
    domain = host if "." in host else f"{host}.local"  # what the standard library's cookie jar makes of such a name
    for name, value in session_cookies(app, values, subject=subject, is_https=is_https).items():
        client.cookies.set(name, value, domain=domain)
    return client


def flask_client(app: Any, values: Mapping[str, Any], *, subject: str = "", **options: Any) -> Any:
    """A Flask test client whose user is in a session with these values."""
    client = app.test_client(**options)
    for name, value in session_cookies(app, values, subject=subject).items():
        client.set_cookie(name, value)
    return client
