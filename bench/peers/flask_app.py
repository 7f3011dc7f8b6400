"""The Flask app that every contender under Flask serves: with Flask's sessions, Flask-Session's, ours, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.peers.workload import HANDLERS, LIFETIME_S, SECRET

if TYPE_CHECKING:
    from collections.abc import Callable


def new_app(session_of: Callable[[], Any]) -> Any:
    """An app with the routes of the workload; `session_of()` is what its handlers work on."""
    # Flask is there only in the environments of the contenders under Flask.
    from flask import Flask, Response  # type: ignore[import-not-found]

    app = Flask("shop")
    for path, handle in HANDLERS.items():

        def view(handle: Callable[[Any], str] = handle) -> Any:
            return Response(handle(session_of()), mimetype="text/plain")

        app.add_url_rule(path, endpoint=path, view_func=view)
    return app


def without_sessions() -> Any:
    """The base: Flask opens no session where there is no secret key."""
    plain: dict[str, Any] = {}
    return new_app(lambda: plain)


def build(store: str, redis_port: int) -> Any:
    """The app with sessions."""
    import flask

    if store == "sessile":
        from sessile.wsgi import SessionMiddleware

        app = new_app(lambda: flask.request.environ["sessile.session"])
        return SessionMiddleware(app, url="sticky://", secret=SECRET)
    app = new_app(lambda: flask.session)
    app.secret_key = SECRET
    if store == "redis":
        import flask_session  # type: ignore[import-not-found]
        import redis

        app.config.update(
            SESSION_TYPE="redis",
            SESSION_REDIS=redis.Redis(port=redis_port),
            PERMANENT_SESSION_LIFETIME=LIFETIME_S,
        )
        flask_session.Session(app)
    return app
