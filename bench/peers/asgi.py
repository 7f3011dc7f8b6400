"""Requests to an ASGI app without a server: the scope as uvicorn builds it, new for every request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.peers.workload import HEADERS, Browser

if TYPE_CHECKING:
    import asyncio

ASGIApp = Any
REQUEST = {"type": "http.request", "body": b"", "more_body": False}
ENCODED = [(name.encode(), value.encode()) for name, value in HEADERS]


def new_loop() -> asyncio.AbstractEventLoop:
    """The event loop that contenders are served by."""
    import uvloop

    return uvloop.new_event_loop()


class Driver:
    """Sends requests to one app, one at a time, on one event loop."""

    def __init__(self, app: ASGIApp, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.loop = loop

    def scope(self, path: str, browser: Browser) -> dict[str, Any]:
        """One request as the server hands it over."""
        headers = ENCODED.copy()
        if browser.cookie:
            headers.append((b"cookie", browser.cookie.encode("ascii")))
        return {
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
            "query_string": b"",
            "headers": headers,
            "state": {},
        }

    async def exchange(self, path: str, browser: Browser) -> bytes:
        """One request and the body of its answer."""
        body = b""

        async def receive() -> dict[str, Any]:
            return REQUEST

        async def send(message: dict[str, Any]) -> None:
            nonlocal body
            if message["type"] == "http.response.start":
                for name, value in message["headers"]:
                    if name == b"set-cookie":
                        browser.set_cookie(value.decode("latin-1"))
            else:
                body += message.get("body", b"")

        await self.app(self.scope(path, browser), receive, send)
        return body

    def ask(self, path: str, browser: Browser) -> str:
        """One request and the text of its answer."""
        return self.loop.run_until_complete(self.exchange(path, browser)).decode()

    def repeat(self, path: str, browsers: list[Browser], times: int) -> None:
        """Every browser sends this many requests, in turns."""

        async def requests() -> None:
            for _ in range(times):
                for browser in browsers:
                    await self.exchange(path, browser)

        self.loop.run_until_complete(requests())
