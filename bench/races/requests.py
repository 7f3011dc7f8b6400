"""Requests to apps in this process, each in a thread of its own, that stop inside their handler for as long as is wanted.

An app's handler calls `arrive` when it has read its session, and goes on when the play lets it. Browsers are those of
`bench.peers.workload`: they present what the last answer set, in the order in which answers come.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl

from bench.peers.workload import HEADERS, Browser

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

WITHIN_S = 20.0
Given = dict[str, str]


@dataclass(slots=True)
class Answer:
    """What came back; status 0 where the app raised instead of answering."""

    status: int
    told: Any
    cookies: list[str]
    """Every Set-Cookie, as it came."""


class Hold:
    """A place inside a handler, where it waits to be let go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()


_HOLDS: dict[str, Hold] = {}
_NUMBERS = itertools.count()


def given_by(query: str) -> Given:
    """The parameters of a request."""
    return dict(parse_qsl(query, keep_blank_values=True))


def arrive(given: Mapping[str, str]) -> None:
    """Wait here, if this request is one that is held."""
    hold = _HOLDS.get(given.get("hold", ""))
    if hold is not None:
        hold.reached.set()
        hold.released.wait(WITHIN_S)


async def arrive_async(given: Mapping[str, str]) -> None:
    """The same without stopping the loop."""
    if given.get("hold", "") in _HOLDS:
        await asyncio.get_running_loop().run_in_executor(None, arrive, given)


def told(session: Mapping[str, Any]) -> str:
    """What a handler tells of its session."""
    return json.dumps({name: value for name, value in session.items() if not name.startswith("_")})


class Held:
    """A request that waits inside its handler."""

    def __init__(self, hold: Hold, coming: Future[Answer]) -> None:
        self._hold = hold
        self._coming = coming

    def finish(self) -> Answer:
        """Let it go on, and wait for its answer."""
        self._hold.released.set()
        return self._coming.result(WITHIN_S)


class Server(Protocol):
    """One app that answers."""

    def exchange(self, path: str, query: str, cookie: str) -> tuple[int, list[str], bytes]:
        """Status, every Set-Cookie, and the body. May raise whatever the app raises."""


class Site:
    """Some servers that share their sessions.

    Args:
        servers: the apps.
        records: how many sessions are kept altogether.
    """

    def __init__(self, servers: list[Server], records: Callable[[], int]) -> None:
        self.servers = servers
        self.records = records

    def ask(self, place: int, path: str, browser: Browser) -> Answer:
        """One request, from its beginning to its end; the browser keeps the cookies of the answer."""
        path, _, query = path.partition("?")
        server = self.servers[place % len(self.servers)]
        try:
            status, cookies, body = server.exchange(path, query, browser.cookie)
        except Exception as error:  # noqa: BLE001  # the app is a peer's; a server would answer with 500
            return Answer(0, f"{type(error).__name__}: {error}", [])
        for cookie in cookies:
            browser.set_cookie(cookie)
        try:
            return Answer(status, json.loads(body), cookies)
        except ValueError:
            return Answer(status, body.decode(errors="replace"), cookies)

    def begin(self, place: int, path: str, browser: Browser) -> Held:
        """One request, until it waits inside its handler; it presents the cookies that the browser has now."""
        name, hold = str(next(_NUMBERS)), Hold()
        _HOLDS[name] = hold
        coming: Future[Answer] = Future()
        sent = threading.Event()

        def run() -> None:
            sent.set()
            try:
                coming.set_result(self.ask(place, f"{path}{'&' if '?' in path else '?'}hold={name}", browser))
            finally:
                hold.reached.set()  # it may have answered without having been held
                del _HOLDS[name]

        threading.Thread(target=run, daemon=True).start()
        sent.wait(WITHIN_S)
        hold.reached.wait(WITHIN_S)
        return Held(hold, coming)


class Loop:
    """An event loop in a thread, for apps that need one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run this there, and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WITHIN_S)

    def close(self) -> None:
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WITHIN_S)
        self.loop.close()


class AsgiServer:
    """An ASGI app on a loop."""

    def __init__(self, app: Any, loop: Loop) -> None:
        self.app = app
        self.loop = loop

    def exchange(self, path: str, query: str, cookie: str) -> tuple[int, list[str], bytes]:
        return self.loop.run(self._exchange(path, query, cookie))  # type: ignore[no-any-return]

    async def _exchange(self, path: str, query: str, cookie: str) -> tuple[int, list[str], bytes]:
        headers = [(name.encode(), value.encode()) for name, value in HEADERS]
        if cookie:
            headers.append((b"cookie", cookie.encode("ascii")))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 51_724),
            "scheme": "https",
            "method": "GET",
            "root_path": "",
            "path": path,
            "raw_path": path.encode("ascii"),
            "query_string": query.encode("ascii"),
            "headers": headers,
            "state": {},
        }
        requests = iter([{"type": "http.request", "body": b"", "more_body": False}])
        messages: list[Any] = []

        async def receive() -> Any:
            request = next(requests, None)
            if request is None:
                await asyncio.Event().wait()  # the browser stays
            return request

        async def send(message: Any) -> None:
            messages.append(message)

        await self.app(scope, receive, send)
        start = next(message for message in messages if message["type"] == "http.response.start")
        cookies = [value.decode("latin-1") for name, value in start["headers"] if name.lower() == b"set-cookie"]
        return start["status"], cookies, b"".join(message.get("body", b"") for message in messages)


class WsgiServer:
    """A WSGI app, called in the thread of whoever asks."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def exchange(self, path: str, query: str, cookie: str) -> tuple[int, list[str], bytes]:
        heads: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: object = None) -> None:
            heads.append((status, headers))

        environ = {
            "wsgi.errors": sys.stderr,
            "wsgi.version": (1, 0),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.url_scheme": "https",
            "wsgi.input": io.BytesIO(),
            "SERVER_NAME": "shop.example",
            "SERVER_PORT": "443",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "REQUEST_METHOD": "GET",
            "QUERY_STRING": query,
            "PATH_INFO": path,
            "SCRIPT_NAME": "",
            **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in HEADERS},
        }
        if cookie:
            environ["HTTP_COOKIE"] = cookie
        answer = self.app(environ, start_response)
        try:
            body = b"".join(answer)
        finally:
            if hasattr(answer, "close"):
                answer.close()
        status, headers = heads[-1]
        cookies = [value for name, value in headers if name.lower() == "set-cookie"]
        return int(status.split()[0]), cookies, body
