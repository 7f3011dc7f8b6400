"""Flask-Session on Redis."""

from __future__ import annotations

from typing import Any

from bench.races.requests import arrive, given_by, told


def build(_store: str, redis_port: int) -> Any:
    """The app."""
    # Each of these packages is there only in this peer's own environment.
    import flask_session  # type: ignore[import-not-found]
    import redis
    from flask import Flask, Response, request, session  # type: ignore[import-not-found]

    app = Flask("races")
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.Redis(port=redis_port))
    flask_session.Session(app)

    @app.route("/plain")  # type: ignore[untyped-decorator]
    def plain() -> Any:
        return Response("{}")

    @app.route("/<verb>")  # type: ignore[untyped-decorator]
    def handle(verb: str) -> Any:
        given = given_by(request.query_string.decode())
        dict(session)
        arrive(given)
        if verb == "set":
            session[given["name"]] = given["value"]
        elif verb == "rotate":
            app.session_interface.regenerate(session)
            session["user"] = "ann"
        elif verb == "logout":
            session.clear()
        return Response(told(session))

    return app
