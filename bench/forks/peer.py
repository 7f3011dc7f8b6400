"""Another library that serves and forks: `python -m bench.forks.peer NAME REDIS_PORT RUNS`, in that library's environment.

Prints the results of all visits, as JSON, as `bench.forks.process` does for Sessile.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from bench.forks.process import Loops, Threads
from bench.forks.users import Answer, cookies_in

__all__ = ["PEERS"]


def flask_session(port: int) -> Any:
    """Flask-Session, on redis-py's synchronous client; one request."""
    import flask_session  # type: ignore[import-not-found]
    import redis
    from flask import Flask, request, session  # type: ignore[import-not-found]

    app = Flask("forks")
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.Redis(port=port))
    flask_session.Session(app)

    @app.route("/<verb>")  # type: ignore[untyped-decorator]
    def handle(verb: str) -> str:
        if verb == "login":
            session["user"] = request.args["user"]
        return json.dumps({"pid": os.getpid(), "user": session.get("user")})

    def ask(path: str, cookie: str) -> Answer:
        with app.test_client(use_cookies=False) as client:
            answer = client.get(path, headers={"Cookie": cookie} if cookie else {})
            return Answer(answer.status_code, cookies_in(answer.headers), answer.get_data(as_text=True))

    return ask


def starsessions(port: int) -> Any:
    """starsessions, on redis-py's asyncio client; one request."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from starsessions import SessionAutoloadMiddleware, SessionMiddleware  # type: ignore[import-not-found]
    from starsessions.stores.redis import RedisStore  # type: ignore[import-not-found]

    async def handle(request: Any) -> JSONResponse:
        if request.url.path == "/login":
            request.session["user"] = request.query_params["user"]
        return JSONResponse({"pid": os.getpid(), "user": request.session.get("user")})

    inner = SessionAutoloadMiddleware(Starlette(routes=[Route(path, handle) for path in ("/who", "/login")]))
    app = SessionMiddleware(
        inner, store=RedisStore(f"redis://127.0.0.1:{port}"), lifetime=3_600, cookie_https_only=False
    )

    async def ask(path: str, cookie: str) -> Answer:
        path, _, query = path.partition("?")
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request"}

        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(b"host", b"a"), *([(b"cookie", cookie.encode())] if cookie else [])],
            "scheme": "http",
            "http_version": "1.1",
            "server": ("127.0.0.1", 80),
        }
        await app(scope, receive, send)
        headers = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
        return Answer(sent[0]["status"], cookies_in(headers), sent[1]["body"].decode())

    return ask


PEERS = {"flask-session": flask_session, "starsessions": starsessions}


def main() -> int:
    """Play, in this process and its children."""
    name, port, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    ask = PEERS[name](port)
    if name == "starsessions":
        play = asyncio.run(Loops(ask, asyncio.run, is_sticky=False, visit_s=2.0).play(runs))
    else:
        play = Threads(ask, is_sticky=False).play(runs)
    print(play.as_json([]), flush=True)
    os._exit(0)  # whatever a library left running


if __name__ == "__main__":
    sys.exit(main())
