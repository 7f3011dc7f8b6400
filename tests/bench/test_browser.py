"""The browser that loads and measurements use."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from bench import browser as browser_module
from bench.browser import Browser

if TYPE_CHECKING:
    import pytest


async def served(*answers: bytes) -> tuple[list[tuple[int, Any]], list[bytes]]:
    """What a browser makes of these answers, one request each, and what it sent. An empty answer closes."""
    requests: list[bytes] = []
    coming = iter(answers)
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while answer := next(coming, b""):
                requests.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(answer)
        except asyncio.IncompleteReadError:
            pass
        writer.transport.abort()
        ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        browser = Browser(server.sockets[0].getsockname()[1])
        told = [await browser.ask("GET", "/") for _ in answers]
        browser.close()
        await asyncio.wait_for(ended.wait(), 30)
    return told, requests


def test_a_browser_reads_both_framings_and_keeps_cookies() -> None:
    """On one connection; an expired cookie is forgotten."""
    told, requests = asyncio.run(
        served(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nset-cookie: b=2\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=; Max-Age=0\r\n\r\n2\r\n[1\r\n1\r\n]\r\n0\r\n\r\n",
            b"HTTP/1.1 502 Bad\r\nContent-Length: 3\r\n\r\nno\n",
        )
    )
    assert told == [(200, {}), (200, [1]), (502, None)]
    assert b"Cookie" not in requests[0]
    assert b"\r\nCookie: a=1; b=2\r\n" in requests[1]
    assert b"\r\nCookie: b=2\r\n" in requests[2]


def test_a_broken_connection_is_a_failed_request() -> None:
    """It is not sent again: what the balancer hides is for the balancer to hide."""
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    told, requests = asyncio.run(served(whole, b""))
    assert told == [(200, {}), (0, None)]
    assert len(requests) == 1


def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may be closing it at this very moment: that would be a failed request of nobody's making."""
    connections: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.transport.abort()

    async def ask_twice() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            browser = Browser(server.sockets[0].getsockname()[1])
            for _ in range(2):
                assert await browser.ask("GET", "/") == (200, {})
            browser.close()
            await asyncio.wait([task for task in connections if task is not None and not task.done()], timeout=30)

    asyncio.run(ask_twice())
    assert len(connections) == 1
    connections.clear()
    monkeypatch.setattr(browser_module, "IDLE_S", -1.0)
    asyncio.run(ask_twice())
    assert len(connections) == 2
