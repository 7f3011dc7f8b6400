"""Requests to a WSGI app without a server: the environment as gunicorn builds it, new for every request."""

from __future__ import annotations

import io
import sys
from typing import Any

from bench.peers.workload import HEADERS, Browser

WSGIApp = Any
ENCODED = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in HEADERS}


class Driver:
    """Sends requests to one app, one at a time, on this thread."""

    def __init__(self, app: WSGIApp) -> None:
        self.app = app

    def environ(self, path: str, browser: Browser) -> dict[str, Any]:
        """One request as the server hands it over."""
        environ = {
            "wsgi.errors": sys.stderr,
            "wsgi.version": (1, 0),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.url_scheme": "https",
            "wsgi.input": io.BytesIO(),
            "SERVER_SOFTWARE": "gunicorn",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_NAME": "shop.example",
            "SERVER_PORT": "443",
            "REMOTE_ADDR": "127.0.0.1",
            "REMOTE_PORT": "51724",
            "REQUEST_METHOD": "GET",
            "QUERY_STRING": "",
            "RAW_URI": path,
            "PATH_INFO": path,
            "SCRIPT_NAME": "",
            **ENCODED,
        }
        if browser.cookie:
            environ["HTTP_COOKIE"] = browser.cookie
        return environ

    def ask(self, path: str, browser: Browser) -> str:
        """One request and the text of its answer."""

        def start_response(_status: str, headers: list[tuple[str, str]], _exc_info: object = None) -> None:
            for name, value in headers:
                if name == "Set-Cookie" or name.lower() == "set-cookie":
                    browser.set_cookie(value)

        answer = self.app(self.environ(path, browser), start_response)
        try:
            return b"".join(answer).decode()
        finally:
            if hasattr(answer, "close"):
                answer.close()

    def repeat(self, path: str, browsers: list[Browser], times: int) -> None:
        """Every browser sends this many requests, in turns."""
        for _ in range(times):
            for browser in browsers:
                self.ask(path, browser)
