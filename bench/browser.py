"""A browser for loads and measurements: one connection that is kept alive, cookies, and no request sent twice."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any, Final

__all__ = ["HOST", "Browser"]

HOST: Final = "127.0.0.1"
ANSWER_S: Final = 30.0
IDLE_S: Final = 3.0
"""A connection that was idle for longer is not used again: servers close them after five seconds, and may do so right now."""
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_COOKIE: Final = re.compile(rb"\r\nset-cookie: *([^=;\r]+)=([^;\r]*)([^\r]*)", re.IGNORECASE)
_EXPIRED: Final = re.compile(rb"max-age=0|01[ -]jan[ -]1970", re.IGNORECASE)


class Browser:
    """One browser: a connection that is kept alive, and cookies. Never repeats a request."""

    def __init__(self, port: int, cookies: dict[bytes, bytes] | None = None) -> None:
        self.port = port
        """Whom it asks next; may be changed while no request is under way."""
        self.cookies = {} if cookies is None else cookies
        """By name; browsers that share them are tabs of one."""
        self.given: dict[bytes, bytes] = {}
        """Those that the last answer set; empty for one that was to be forgotten."""
        self.was_answered = False
        """Whether the head of the last answer came. A request that was left without one is what browsers send again."""
        self._link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._idle_since_s = 0.0

    async def ask(self, method: str, path: str, *headers: str) -> tuple[int, Any]:
        """The status and the JSON of the answer; status 0 when the connection broke or nothing came in time."""
        self.given = {}
        self.was_answered = False
        cookies = b"; ".join(b"%b=%b" % pair for pair in self.cookies.items())
        lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}:{self.port}", "Content-Length: 0", *headers]
        head = "\r\n".join(lines).encode() + (b"\r\nCookie: " + cookies if cookies else b"") + b"\r\n\r\n"
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._exchange(head)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self.close()
            return 0, None

    async def connect(self) -> None:
        """Open the connection now: the next request finds it open, and the server knows of it."""
        self._link = await asyncio.open_connection(HOST, self.port)
        self._idle_since_s = time.monotonic()

    def close(self) -> None:
        if self._link is not None:
            self._link[1].transport.abort()
            self._link = None

    async def _exchange(self, request: bytes) -> tuple[int, Any]:
        if self._link is not None and time.monotonic() - self._idle_since_s > IDLE_S:
            self.close()
        if self._link is None:
            self._link = await asyncio.open_connection(HOST, self.port)
        reader, writer = self._link
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        self.was_answered = True
        body = await _body(reader, head)
        for name, value, attributes in _COOKIE.findall(head):
            is_expired = _EXPIRED.search(attributes) is not None
            self.given[name] = b"" if is_expired else value
            if is_expired:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        self._idle_since_s = time.monotonic()
        if _CLOSE.search(head):
            self.close()
        try:
            return int(head[9:12]), json.loads(body)
        except ValueError:
            return int(head[9:12]), None


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """RFC 9112 §6: by chunks, by length, or none."""
    if _CHUNKED.search(head):
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return body
    length = _LENGTH.search(head)
    return await reader.readexactly(int(length.group(1))) if length else b""
