"""Sessile's site: an application behind the middleware, in one process, asked without a network.

A cluster's site is two members in that process, linked over real sockets, to show whether a child disturbs the link.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from bench.forks.users import Answer, cookies_in
from sessile.asgi import SessionMiddleware as Asgi
from sessile.engine import Engine
from sessile.errors import SettingsError
from sessile.service import Service
from sessile.wsgi import SessionMiddleware as Wsgi

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SECRET", "Site", "refusing"]

SECRET = "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"


def told(session: Any, path: str, query: str) -> bytes:
    """Log in, or answer with the session's user."""
    if path == "/login":
        name = parse_qs(query)["user"][0]
        session.login(name)
        session["user"] = name
    return json.dumps({"pid": os.getpid(), "user": session.get("user")}).encode()


def wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The site as a WSGI application."""
    body = told(environ["sessile.session"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """The site as an ASGI application."""
    del receive
    body = told(scope["session"], scope["path"], scope["query_string"].decode())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def refusal(error: SettingsError) -> bytes:
    """What is answered where the site cannot start."""
    return json.dumps({"pid": os.getpid(), "refused": str(error)}).encode()


def refusing(app: Any) -> Any:
    """The same WSGI application, with a refusal to start told in the answer."""

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            found: Iterable[bytes] = app(environ, start_response)
        except SettingsError as error:
            start_response("500 Internal Server Error", [("Content-Type", "application/json")])
            return [refusal(error)]
        return found

    return answer


class Site:
    """The engines of one process, and requests to them.

    Args:
        url: of the store; of a cluster, one with both members' addresses in it, `me` left out.
    """

    def __init__(self, url: str) -> None:
        scheme, _, query = url.partition("://?members=")
        members = query.split("&")[0].split(",") if scheme in {"all-to-all", "primary-backup"} else []
        urls = [f"{url}&me={member}" for member in members] or [url]
        self.engines = [Engine(url=each, secret=SECRET) for each in urls]
        self.is_sticky = url.startswith("sticky")
        self.is_cluster = bool(members)
        self._asked = 0

    def _next(self) -> Engine:
        self._asked += 1
        return self.engines[self._asked % len(self.engines)]

    def ask(self, path: str, cookie: str) -> Answer:
        """One request to the WSGI application of the next engine."""
        path, _, query = path.partition("?")
        started: list[Any] = []
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "HTTP_COOKIE": cookie,
            "SERVER_NAME": "127.0.0.1",
            "wsgi.url_scheme": "http",
        }
        app = refusing(Wsgi(wsgi, engine=self._next()))
        body = b"".join(app(environ, lambda status, headers, *_: started.extend((status, headers))))
        return Answer(int(started[0].split()[0]), cookies_in(started[1]), body.decode())

    async def ask_async(self, path: str, cookie: str) -> Answer:
        """One request to the ASGI application of the next engine."""
        path, _, query = path.partition("?")
        sent: list[Any] = []

        async def send(message: Any) -> None:  # as ASGI has it
            sent.append(message)

        scope = {
            "type": "http",
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"cookie", cookie.encode())] if cookie else [],
            "scheme": "http",
            "server": ("127.0.0.1", 80),
        }
        try:
            await Asgi(asgi, engine=self._next())(scope, None, send)  # type: ignore[arg-type]  # it receives nothing
        except SettingsError as error:
            return Answer(500, [], refusal(error).decode())
        headers = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
        return Answer(sent[0]["status"], cookies_in(headers), sent[1]["body"].decode())

    def disturbed(self) -> list[str]:
        """What a member of a cluster noticed that it should not have, except that its own loop was late."""
        found = []
        for engine in self.engines if self.is_cluster else ():
            assert engine.backend is not None, "a cluster's engine has one"
            status = engine.backend.status()
            counts = status.get("counts", {})
            found += [
                f"{name}: {counts[name]}"
                for name in ("name_clashes", "protocol_errors", "refutations")
                if counts.get(name)
            ]
            found += [f"{name} is {state}" for name, state in status.get("members", {}).items() if state != "alive"]
            found += [] if status.get("linked") == len(self.engines) - 1 else [f"linked to {status.get('linked')}"]
        return found

    def stop(self) -> None:
        """End it in a process without a loop."""
        for engine in self.engines:
            if isinstance(engine.backend, Service):
                engine.backend.stop_in_thread()
            engine.close()

    async def stop_async(self) -> None:
        """End it on its loop."""
        for engine in self.engines:
            if engine.backend is not None:
                with contextlib.suppress(asyncio.CancelledError):
                    await engine.backend.stop()
            engine.close()
