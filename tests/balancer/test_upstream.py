"""The server's side of the proxy, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from sessile.balancer.settings import Affinity, Limits, Timeouts
from sessile.balancer.upstream import INTERIM_MAX
from tests.balancer.wire import Handler, Origin, balanced, on_loop, until, within

MB = 1 << 20
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def saying(*pieces: bytes, then_close: bool = False) -> Handler:
    """An origin's handler that writes these pieces, each on its own, and may hang up."""

    async def handler(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if then_close:
            writer.close()

    return handler


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",), b"hello"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"he", b"llo"), b"hello"),
        ((b"HTTP/1.1 20", b"0 OK\r\nContent-Le", b"ngth: 5\r\n\r", b"\nhello"), b"hello"),
        ((CHUNKED, b"3;x\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\n"), b"hello"),
        ((CHUNKED + b"5\r\nhel", b"lo\r", b"\n0\r", b"\n\r\n"), b"hello"),
        (
            (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",),
            b"hello",
        ),
        ((b"HTTP/1.1 204 No Content\r\n\r\n",), b""),
        ((b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",), b""),
    ],
)
@on_loop
async def test_response_framings(pieces: tuple[bytes, ...], body: bytes) -> None:
    """Each framing arrives whole however it is cut, three times over one connection."""
    origin = Origin("s1", saying(*pieces))
    async with balanced(origin) as front:
        browser = await front.browser()
        for _ in range(3):
            answer = await browser.ask()
            if answer.status == 103:
                answer = await browser.answer()
            assert answer.body == body
        assert origin.connections == 1


@on_loop
async def test_a_response_until_close() -> None:
    """A response without a length is chunked for HTTP/1.1, whose connection goes on, and ends HTTP/1.0's."""
    origin = Origin("s1", saying(b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo", then_close=True))
    async with balanced(origin) as front:
        browser = await front.browser()
        for _ in range(2):
            answer = await browser.ask()
            assert answer.body == b"hello" and answer.fields("transfer-encoding") == ["chunked"]
        old = await front.talk(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        assert old.endswith(b"\r\n\r\nhello") and b"chunked" not in old and b"Connection: close" in old


@on_loop
async def test_chunked_for_an_http_10_client() -> None:
    """HTTP/1.0 knows no chunks: it gets the bare payload and a closed connection."""
    async with balanced(Origin("s1", saying(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"))) as front:
        answer = await front.talk(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        assert answer.endswith(b"\r\n\r\nhello") and b"chunked" not in answer


@pytest.mark.parametrize(
    "nonsense",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 40,
    ],
)
@on_loop
async def test_nonsense_from_a_server_is_502(nonsense: bytes) -> None:
    """What is no HTTP/1.1 response, or an ambiguous one, becomes a 502 and its connection is closed."""
    async with balanced(Origin("s1", saying(nonsense))) as front:
        browser = await front.browser()
        answer = await browser.ask()
        while answer.status < 200:
            answer = await browser.answer()
        assert answer.status == 502
        assert not front.worker.servers.by_name["s1"].idle


@on_loop
async def test_bytes_beyond_a_response_belong_to_nobody() -> None:
    """What a server sends after its answer never reaches a client; that connection is not used again."""
    more = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    origin = Origin("s1", saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + more))
    async with balanced(origin) as front:
        browser = await front.browser()
        for _ in range(3):
            assert (await browser.ask()).body == b"ok"
        assert origin.connections == 3


@on_loop
async def test_bytes_on_an_idle_connection_close_it() -> None:
    """A byte that nobody asked for closes the idle connection it came on."""
    stray = asyncio.Event()

    async def late(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await stray.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    async with balanced(Origin("s1", late)) as front:
        browser = await front.browser()
        assert (await browser.ask()).body == b"ok"
        stray.set()
        await until(lambda: not front.worker.servers.by_name["s1"].idle, "the idle connection is closed")
        assert (await browser.ask()).body == b"ok"


@on_loop
async def test_hop_by_hop_fields_stay_on_their_hop() -> None:
    """Neither side's connection fields, nor what they nominate, reach the other side."""
    origin = Origin(
        "s1",
        saying(
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Own\r\nKeep-Alive: timeout=5\r\nX-Own: 1\r\nContent-Length: 0\r\n\r\n"
        ),
    )
    async with balanced(origin) as front:
        answer = await front.ask(
            fields="Connection: X-Mine, keep-alive\r\nX-Mine: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\n"
        )
    assert not any(answer.fields(name) for name in ("connection", "keep-alive", "x-own"))
    assert b"x-mine" not in origin.heads[0].lower() and b"\r\nTE:" not in origin.heads[0]


@on_loop
async def test_a_response_with_our_cookie_is_not_cached() -> None:
    """With the affinity cookie goes no-store, instead of what the server said; without it the server's word stands."""
    origin = Origin(
        "s1", saying(b"HTTP/1.1 200 OK\r\nCache-Control: public\r\nExpires: x\r\nContent-Length: 0\r\n\r\n")
    )
    async with balanced(origin) as front:
        first = await front.ask()
        assert first.fields("cache-control") == ["no-store"] and not first.fields("expires")
        pair = first.fields("set-cookie")[0].split(";")[0]
        assert (await front.ask(fields=f"Cookie: {pair}\r\n")).fields("cache-control") == ["public"]


@on_loop
async def test_a_server_cannot_set_our_cookie() -> None:
    """A Set-Cookie of the affinity cookie's name is ours to send: the server's is dropped, its others stay."""
    origin = Origin(
        "s1", saying(b"HTTP/1.1 200 OK\r\nSet-Cookie: affinity=x\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n")
    )
    async with balanced(origin, affinity=Affinity(name="affinity")) as front:
        cookies = (await front.ask()).fields("set-cookie")
        assert len(cookies) == 2 and "b=2" in cookies and not any("affinity=x" in cookie for cookie in cookies)


@on_loop
async def test_a_broken_response_is_not_completed() -> None:
    """When a server dies in the middle of a body the client's connection breaks: it cannot take half for the whole."""
    async with balanced(Origin("s1", saying(CHUNKED + b"5\r\nhello\r\n", then_close=True))) as front:
        browser = await front.browser()
        browser.send(GET)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await browser.answer()


# --- streams and back-pressure


async def streamed_down(size: int) -> None:
    """A response of `size` bytes, chunked, to a client that at first does not read."""
    block, sent = os.urandom(64 * 1024), 0

    async def pour(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(CHUNKED)
        for _ in range(size // len(block)):
            writer.write(b"%x\r\n%b\r\n" % (len(block), block))
            await writer.drain()
            sent += len(block)
        writer.write(b"0\r\n\r\n")

    async with balanced(Origin("s1", pour)) as front:
        browser = await front.browser()
        browser.reader._limit = 64 * 1024  # type: ignore[attr-defined]
        browser.send(GET)
        await until(
            lambda: any(one.upstream and one.upstream._is_paused for one in front.worker.clients), "the server is held"
        )
        (client,) = front.worker.clients
        assert client.transport.get_write_buffer_size() < MB
        assert sent < 40 * MB  # what both kernels' buffers and ours take, far from the whole
        grown, digest, got = _rss_bytes(), hashlib.blake2b(), 0
        await browser.head()
        while length := int(await browser.reader.readuntil(b"\r\n"), 16):
            left = length
            while left:
                piece = await browser.reader.read(min(left, 65_536))
                left -= len(piece)
                digest.update(piece)
                got += len(piece)
            await browser.reader.readexactly(2)
        assert got == size
        expected = hashlib.blake2b()
        for _ in range(size // len(block)):
            expected.update(block)
        assert digest.digest() == expected.digest()
        assert _rss_bytes() - grown < 32 * MB


async def streamed_up(size: int, *, is_collected: bool = False) -> None:
    """A request body of `size` bytes to a server that at first does not read."""
    block, go = os.urandom(64 * 1024), asyncio.Event()

    async def drink(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        digest, left = hashlib.blake2b(), size
        while left:
            piece = await reader.read(min(left, 65_536))
            digest.update(piece)
            left -= len(piece)
        body = digest.hexdigest().encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with balanced(Origin("s1", drink), buffer_requests=is_collected) as front:
        browser = await front.browser()
        browser.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        expected, sent = hashlib.blake2b(), 0

        async def pour() -> None:
            nonlocal sent
            for _ in range(size // len(block)):
                browser.send(block)
                await browser.writer.drain()
                expected.update(block)
                sent += len(block)

        pouring = asyncio.create_task(pour())
        await until(
            lambda: any(client._held and client.upstream for client in front.worker.clients), "the client is held back"
        )
        (client,) = front.worker.clients
        assert client.upstream is not None and client.upstream.transport.get_write_buffer_size() < 2 * MB
        assert sent == size if is_collected else sent < 40 * MB
        grown = _rss_bytes()
        go.set()
        await pouring
        assert (await browser.answer()).body == expected.hexdigest().encode()
        assert _rss_bytes() - grown < 32 * MB


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@on_loop
async def test_a_long_response_streams_in_bounded_memory() -> None:
    """64 MB pass to a slow client with the server held back meanwhile, every byte in place."""
    await streamed_down(64 * MB)


@on_loop
async def test_a_long_body_streams_in_bounded_memory() -> None:
    """64 MB pass to a slow server with the client held back meanwhile, every byte in place."""
    await streamed_up(64 * MB)


@on_loop
async def test_a_long_body_is_collected_in_bounded_memory() -> None:
    """64 MB wait in a file for a server that does not read, and pass to it, every byte in place."""
    await streamed_up(64 * MB, is_collected=True)


@pytest.mark.slow
@within(900)
async def test_a_gigabyte_each_way() -> None:
    """1 GB down and 1 GB up, in the same few megabytes."""
    await streamed_down(1024 * MB)
    await streamed_up(1024 * MB)


# --- WebSocket


@on_loop
async def test_websocket_both_ways() -> None:
    """A WebSocket works through the balancer: text, binary of a megabyte, ping, and its close code."""

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)
        assert connection.close_code == 1000

    async with serve(echo, "127.0.0.1", 0, max_size=4 * MB) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with balanced(Origin("ws", port=port)) as front:
            async with connect(f"ws://127.0.0.1:{front.port}/chat", max_size=4 * MB, proxy=None) as socket:
                await socket.send("안녕")
                assert await socket.recv() == "안녕"
                blob = os.urandom(MB)
                await socket.send(blob)
                assert await socket.recv() == blob
                await (await socket.ping())
            await until(lambda: not front.worker.clients, "the tunnel is closed")


@on_loop
async def test_a_websocket_client_may_say_that_its_handshake_has_no_body() -> None:
    """`Content-Length: 0`, as some libraries send with every request, makes no other request of a handshake."""

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with (
            balanced(Origin("ws", port=port)) as front,
            connect(
                f"ws://127.0.0.1:{front.port}/chat", additional_headers={"Content-Length": "0"}, proxy=None
            ) as socket,
        ):
            await socket.send("hello")
            assert await socket.recv() == "hello"


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nhel", b"hello"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhel", b"hello"),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhel", b"hello"),
        (b"HTTP/1.0 204 No Content\r\n\r\n", b""),
    ],
)
@on_loop
async def test_an_http_10_server_is_heard_as_http_11(framing: bytes, body: bytes) -> None:
    """Its answers leave as HTTP/1.1, chunked where they have no length, and the client's connection goes on."""
    pieces = (framing, b"lo") if body else (framing,)
    async with balanced(Origin("s1", saying(*pieces, then_close=True))) as front:
        browser = await front.browser()
        for _ in range(2):
            answer = await browser.ask()
            assert answer.head.startswith(b"HTTP/1.1 20") and answer.body == body
        old = await front.talk(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        assert old.startswith(b"HTTP/1.1 20") and old.endswith(b"\r\n\r\n" + body) and b"chunked" not in old


@pytest.mark.parametrize(
    ("answer", "settings", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", {}, ("16384 bytes", "head_bytes in [limits]")),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000, {}, ("16384 bytes", "head_bytes in [limits]")),
        (
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 21 + b"\r\n",
            {"limits": Limits(fields=10)},
            ("more than 20", "fields in [limits]"),
        ),
        (b"nonsense\r\n\r\n", {}, ("is malformed", "")),
        (b"", {}, ("closed the connection before it answered", "")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", {}, ("in the middle of a response", "")),
    ],
)
@on_loop
async def test_what_a_server_does_wrong_is_said_once(
    answer: bytes, settings: dict[str, Any], words: tuple[str, str]
) -> None:
    """The log names the server, what is wrong and what to set, in one line for many requests."""
    async with balanced(Origin("s1", saying(answer, then_close=True)), **settings) as front:
        for _ in range(4):
            await front.talk(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        (fields,) = [fields for event, fields in front.log if event == "warning"]
        message = str(fields["message"])
        assert message.startswith("server s1") and all(word in message for word in words)


@pytest.mark.parametrize("beyond", [0, 1])
@on_loop
async def test_interim_responses_are_counted(beyond: int) -> None:
    """As many as there may be go through, for every request anew; with one more it is no response."""
    early = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    last = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    async def say(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(early * (INTERIM_MAX + beyond) + last)

    origin = Origin("s1", say)
    async with balanced(origin) as front:
        browser = await front.browser()
        for _ in range(1 if beyond else 2):
            browser.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert [(await browser.answer()).status for _ in range(INTERIM_MAX)] == [103] * INTERIM_MAX
            assert (await browser.answer()).status == (502 if beyond else 200)
        assert origin.connections == 1


@on_loop
async def test_a_server_that_does_not_answer_in_time_is_said_once() -> None:
    """With the timeout that was met."""

    async def never(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with balanced(Origin("s1", never), timeouts=Timeouts(response_s=0.05)) as front:
        answers = await asyncio.gather(*(front.ask() for _ in range(3)))
        assert [answer.status for answer in answers] == [504] * 3
        (fields,) = [fields for event, fields in front.log if event == "warning"]
        assert fields["message"] == (
            "server s1 did not answer in time; response_s in [timeouts] of the config file is the setting"
        )


@pytest.mark.parametrize(
    "fields",
    [
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
    ],
)
@on_loop
async def test_other_upgrades_are_not_passed_on(fields: str) -> None:
    """Only websocket on a bodyless GET may switch; anything else goes on as a plain request without Upgrade."""
    origin = Origin()
    async with balanced(origin) as front:
        assert (await front.ask(fields=fields)).body == b"s1"
    assert b"upgrade" not in origin.heads[0].lower()


@on_loop
async def test_a_refused_upgrade_is_a_plain_answer() -> None:
    """Without a 101 there is no tunnel: what follows is read as a request, and judged as one."""
    origin = Origin()
    async with balanced(origin) as front:
        browser = await front.browser()
        assert (await browser.ask(fields="Connection: Upgrade\r\nUpgrade: websocket\r\n")).body == b"s1"
        browser.send(b"GET /smuggled HTTP/1.1\r\n\r\n")
        assert (await browser.answer()).status == 400
        assert len(origin.heads) == 1


@on_loop
async def test_an_idle_tunnel_ends() -> None:
    """A tunnel in which nothing moves is closed after its timeout."""

    async def switch(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi")
        await reader.read()

    async with balanced(Origin("s1", switch), timeouts=Timeouts(tunnel_s=0.3)) as front:
        browser = await front.browser()
        browser.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert (await browser.head()).startswith(b"HTTP/1.1 101 ")
        assert await browser.reader.readexactly(2) == b"hi"
        await until(lambda: not front.worker.clients, "the tunnel is closed")
