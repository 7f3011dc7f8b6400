"""A minimal WebSocket client: it connects with cookies, sends a message, and receives the answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from typing import Final

from bench.browser import HOST
from bench.show import CannotShow

__all__ = ["Talk"]

ANSWER_S: Final = 10.0
_FIN_TEXT: Final = 0x81
_MASKED: Final = 0x80


class Talk:
    """One WebSocket (RFC 6455)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def begin(cls, port: int, cookies: dict[bytes, bytes]) -> Talk:
        """Open one; `CannotShow` where the server will not."""
        reader, writer = await asyncio.open_connection(HOST, port)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            "GET /talk HTTP/1.1", f"Host: {HOST}:{port}", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13",
            "Cookie: " + "; ".join(f"{name.decode()}={value.decode()}" for name, value in cookies.items()),
        ]  # fmt: skip
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head.partition(b"\r\n")[0]:
            writer.transport.abort()
            raise CannotShow(f"a server opened no WebSocket: {head[:60]!r}")
        return cls(reader, writer)

    async def say(self) -> bytes:
        """Send a message and wait for the answer; empty if the server closes the connection instead."""
        mask = os.urandom(4)
        said = bytes(letter ^ mask[place % 4] for place, letter in enumerate(b"write"))
        self._writer.write(bytes([_FIN_TEXT, _MASKED | len(said)]) + mask + said)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                first, length = await self._reader.readexactly(2)
                return await self._reader.readexactly(length) if first == _FIN_TEXT else b""
        return b""

    def close(self) -> None:
        self._writer.transport.abort()
