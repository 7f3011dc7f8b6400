"""The client's side of the proxy, over real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

import pytest

from sessile.balancer.client import AHEAD_BYTES, Client
from sessile.balancer.phases import LINGER, STREAM
from sessile.balancer.settings import Affinity, BalancerSettings, Limits, Timeouts
from sessile.balancer.worker import Worker
from tests.balancer.wire import Browser, Origin, balanced, on_loop, say_name, until

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"


async def echo(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with the request's body, however it was framed."""
    body = b""
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    elif b"content-length: " in lower:
        body = await reader.readexactly(int(lower.split(b"content-length: ")[1].split(b"\r")[0]))
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


@on_loop
async def test_keep_alive_on_both_sides() -> None:
    """Many requests of one client connection travel over one connection to the server."""
    origin = Origin()
    async with balanced(origin) as front:
        browser = await front.browser()
        for _ in range(20):
            assert (await browser.ask()).body == b"s1"
        assert origin.connections == 1


@on_loop
async def test_a_user_stays() -> None:
    """With the cookie every request goes to the server that issued it; the cookie is set once and never seen there."""
    origins = [Origin(f"s{n}") for n in range(4)]
    async with balanced(*origins) as front:
        first = await front.ask()
        (cookie,) = first.fields("set-cookie")
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Path=/" in cookie and "Secure" not in cookie
        assert first.fields("cache-control") == ["no-store"]
        for extra in ("a=1; {}", "{}", "{}; b=2"):
            again = await front.ask(fields=f"Cookie: {extra.format(cookie.split(';')[0])}\r\n")
            assert again.body == first.body and not again.fields("set-cookie")
        assert all(b"affinity" not in head for origin in origins for head in origin.heads)


@pytest.mark.parametrize("secret", ["test secret", "other"])
@on_loop
async def test_two_services_on_one_host_leave_each_other_s_users_alone(secret: str) -> None:
    """A browser sends the cookies of both to both, as ports do not part them: everybody stays, at either."""
    one, other = [Origin(f"s{n}") for n in range(3)], [Origin(f"s{n}") for n in range(3)]
    async with (
        balanced(*one, listen=("127.0.0.1", 1)) as first,
        balanced(*other, secrets=(secret,), listen=("127.0.0.1", 2)) as second,
    ):
        jar: dict[str, str] = {}
        seen: tuple[set[bytes], set[bytes]] = (set(), set())
        for _ in range(6):
            for front, bodies in zip((first, second), seen, strict=True):
                cookies = "; ".join(f"{name}={value}" for name, value in jar.items())
                answer = await front.ask(fields=f"Cookie: {cookies}\r\n" if jar else "")
                for line in answer.fields("set-cookie"):
                    name, _, jar[name] = line.split(";")[0].partition("=")
                bodies.add(answer.body)
        assert [len(bodies) for bodies in seen] == [1, 1] and len(jar) == 2


@on_loop
async def test_a_user_of_two_balancers_stays() -> None:
    """Two of one service at two ports name their cookies apart, and each finds the other's."""
    origins = [Origin(f"s{n}") for n in range(4)]
    async with balanced(*origins, listen=("127.0.0.1", 1)) as first:
        await first.ask()
        before = await first.ask()
        (cookie,) = (line.split(";")[0] for line in before.fields("set-cookie"))
        async with balanced(*origins, listen=("127.0.0.1", 2)) as second:
            there = await second.ask(fields=f"Cookie: a=b; {cookie}\r\n")
            (mine,) = (line.split(";")[0] for line in there.fields("set-cookie"))
            again = await second.ask(fields=f"Cookie: {cookie}; {mine}\r\n")
            assert before.body == there.body == again.body and mine != cookie and not again.fields("set-cookie")


@on_loop
async def test_a_user_stays_when_secrets_rotate() -> None:
    """A cookie of the former secret leads home and is replaced by one of the new secret, which is enough from then on."""
    origins = [Origin(f"s{n}") for n in range(4)]
    async with balanced(*origins, secrets=("old",)) as front:
        await front.ask()
        before = await front.ask()
    for origin in origins:
        await origin.start()
    cookie = before.fields("set-cookie")[0].split(";")[0]
    async with balanced(*origins, secrets=("new", "old")) as front:
        during = await front.ask(fields=f"Cookie: a=b; {cookie}\r\n")
        (renewed,) = (line.split(";")[0] for line in during.fields("set-cookie"))
        both = await front.ask(fields=f"Cookie: {cookie}; {renewed}\r\n")
        assert during.body == both.body == before.body and not both.fields("set-cookie")
        assert all(renewed.encode() not in head for origin in origins for head in origin.heads)
    for origin in origins:
        await origin.start()
    async with balanced(*origins, secrets=("new",)) as front:
        after = await front.ask(fields=f"Cookie: {cookie}; {renewed}\r\n")
        assert after.body == before.body and not after.fields("set-cookie")


@on_loop
async def test_the_cookie_follows_pages_into_frames() -> None:
    """SameSite=None and Partitioned, as the session cookie may have them: over https, where browsers accept them."""
    affinity = Affinity(samesite="none", partitioned=True)
    async with balanced(Origin(), affinity=affinity, trusted=("127.0.0.0/8",)) as front:
        (cookie,) = (await front.ask(fields="X-Forwarded-Proto: https\r\n")).fields("set-cookie")
        assert cookie.endswith("; Path=/; HttpOnly; SameSite=None; Secure; Partitioned")
        (plain,) = (await front.ask()).fields("set-cookie")
        assert plain.endswith("; Path=/; HttpOnly; SameSite=Lax")


@on_loop
async def test_the_cookie_is_refreshed_always_if_asked() -> None:
    """`affinity_refresh = always` sets the cookie in every response, still for the same server."""
    async with balanced(Origin("s1"), Origin("s2"), affinity=Affinity(refresh="always")) as front:
        first = await front.ask()
        pair = first.fields("set-cookie")[0].split(";")[0]
        again = await front.ask(fields=f"Cookie: x=1; {pair}\r\n")
        assert again.body == first.body and again.fields("set-cookie")[0].startswith(pair)


@on_loop
async def test_a_forged_cookie_means_nothing() -> None:
    """A token that is no server's is ignored: the request is placed and gets a true one."""
    async with balanced(Origin()) as front:
        name = front.worker.settings.affinity_name.decode()
        answer = await front.ask(fields=f"Cookie: {name}=AAAAAAAAAAAAAAAAAAAA\r\n")
        assert answer.status == 200 and answer.fields("set-cookie")


@on_loop
async def test_affinity_by_a_header_the_server_sets() -> None:
    """What a server hands out in a header is learned, and leads back to it."""

    async def issue(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        more = b"Mcp-Session-Id: of-%b\r\n" % origin.name.encode() if b"/start" in head else b""
        body = origin.name.encode()
        writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (more, len(body), body))

    origins = [Origin(f"s{n}", issue) for n in range(3)]
    async with balanced(*origins, affinity=Affinity("header", "Mcp-Session-Id")) as front:
        for _ in range(6):
            started = await front.ask("/start")
            (value,) = started.fields("mcp-session-id")
            for _ in range(3):
                assert (await front.ask(fields=f"Mcp-Session-Id: {value}\r\n")).body == started.body
        unknown = {(await front.ask(fields="mcp-session-id: of-nobody\r\n")).body for _ in range(6)}
        assert len(unknown) == 1


@on_loop
async def test_affinity_by_query() -> None:
    """A query parameter that nobody taught us about still goes to one server always."""
    async with balanced(*[Origin(f"s{n}") for n in range(3)], affinity=Affinity("query", "room")) as front:
        assert len({(await front.ask("/x?a=1&room=42")).body for _ in range(9)}) == 1
        assert len({(await front.ask(f"/x?room={n}")).body for n in range(30)}) == 3


@on_loop
async def test_what_the_server_is_told_about_the_client() -> None:
    """X-Forwarded-* are ours alone for a stranger; what a stranger sent of them is gone, and so is Forwarded."""
    origin = Origin()
    async with balanced(origin) as front:
        await front.ask(fields="X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\n")
    head = origin.heads[0]
    assert head.endswith(
        b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: example.com\r\n\r\n"
    )
    assert b"6.6.6.6" not in head and b"evil" not in head


@on_loop
async def test_a_trusted_proxy_in_front_is_believed() -> None:
    """From a trusted peer the chain is continued, the scheme kept, and the affinity cookie is Secure under https."""
    origin = Origin()
    async with balanced(origin, trusted=("127.0.0.0/8",)) as front:
        answer = await front.ask(fields="X-Forwarded-For: 8.8.8.8\r\nX-Forwarded-Proto: https\r\n")
        assert "; Secure" in answer.fields("set-cookie")[0]
    assert b"X-Forwarded-For: 8.8.8.8, 127.0.0.1\r\nX-Forwarded-Proto: https\r\n" in origin.heads[0]


@on_loop
async def test_a_proxy_that_nobody_named_is_noticed_once() -> None:
    """TLS ends in front of us, and we are not told to believe it: one line that says what follows and what to set."""
    origin = Origin()
    async with balanced(origin) as front:
        await front.ask()
        assert not front.log
        for _ in range(3):
            answer = await front.ask(fields="X-Forwarded-Proto: https\r\n")
            assert "; Secure" not in answer.fields("set-cookie")[0]
        ((event, fields),) = front.log
        message = str(fields["message"])
        assert event == "warning" and message.startswith("127.0.0.1 ") and "--trusted" in message
        assert all(word in message for word in ("Secure", "__Host-", "samesite"))
    assert all(b"X-Forwarded-Proto: http\r\n" in head for head in origin.heads)
    async with balanced(Origin(), trusted=("127.0.0.1",)) as front:
        await front.ask(fields="X-Forwarded-Proto: https\r\n")
        assert not front.log


@on_loop
async def test_pipelined_requests_are_served_in_order() -> None:
    """Requests that arrive together are answered one after the other, each by its own answer."""

    async def say_path(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = head.split(b" ")[1]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    async with balanced(Origin("s1", say_path)) as front:
        browser = await front.browser()
        browser.send(b"".join(GET % n for n in range(50)))
        assert [(await browser.answer()).body for _ in range(50)] == [b"/%d" % n for n in range(50)]


@on_loop
async def test_what_is_read_ahead_is_bounded() -> None:
    """While one request waits, a client that goes on sending is no longer read."""

    async def never(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with balanced(Origin("s1", never)) as front:
        browser = await front.browser()
        browser.send(GET % 0 + (GET % 1) * 3_000_000)
        (client,) = front.worker.clients
        await until(lambda: client._held, "the client is held")
        assert len(client._buffer) + len(client._ahead) < 1 << 20


@on_loop
async def test_what_is_read_ahead_stays_bounded_while_requests_are_served() -> None:
    """A client that pipelines without end and reads nothing: with each answer as little is kept as before the first."""
    pipelined = 20_000

    async with balanced(Origin("s1")) as front:
        browser = await front.browser()
        browser.send((GET % 1) * pipelined)
        await until(lambda: front.worker.clients, "the client is there")
        (client,) = front.worker.clients
        most = 0
        for _ in range(pipelined // 4):
            assert (await browser.answer()).body == b"s1"
            most = max(most, len(client._ahead) + len(client._buffer))
        assert 0 < most <= Limits().pipelined_bytes + 256_000 + AHEAD_BYTES


@on_loop
async def test_what_all_clients_send_ahead_is_bounded() -> None:
    """Beyond the bound a connection that sends more gets the answer under way, the last on it; the others get all of theirs."""
    go = asyncio.Event()

    async def later(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"GET /0 "):
            await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\ns1")

    origin, ahead = Origin("s1", later), 30
    async with balanced(origin) as front:
        room = front.worker.room
        left = room.ahead_bytes = 10 * ahead * len(GET % 1)
        browsers = [await front.browser() for _ in range(15)]
        for browser in browsers:
            browser.send(GET % 0)
        await until(lambda: len(origin.heads) == 15, "the server has the first request of each")
        for browser in browsers:
            browser.send((GET % 1) * ahead)

        def are_refused() -> bool:
            return sum(not client.request.keep_alive for client in front.worker.clients) == 5

        await until(are_refused, "those beyond the bound are to be closed")
        assert room.ahead_bytes >= 0
        go.set()
        first = [await browser.answer() for browser in browsers]
        assert [answer.status for answer in first] == [200] * 15
        kept = [one for one, answer in zip(browsers, first, strict=True) if not answer.fields("connection")]
        assert len(kept) == 10
        for browser in kept:
            assert [(await browser.answer()).body for _ in range(ahead)] == [b"s1"] * ahead
        await until(lambda: room.ahead_bytes == left, "all of it is given back")
        ((event, fields),) = front.log
        assert event == "warning" and "pipelined_bytes" in str(fields["message"])


@pytest.mark.parametrize(
    "head", ["GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade", "POST / HTTP/1.1\r\nX: y"]
)
@on_loop
async def test_what_is_sent_ahead_of_a_handshake_is_not_lost_silently(head: str) -> None:
    """Without room a WebSocket handshake fails; an ordinary request is answered, and the connection closed."""
    go = asyncio.Event()

    async def wait(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await say_name(origin, head, reader, writer)

    origin = Origin("s1", wait)
    async with balanced(origin) as front:
        front.worker.room.ahead_bytes = 3
        browser = await front.browser()
        browser.send(head.encode() + b"\r\nHost: a\r\n\r\n")
        await until(lambda: origin.heads, "the server has it")
        browser.send(b"more")
        await until(lambda: front.log, "it is refused")
        go.set()
        answer = await browser.answer()
        assert answer.status == (503 if head.startswith("GET") else 200) and answer.fields("connection") == ["close"]
        assert front.worker.room.ahead_bytes == 3


@on_loop
async def test_no_server_hears_of_a_handshake_that_is_refused() -> None:
    """What came with its head is more than there is room for."""
    origin = Origin()
    async with balanced(origin, timeouts=Timeouts(linger_s=0.3)) as front:
        front.worker.room.ahead_bytes = 0
        browser = await front.browser()
        browser.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + b"y" * 2 * AHEAD_BYTES
        )
        answer = await browser.answer()
        assert answer.status == 503 and answer.fields("connection") == ["close"]
        await until(lambda: not front.worker.clients, "the connection is gone")
        server = front.worker.servers.by_name["s1"]
        assert not origin.heads and not server.active and front.worker.room.ahead_bytes == 0
        assert (await front.ask()).status == 200 and origin.connections == 1


@on_loop
async def test_pipelined_bodies_are_told_apart() -> None:
    """Requests with bodies of both kinds, more than is looked at in one go, are answered in order."""
    bodies = [b"%d" % n * (1 + n % 700) for n in range(120)]
    data = b""
    for number, body in enumerate(bodies):
        if number % 2:
            data += b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        else:
            cut = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
            data += b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % cut
    async with balanced(Origin("s1", echo)) as front:
        browser = await front.browser()
        browser.send(data)
        assert [(await browser.answer()).body for _ in bodies] == bodies


@on_loop
async def test_no_server_hears_of_a_request_before_its_body_is_whole() -> None:
    """The body is collected first; then it goes to the server with the head, whole."""
    origin = Origin("s1", echo)
    async with balanced(origin) as front:
        browser = await front.browser()
        browser.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
        await until(lambda: any(client._received for client in front.worker.clients), "half of it is here")
        assert (await front.ask()).status == 200
        assert len(origin.heads) == 1 and origin.heads[0].startswith(b"GET")
        browser.send(b"dy")
        assert (await browser.answer()).body == b"body"


@pytest.mark.parametrize("framing", ["length", "chunked"])
@on_loop
async def test_a_long_body_is_collected_in_a_file(framing: str) -> None:
    """What is too much for memory goes to a file, comes to the server whole, and the room is free again after it."""
    body, origin = bytes(range(256)) * 8_192, Origin("s1", echo)
    async with balanced(origin) as front:
        room = front.worker.room
        before = (room.memory_bytes, room.disk_bytes, room.files)
        browser = await front.browser()
        if framing == "length":
            browser.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:-1])
        else:
            browser.send(
                b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body[:-1]
            )
        await until(lambda: room.disk_bytes < before[1], "a part of it is in a file")
        assert not origin.heads
        browser.send(body[-1:] + (b"" if framing == "length" else b"\r\n0\r\n\r\n"))
        assert (await browser.answer()).body == body
        assert (await browser.ask()).status == 200
        assert (room.memory_bytes, room.disk_bytes, room.files) == before


@on_loop
async def test_a_body_for_which_there_is_no_room_is_passed_on() -> None:
    """Where no more may be kept a body goes to the server as it comes, whole, and nobody is refused."""
    body, origin = os.urandom(1 << 20), Origin("s1", echo)
    async with balanced(origin, limits=Limits(buffered_bytes=100_000)) as front:
        browser = await front.browser()
        browser.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:500_000])
        await until(lambda: origin.heads, "the server hears of it")
        browser.send(body[500_000:])
        assert (await browser.answer()).body == body
        assert front.worker.room.disk_bytes == 100_000


@on_loop
async def test_a_collected_body_is_sent_again() -> None:
    """A PUT that a server lost is repeated at another, with all of its body, however long."""
    body = os.urandom(300_000)
    lost: list[bytes] = []

    async def lose(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not lost:
            lost.append(await reader.readexactly(len(body)))
            writer.transport.abort()
        else:
            await echo(origin, head, reader, writer)

    async with balanced(Origin("s1", lose), Origin("s2", lose)) as front:
        assert (await front.ask(method="PUT", body=body)).body == body
        assert lost == [body] and front.worker.retried == 1


@on_loop
async def test_a_malformed_chunked_body_reaches_no_server() -> None:
    """Collected or not, a body whose first chunk is none ends in 400, and no server has heard of the request."""
    for collected in (True, False):
        origin = Origin("s1", echo)
        async with balanced(origin, buffer_requests=collected) as front:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            assert (await front.talk(head + b"nonsense\r\n")).startswith(b"HTTP/1.1 400")
            browser = await front.browser()
            browser.send(head)
            browser.send(b"5\r\nhello\r\n0\r\n\r\n")
            assert (await browser.answer()).body == b"hello"
            assert len(origin.heads) == 1


@on_loop
async def test_who_expects_to_be_asked_is_asked_here() -> None:
    """A body that is collected is asked for by the balancer; when the server asks for it too the client is not asked again."""

    async def ask_too(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await echo(origin, head, reader, writer)

    origin = Origin("s1", ask_too)
    async with balanced(origin) as front:
        browser = await front.browser()
        browser.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n")
        assert (await browser.answer()).status == 100
        assert not origin.heads
        browser.send(b"body")
        assert (await browser.answer()).body == b"body"


@on_loop
async def test_a_client_may_close_its_half_after_a_body() -> None:
    """Once the body is whole, the end of what a client sends does not cost it the answer."""
    async with balanced(Origin("s1", echo)) as front:
        browser = await front.browser()
        browser.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
        browser.writer.write_eof()
        assert (await browser.answer()).body == b"body"


@on_loop
async def test_one_who_sends_tiny_chunks_takes_a_share_of_each_turn() -> None:
    """A body of a hundred thousand chunks is read in so many turns that others are served in between."""
    origin = Origin("s1", echo)
    async with balanced(origin) as front:
        flood, other = await front.browser(), await front.browser()
        chunks = 100_000
        flood.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * chunks)
        answered = 0
        while not any(client._body is not None and client._body.size == chunks for client in front.worker.clients):
            assert (await other.ask()).status == 200
            answered += 1
        flood.send(b"0\r\n\r\n")
        assert (await flood.answer()).body == b"x" * chunks
        assert answered > 20


@pytest.mark.parametrize("cut", [1, 7, 40])
@on_loop
async def test_a_head_may_come_in_pieces(cut: int) -> None:
    """Where the network cuts a request does not matter."""
    async with balanced(Origin("s1", echo)) as front:
        browser = await front.browser()
        data = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world"
        for at in range(0, len(data), cut):
            browser.send(data[at : at + cut])
            await asyncio.sleep(0)
        assert (await browser.answer()).body == b"hello world"


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 0", b""),
        (b"Content-Length: 5", b"hello"),
        (b"Transfer-Encoding: chunked", b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: dropped\r\n\r\n"),
        (b"transfer-encoding: Chunked", b"0\r\n\r\n"),
    ],
)
@on_loop
async def test_request_bodies(framing: bytes, body: bytes) -> None:
    """Either framing arrives whole, extensions and trailers dropped, and the connection goes on after it."""
    origin = Origin("s1", echo)
    async with balanced(origin) as front:
        browser = await front.browser()
        for _ in range(3):
            browser.send(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n%b" % (framing, body))
            assert (await browser.answer()).body == (b"hello world" if b";" in body else body if b"h" in body else b"")
        assert all(b"Trailer" not in head for head in origin.heads)


@on_loop
async def test_a_bad_chunk_is_refused() -> None:
    """Broken chunked coding ends in 400 and nothing after it is taken for a request."""
    origin = Origin("s1", echo)
    async with balanced(origin) as front:
        data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n" + GET % 1
        answer = await front.talk(data)
        assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1") == 1
        assert len(origin.heads) <= 1


@pytest.mark.parametrize(
    "body", [b"zz\r\n", b"5\r\nhelloX\r\n", b"0\r\nTrailer\r\n\r\n", b"-1\r\n", b"5\n", b"fffffffffffffffff\r\n"]
)
@on_loop
async def test_a_body_that_begins_badly_reaches_no_server(body: bytes) -> None:
    """What comes with the head is judged before a server hears of the request: an app must not begin for nothing."""
    origin = Origin("s1", echo)
    async with balanced(origin) as front:
        assert (await front.ask()).body == b""  # and a connection to the server lies idle
        answer = await front.talk(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert (await front.ask(method="POST", body=b"good")).body == b"good"
        assert len(origin.heads) == 2 and origin.connections == 1
        assert front.worker.servers.by_name["s1"].active == 0


@pytest.mark.parametrize("fault", ["malformed", "unreadable"])
@on_loop
async def test_nothing_is_put_into_a_response_that_has_begun(fault: str) -> None:
    """A body that turns out bad, or is lost here, while its answer already comes: the answer is cut off, not filled up."""

    async def early(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 150\r\n\r\n0123456789")
        await asyncio.Event().wait()

    async with balanced(Origin("s1", early), buffer_requests=False) as front:
        browser = await front.browser()
        browser.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await browser.head()
        assert await browser.reader.readexactly(10) == b"0123456789"
        (client,) = front.worker.clients
        if fault == "malformed":
            browser.send(b"ZZ\r\n")
        else:
            client._drop_upstream()
            client._fail(503, "the body cannot be read back")
        rest = b""
        with suppress(ConnectionError):
            rest = await browser.reader.read()
        assert rest == b"" and not front.worker.refused
        await until(lambda: not front.worker.clients, "the connection is gone")
        assert front.worker.servers.by_name["s1"].active == 0


@on_loop
async def test_continue_is_asked_of_the_server() -> None:
    """Expect: 100-continue goes through: the client sends its body when the server says so."""

    async def ask_first(
        origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await echo(origin, head, reader, writer)

    async with balanced(Origin("s1", ask_first), buffer_requests=False) as front:
        browser = await front.browser()
        browser.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert (await browser.answer()).status == 100
        browser.send(b"body")
        assert (await browser.answer()).body == b"body"


@on_loop
async def test_an_answer_before_the_body_closes() -> None:
    """A server that answers without reading the body is heard, and the connection is not used again."""

    async def refuse(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

    origin = Origin("s1", refuse)
    async with balanced(origin, buffer_requests=False) as front:
        answer = await front.talk(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\npart of it")
        assert answer.startswith(b"HTTP/1.1 413 ") and b"Connection: close\r\n" in answer and answer.endswith(b"no")
        assert (await front.ask()).status == 413
        assert origin.connections == 2


@on_loop
async def test_http_10_clients() -> None:
    """HTTP/1.0 gets its answer and a closed connection, or keeps it if it asks to."""
    origin = Origin()
    async with balanced(origin) as front:
        answer = await front.talk(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        assert answer.endswith(b"s1") and b"Connection: close\r\n" in answer
        browser = await front.browser()
        for _ in range(2):
            browser.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n")
            assert (await browser.answer()).fields("connection") == ["keep-alive"]
    assert origin.heads[0].startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize("line", [b"GET /check HTTP/1.0", b"OPTIONS /check HTTP/1.0"])
@on_loop
async def test_http_10_needs_no_host(line: bytes) -> None:
    """HAProxy's default check sends none (RFC 9112 section 3.2 asks for it in HTTP/1.1 only): the server gets our address."""
    origin = Origin()
    async with balanced(origin) as front:
        assert (await front.talk(line + b"\r\n\r\n")).endswith(b"\r\n\r\ns1")
        named = await front.talk(b"GET http://shop.example/x HTTP/1.0\r\n\r\n")
        assert named.endswith(b"\r\n\r\ns1")
        assert (await front.talk(b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        ours = b"127.0.0.1:%d" % front.port
    assert origin.heads[0].count(b"\r\nHost: %b\r\n" % ours) == origin.heads[0].lower().count(b"\r\nhost:") == 1
    assert b"\r\nX-Forwarded-Host: %b\r\n" % ours in origin.heads[0]
    assert origin.heads[1].startswith(b"GET /x HTTP/1.1\r\nHost: shop.example\r\n")


@pytest.mark.parametrize(
    ("head", "status", "setting"),
    [
        (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 20_000), 414, "head_bytes"),
        (b"GET /%b" % (b"x" * 20_000), 414, "head_bytes"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * 20_000), 431, "head_bytes"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"X: y\r\n" * 100), 431, "fields"),
    ],
)
@on_loop
async def test_a_head_that_is_too_long_is_said_once(head: bytes, status: int, setting: str) -> None:
    """The client hears it each time; the log names the limit, once."""
    async with balanced(Origin()) as front:
        for _ in range(3):
            assert (await front.talk(head)).startswith(b"HTTP/1.1 %d " % status)
        ((event, fields),) = front.log
        assert event == "warning" and f"; {setting} in [limits]" in str(fields["message"])


@pytest.mark.parametrize("size", [8_000, 8_200, 16_000])
@on_loop
async def test_a_request_line_may_be_as_long_as_a_head(size: int) -> None:
    """It has no limit of its own."""
    origin = Origin()
    async with balanced(origin) as front:
        assert (await front.ask("/" + "x" * size)).status == 200
    assert origin.heads[0].startswith(b"GET /%b HTTP/1.1\r\n" % (b"x" * size))


@on_loop
async def test_a_client_may_close_its_sending_half() -> None:
    """A client that has sent all it had to say still gets its answer."""
    async with balanced(Origin()) as front:
        browser = await front.browser()
        browser.send(GET % 1)
        browser.writer.write_eof()
        assert (await browser.reader.read()).endswith(b"s1")


POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
TINY = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 500 + b"0\r\n\r\n"


@pytest.mark.parametrize("cookie", [False, True])
@pytest.mark.parametrize(
    ("then", "answers"),
    [
        (b"", 3),
        (POST, 4),
        (TINY, 4),
        (POST + TINY + GET % 4, 6),
        (GET % 4 * 2_000, 2_003),
        (b"GET /4 HT", 3),
        (b"\r\n", 3),
        (POST[:-1], 3),
        (TINY[:-1], 3),
        (TINY[:-9], 3),
    ],
)
@on_loop
async def test_all_that_came_whole_before_the_end_is_answered(then: bytes, answers: int, *, cookie: bool) -> None:
    """In order, and the last answer says that it is the last, unless the head of one more had come."""

    async def slow(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"GET /1 "):
            await asyncio.sleep(0.1)
        await echo(origin, head, reader, writer)

    async with balanced(Origin("s1", slow)) as front:
        pair = (await front.ask()).fields("set-cookie")[0].split(";")[0].encode()
        data = GET % 1 + GET % 2 + GET % 3 + then
        if cookie:
            data = data.replace(b"Host: a\r\n", b"Host: a\r\nCookie: a=b; %b\r\n" % pair)
        browser = await front.browser()
        browser.send(data)
        browser.writer.write_eof()
        seen = await browser.reader.read()
        assert seen.count(b"HTTP/1.1 200") == seen.count(b"HTTP/1.1 ") == answers
        is_cut = then in {POST[:-1], TINY[:-1], TINY[:-9]}
        assert seen.count(b"Connection: close") == (not is_cut)
        assert is_cut or b"Connection: close" in seen[seen.rfind(b"HTTP/1.1 ") :]
        await until(lambda: not front.worker.clients, "the connection is gone")
        assert front.worker.servers.by_name["s1"].active == 0 and not front.worker.refused


@on_loop
async def test_a_client_that_leaves_takes_its_request_along() -> None:
    """The server's connection is closed when the client is gone, and nothing is counted there any more."""

    async def never(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""
        writer.close()

    origin = Origin("s1", never)
    async with balanced(origin) as front:
        browser = await front.browser()
        browser.send(GET % 1)
        await until(lambda: origin.heads, "the request is there")
        browser.reset()
        await until(lambda: not front.worker.clients, "the client is dismissed")
        assert front.worker.servers.by_name["s1"].active == 0


TIMEOUTS = Timeouts(head_s=0.3, body_s=0.3, response_s=0.3, stream_s=0.3, idle_s=0.3, linger_s=0.3)


@on_loop
async def test_a_head_that_drips_ends_in_408() -> None:
    """The whole head has one deadline: a byte now and then does not move it."""
    async with balanced(Origin(), timeouts=TIMEOUTS) as front:
        browser = await front.browser()

        async def drip() -> None:
            with suppress(ConnectionError):
                for byte in b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000:
                    browser.send(bytes((byte,)))
                    await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert (await browser.answer()).status == 408
        dripping.cancel()


@on_loop
async def test_waits_end() -> None:
    """No request, no body, no response, no more of a response: each wait ends by itself, with what there is to say."""

    async def by_path(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"GET /half"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        await asyncio.Event().wait()

    async with balanced(Origin("s1", by_path), timeouts=TIMEOUTS) as front:
        assert await front.talk(b"") == b""
        assert (await front.talk(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx")).startswith(
            b"HTTP/1.1 408"
        )
        assert (await front.talk(GET % 1)).startswith(b"HTTP/1.1 504")
        assert (await front.talk(b"GET /half HTTP/1.1\r\nHost: a\r\n\r\n")).endswith(b"\r\n\r\nhalf")
        await until(lambda: not front.worker.clients, "all are gone")


@on_loop
async def test_a_body_that_drips_ends_in_408() -> None:
    """A body slower than the least rate is not waited for, even though bytes keep coming."""
    limits = Limits(body_rate_bytes=1_000)
    async with balanced(Origin("s1", echo), timeouts=TIMEOUTS, limits=limits) as front:
        browser = await front.browser()
        browser.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")

        async def drip() -> None:
            with suppress(ConnectionError):
                for _ in range(1000):
                    browser.send(b"x")
                    await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert (await browser.answer()).status == 408
        dripping.cancel()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000, 431),
        (b"GET /" + b"y" * 17_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"nonsense\r\n\r\n", 400),
    ],
)
@on_loop
async def test_heads_beyond_the_limits(data: bytes, status: int) -> None:
    """What is too long, too much or no HTTP at all is refused with its status, and reaches no server."""
    origin = Origin()
    async with balanced(origin) as front:
        answer = await front.talk(data)
        assert answer.startswith(b"HTTP/1.1 %d " % status) and b"Connection: close" in answer
    assert not origin.heads


@on_loop
async def test_connections_per_address_are_limited() -> None:
    """One connection more than an address may have is answered 503; when one closes there is room again."""
    async with balanced(Origin(), limits=Limits(connections_per_loopback=2)) as front:
        kept = [await front.browser() for _ in range(2)]
        for browser in kept:
            await browser.ask()
        assert (await front.talk(GET % 1)).startswith(b"HTTP/1.1 503 ")
        kept[0].close()
        await until(lambda: len(front.worker.clients) <= 1, "the closed one is gone")
        assert (await front.ask()).status == 200


@on_loop
async def test_head_requests() -> None:
    """HEAD is answered with the length of the body and without it, and the connection goes on."""

    async def long(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        if not head.startswith(b"HEAD"):
            writer.write(b"x" * 1000)

    async with balanced(Origin("s1", long)) as front:
        browser = await front.browser()
        for _ in range(2):
            answer = await browser.ask(method="HEAD")
            assert answer.fields("content-length") == ["1000"]
            assert len((await browser.ask()).body) == 1000


@on_loop
async def test_one_empty_line_before_a_request_is_skipped() -> None:
    """An empty line left over from a body is forgiven once (RFC 9112 section 2.2)."""
    async with balanced(Origin()) as front:
        browser: Browser = await front.browser()
        browser.send(b"\r\n" + GET % 1)
        assert (await browser.answer()).status == 200


@on_loop
async def test_a_client_that_reads_nothing_gets_no_more() -> None:
    """Pipelined requests whose answers are not read wait; the server's connection is not left paused by that."""
    block = b"x" * 200_000

    async def big(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(block), block))

    origin = Origin("s1", big)
    async with balanced(origin) as front:
        pair = (await front.ask()).fields("set-cookie")[0].split(";")[0].encode()
        browser = await front.browser()
        browser.send((b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b; %b\r\n\r\n" % pair) * 400)
        await until(lambda: any(client._is_blocked for client in front.worker.clients), "the client is blocked")
        assert max(client.transport.get_write_buffer_size() for client in front.worker.clients) < 1 << 20
        assert len(origin.heads) < 300
        assert (await front.ask(fields=f"Cookie: a=b; {pair.decode()}\r\n")).body == block
        for _ in range(400):
            assert (await browser.answer()).body == block


@on_loop
async def test_a_client_that_reads_nothing_is_waited_for_as_long_as_a_stream() -> None:
    """The wait is the client's own: no answer of ours comes after those it did not read, and no server is blamed."""
    block = b"x" * 9_000

    async def big(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(block), block))

    async with balanced(Origin("s1", big), timeouts=Timeouts(response_s=0.2, stream_s=1.5)) as front:
        pair = (await front.ask()).fields("set-cookie")[0].split(";")[0].encode()
        await until(lambda: not front.worker.clients, "the first client has left")
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", front.port))
            await loop.sock_sendall(sock, (b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b; %b\r\n\r\n" % pair) * 2_000)
            await until(lambda: any(one._is_blocked for one in front.worker.clients), "the client is blocked")
            (client,) = front.worker.clients
            since = loop.time()
            await until(lambda: not front.worker.clients, "it is given up")
            assert loop.time() - since > 1.0 and client.phase == LINGER
            assert not front.worker.refused and not front.log


def test_a_client_that_reads_again_is_given_time() -> None:
    """The server that was not read meanwhile has its whole time for the next piece."""
    worker = Worker(BalancerSettings(secrets=("a",), timeouts=Timeouts(stream_s=7.0)), lambda event, fields: None)
    client = Client(worker)
    client.phase, client.deadline, worker.now = STREAM, 101.0, 100.0
    client.pause_writing()
    client.resume_writing()
    assert client.deadline == 107.0


@on_loop
async def test_an_early_answer_to_a_user_who_belongs_there() -> None:
    """With a cookie too, a connection on which half a request was sent is not used again."""

    async def refuse(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")

    origin = Origin("s1", refuse)
    async with balanced(origin, buffer_requests=False) as front:
        pair = (await front.ask()).fields("set-cookie")[0].split(";")[0].encode()
        data = b"POST / HTTP/1.1\r\nHost: a\r\nCookie: a=b; %b\r\nContent-Length: 1000\r\n\r\npart" % pair
        answer = await front.talk(data)
        assert b"Connection: close\r\n" in answer and answer.endswith(b"no")
        assert not front.worker.servers.by_name["s1"].idle
