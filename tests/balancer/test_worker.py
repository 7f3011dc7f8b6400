"""What happens to requests when servers die, fall silent, drain, come and go: over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from sessile.balancer.client import Client
from sessile.balancer.health import HealthPolicy
from sessile.balancer.settings import Affinity, BalancerSettings, Limits, ServerAddress, Timeouts, parse_server
from sessile.balancer.upstream import Upstream
from sessile.balancer.worker import REFUSED_MAX, Worker, require_secret
from sessile.errors import BalancerError
from tests.balancer.wire import Balanced, Origin, balanced, on_loop, say_name, until, with_stand_ins

SLOW_CHECKS = HealthPolicy(interval_s=60, timeout_s=30)
"""Checks that say nothing during a test: what is seen is the data path's own doing."""


async def hang_up(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the request and reset the connection."""
    writer.transport.abort()


async def never(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the request and say nothing."""
    await asyncio.Event().wait()


@on_loop
async def test_too_many_connections_are_said_once() -> None:
    """With the limit that was met."""
    for limits, name in (
        (Limits(connections=2), "connections"),
        (Limits(connections_per_loopback=2), "connections_per_loopback"),
    ):
        async with balanced(Origin(), limits=limits) as front:
            for _ in range(2):
                assert (await (await front.browser()).ask()).status == 200
            for _ in range(3):
                assert (await front.talk(b"")).startswith(b"HTTP/1.1 503 ")
            ((event, fields),) = front.log
            assert event == "warning" and f"; {name} in [limits]" in str(fields["message"])


@on_loop
async def test_cookies_stay_as_they_are_when_settings_are_read_again() -> None:
    """What reads them was made at the start, so a server that comes later sets no other."""
    origins = [Origin("s1"), Origin("s2")]
    async with balanced(origins[0]) as front:
        await origins[1].start()
        address = ServerAddress("s2", "127.0.0.1", origins[1].port)
        front.worker.reload(
            replace(front.worker.settings, servers=(address,), secrets=("other",), affinity=Affinity(name="x"))
        )
        (cookie,) = (await front.ask()).fields("set-cookie")
        again = await front.ask(fields=f"Cookie: {cookie.split(';')[0]}\r\n")
        assert again.body == b"s2" and not again.fields("set-cookie")
        await origins[1].stop()


async def cookie_of(front: Balanced, name: str) -> str:
    """An affinity cookie for the server of this name."""
    for _ in range(50):
        answer = await front.ask()
        if answer.body.decode() == name:
            return answer.fields("set-cookie")[0].split(";")[0]
    raise AssertionError(f"{name} was never chosen")


@pytest.mark.parametrize("method", ["GET", "POST"])
@on_loop
async def test_a_refused_connection_costs_nothing(method: str) -> None:
    """Nothing was sent to a server that refuses, so any request goes to another one, and the cookie moves with it."""
    origins = [Origin("s1"), Origin("s2")]
    async with balanced(*origins, health=SLOW_CHECKS) as front:
        cookie = await cookie_of(front, "s1")
        await origins[0].stop()
        front.worker.servers.by_name["s1"].close_idle()
        answer = await front.ask(method=method, fields=f"Cookie: {cookie}\r\n", body=b"x" if method == "POST" else b"")
        assert answer.body == b"s2" and answer.fields("set-cookie")
        assert front.states() == {"s1": "down", "s2": "up"}


@on_loop
async def test_a_reset_before_the_response_is_repeated_elsewhere() -> None:
    """A GET whose server hangs up on it is served by another server; a PUT with its body too."""
    origins = [Origin("s1", hang_up), Origin("s2")]
    async with balanced(*origins) as front:
        for _ in range(6):
            assert (await front.ask()).body == b"s2"
        got: list[bytes] = []

        async def take(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.append(await reader.readexactly(5))
            await say_name(origin, head, reader, writer)

        origins[1].handler = take
        for _ in range(4):
            assert (await front.ask(method="PUT", body=b"hello")).body == b"s2"
        assert got == [b"hello"] * 4 and any(head.startswith(b"PUT") for head in origins[0].heads)


async def announce(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Die between the head of an answer and its body."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.close()


@on_loop
async def test_a_server_that_dies_before_the_body_it_announced_is_replaced() -> None:
    """Nothing of its answer has reached the client, so a GET gets another server's; a POST's connection breaks."""
    origins = [Origin("s1", announce), Origin("s2")]
    async with balanced(*origins) as front:
        for _ in range(6):
            assert (await front.ask()).body == b"s2"
        assert origins[0].heads
        origins[1].handler = announce
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await front.ask(method="POST")
        assert (await front.ask()).status == 502


@pytest.mark.parametrize(("method", "body"), [("POST", b"x"), ("POST", b""), ("PATCH", b"")])
@on_loop
async def test_a_post_is_never_repeated(method: str, body: bytes) -> None:
    """A POST whose server hangs up may have been executed: 502, and no other server sees it, body or none."""
    origins = [Origin("s1", hang_up), Origin("s2", hang_up)]
    async with balanced(*origins) as front:
        for _ in range(6):
            assert (await front.ask(method=method, body=body)).status == 502
        assert len(origins[0].heads) + len(origins[1].heads) == 6


@on_loop
async def test_all_hang_up() -> None:
    """When every server was tried once the client hears 502, and nobody was asked twice."""
    origins = [Origin(f"s{n}", hang_up) for n in range(3)]
    async with balanced(*origins) as front:
        assert (await front.ask()).status == 502
        assert Counter(len(origin.heads) for origin in origins) == {1: 3}


@on_loop
async def test_no_server_is_up() -> None:
    """With nobody up a request is answered 503 at once."""
    origin = Origin()
    async with balanced(origin, health=HealthPolicy(interval_s=0.05)) as front:
        await origin.stop()
        await until(lambda: front.states()["s1"] == "down", "s1 is down")
        answer = await front.ask()
        assert answer.status == 503 and b"no server is available" in answer.body


@pytest.mark.parametrize("method", ["GET", "POST"])
@on_loop
async def test_an_idle_connection_that_the_server_closed(method: str) -> None:
    """A server that closes idle connections causes no error and moves nobody, whatever the method."""

    async def once(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"POST"):
            await reader.readexactly(1)
        await say_name(origin, head, reader, writer)
        await writer.drain()
        writer.close()

    origins = [Origin("s1", once), Origin("s2", once)]
    async with balanced(*origins) as front:
        cookie = await cookie_of(front, "s1")
        browser = await front.browser()
        for _ in range(30):
            answer = await browser.ask(
                method=method, fields=f"Cookie: a=b; {cookie}\r\n", body=b"x" * (method == "POST")
            )
            assert answer.body == b"s1"


@on_loop
async def test_the_keep_alive_race() -> None:
    """A GET that meets a closing idle connection is sent again to the same server: its user is not moved."""

    async def second_dies(
        origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await say_name(origin, head, reader, writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    origins = [Origin("s1", second_dies), Origin("s2", second_dies)]
    async with balanced(*origins) as front:
        cookie = await cookie_of(front, "s1")
        browser = await front.browser()
        for _ in range(10):
            answer = await browser.ask(fields=f"Cookie: {cookie}\r\n")
            assert answer.body == b"s1" and not answer.fields("set-cookie")
        assert front.states() == {"s1": "up", "s2": "up"}


@on_loop
async def test_a_silent_server_is_given_up() -> None:
    """Requests that wait at a server fallen silent go to another one when the checks give it up; the cookie moves."""
    origins = [Origin("s1"), Origin("s2")]
    async with balanced(*origins, health=HealthPolicy(interval_s=0.05, timeout_s=0.2)) as front:
        cookie = await cookie_of(front, "s1")
        origins[0].handler, origins[0].health = never, None
        waiting = [asyncio.create_task(front.ask(fields=f"Cookie: {cookie}\r\n")) for _ in range(20)]
        post = asyncio.create_task(front.ask(method="POST", fields=f"Cookie: {cookie}\r\n"))
        await until(lambda: any(head.startswith(b"POST") for head in origins[0].heads), "the POST is there")
        for answer in await asyncio.gather(*waiting):
            assert answer.body == b"s2" and answer.fields("set-cookie")
        assert not post.done()  # it may have been executed
        assert front.states()["s1"] == "down"
        assert not any(head.startswith(b"POST") for head in origins[1].heads)
        post.cancel()
        await asyncio.gather(post, return_exceptions=True)


@on_loop
async def test_servers_that_are_all_silent_are_waited_for() -> None:
    """A request is not refused because nobody else is there: it is answered by the first server that answers or comes back."""
    goes_on = asyncio.Event()

    async def late(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await goes_on.wait()
        await say_name(origin, head, reader, writer)

    origins = [Origin("s1"), Origin("s2")]
    async with balanced(*origins, health=HealthPolicy(interval_s=0.05, timeout_s=0.2)) as front:
        for origin, handler in zip(origins, (never, late), strict=True):
            origin.handler, origin.health = handler, None
        waiting = [asyncio.create_task(front.ask()) for _ in range(8)]
        await until(lambda: set(front.states().values()) == {"down"}, "both are given up")
        assert not any(task.done() for task in waiting)
        goes_on.set()
        origins[1].health = b"200 OK"
        assert {answer.body for answer in await asyncio.gather(*waiting)} == {b"s2"}


@on_loop
async def test_a_server_comes_back() -> None:
    """One successful check brings a server back, and it gets new users again."""
    origins = [Origin("s1"), Origin("s2")]
    async with balanced(*origins, health=HealthPolicy(interval_s=0.05, timeout_s=5)) as front:
        await origins[0].stop()
        await until(lambda: front.states()["s1"] == "down", "s1 is down")
        assert {(await front.ask()).body for _ in range(4)} == {b"s2"}
        await origins[0].start()
        await until(lambda: front.states()["s1"] == "up", "s1 is up")
        assert {(await front.ask()).body for _ in range(4)} == {b"s1", b"s2"}
        assert [fields["state"] for event, fields in front.log if event == "server"] == ["down", "up"]


@on_loop
async def test_a_draining_server_keeps_its_users() -> None:
    """503 to the check: whoever belongs there stays, nobody new comes, and its own 503 answers pass through."""
    origins = [Origin("s1"), Origin("s2")]
    async with balanced(*origins, health=HealthPolicy(interval_s=0.05, timeout_s=5)) as front:
        cookie = await cookie_of(front, "s1")
        origins[0].health = b"503 Service Unavailable"
        await until(lambda: front.states()["s1"] == "draining", "s1 drains")
        assert (await front.ask(fields=f"Cookie: {cookie}\r\n")).body == b"s1"
        assert {(await front.ask()).body for _ in range(6)} == {b"s2"}

        async def unavailable(
            origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nown")

        origins[0].handler = unavailable
        assert (await front.ask(fields=f"Cookie: {cookie}\r\n")).body == b"own"


@on_loop
async def test_servers_come_and_go_without_a_cut() -> None:
    """New settings add and remove servers while a request is under way at one that is removed."""
    go = asyncio.Event()

    async def later(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/slow" in head:
            await go.wait()
        await say_name(origin, head, reader, writer)

    origins = [Origin("s1", later), Origin("s2")]
    extra = await Origin("s3").start()
    async with balanced(*origins) as front:
        cookie = await cookie_of(front, "s1")
        slow = asyncio.create_task(front.ask("/slow", fields=f"Cookie: {cookie}\r\n"))
        await until(lambda: any(b"/slow" in head for head in origins[0].heads), "the slow request is there")
        settings = front.worker.settings
        kept = [one for one in settings.servers if one.name != "s1"]
        front.worker.reload(settings.with_servers((*kept, ServerAddress("s3", "127.0.0.1", extra.port, 5))))
        assert {(await front.ask()).body for _ in range(6)} == {b"s2", b"s3"}
        moved = await front.ask(fields=f"Cookie: {cookie}\r\n")
        assert moved.body in {b"s2", b"s3"} and moved.fields("set-cookie")
        go.set()
        assert (await slow).body == b"s1"
        assert ("reloaded", {"servers": ["s2", "s3"], "added": ["s3"], "removed": ["s1"]}) in front.log
    await extra.stop()


@on_loop
async def test_stopping_finishes_what_is_under_way() -> None:
    """A stopping worker closes idle connections, accepts nobody, and lets a request under way end first."""
    go = asyncio.Event()

    async def later(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await say_name(origin, head, reader, writer)

    origin = Origin("s1", later)
    async with balanced(origin, grace_s=10.0) as front:
        idle = await front.browser()
        slow = asyncio.create_task(front.ask())
        await until(lambda: origin.heads, "the request is there")
        stopping = asyncio.create_task(front.worker.stop())
        assert await idle.reader.read() == b""
        assert not stopping.done()
        with pytest.raises(OSError, match=r"."):
            await front.ask()
        go.set()
        answer = await slow
        assert answer.body == b"s1" and answer.fields("connection") == ["close"]
        await stopping


@on_loop
async def test_a_server_that_accepts_nobody_in_time() -> None:
    """When the connection takes too long another server is asked; nothing was sent."""
    with socket.socket() as deaf, socket.socket() as filling:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        filling.connect(deaf.getsockname())  # the queue of the one who never accepts is full now
        async with balanced(Origin("s1"), Origin("s2"), timeouts=Timeouts(connect_s=0.2), health=SLOW_CHECKS) as front:
            settings = front.worker.settings
            lost = ServerAddress("s1", *deaf.getsockname())
            front.worker.reload(settings.with_servers((lost, *settings.servers[1:])))
            assert {(await front.ask(method="POST", body=b"x")).status for _ in range(4)} == {200}


def test_a_cookie_needs_a_secret() -> None:
    """Affinity by cookie without a secret names the remedy."""
    with pytest.raises(BalancerError, match="sessile keygen"):
        require_secret(BalancerSettings())
    require_secret(BalancerSettings(affinity=Affinity("none")))


@on_loop
async def test_a_stranger_counts_by_address() -> None:
    """Loopback has its own limit; addresses are counted apart and forgotten when their last connection ends."""
    async with balanced(Origin(), limits=Limits(connections_per_address=1)) as front:
        kept = [await front.browser() for _ in range(3)]
        for browser in kept:
            assert (await browser.ask()).status == 200
        assert front.worker._per_address == {"127.0.0.1": 3}
        for browser in kept:
            browser.close()
        await until(lambda: not front.worker._per_address, "the address is forgotten")


@on_loop
async def test_those_beyond_the_limit_hold_few_descriptors() -> None:
    """A few of those who are refused linger to read why; the others are closed at once, and none takes another's place."""
    limit = 4
    async with balanced(Origin(), limits=Limits(connections=limit), timeouts=Timeouts(linger_s=30.0)) as front:
        kept = [await front.browser() for _ in range(limit)]
        for browser in kept:
            assert (await browser.ask()).status == 200
        refused = [await front.browser() for _ in range(3 * REFUSED_MAX)]
        for browser in refused:
            assert (await browser.answer()).status == 503
        await until(lambda: len(front.worker.clients) <= limit + REFUSED_MAX + 1, "the others are gone")
        assert len(front.worker.clients) > limit
        kept[0].close()
        await until(lambda: len(front.worker._counted) < limit, "one has left")
        assert (await front.ask()).status == 200


def test_so_many_who_are_refused_may_linger() -> None:
    """The last of them is waited for, the next is not; those who were admitted do not count."""
    worker = Worker(BalancerSettings(secrets=("a",)), lambda event, fields: None)
    admitted = Client(worker)
    worker.clients.add(admitted)
    worker._counted[admitted] = "192.0.2.1"
    worker.clients.update(Client(worker) for _ in range(REFUSED_MAX))
    assert not worker.is_crowded
    worker.clients.add(Client(worker))
    assert worker.is_crowded


def test_settings_are_kept_apart() -> None:
    """Two workers of one process share nothing."""
    settings = BalancerSettings(secrets=("a",), servers=(ServerAddress("s1", "127.0.0.1", 1),))
    first, second = (Worker(replace(settings), lambda event, fields: None, Random(1)) for _ in range(2))
    assert first.servers.by_name["s1"] is not second.servers.by_name["s1"]


class SilentTransport(asyncio.Transport):
    """Takes everything and says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_aborted = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default


@on_loop
async def test_what_came_before_a_request_is_no_answer_to_it() -> None:
    """Bytes read for one request and looked at when the connection carries the next are never passed on."""
    settings = BalancerSettings(servers=(parse_server("s1=127.0.0.1:9001"),), secrets=("x" * 32,))
    worker = Worker(settings, lambda _event, _fields: None)
    turns: list[Any] = []
    worker._call_soon = turns.append
    server = worker.servers.by_name["s1"]
    upstream = Upstream(worker, server)
    upstream.connection_made(SilentTransport())
    server.idle.append(upstream)
    (token,) = worker.servers.tokens
    clients, transports = [Client(worker), Client(worker)], [SilentTransport(), SilentTransport()]
    for client, transport in zip(clients, transports, strict=True):
        client.connection_made(transport)
    cookie = b"%b=%b" % (settings.affinity_name, token)
    head = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: x=y; %b\r\n\r\n" % cookie
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
    clients[0].data_received(head)
    worker.drain()
    upstream.data_received(answer + b"1")
    clients[1].data_received(head)
    upstream.data_received(answer + b"2")  # stray: the connection still carries the first request when it is read
    worker.drain()
    assert transports[0].written == [answer + b"1"]
    assert transports[1].written == []
    assert len(turns) == 2
    (dial,) = worker._dials  # the second request is to be sent again, over a new connection
    dial.cancel()


@with_stand_ins
def test_a_large_piece_is_looked_at_at_once_and_in_order() -> None:
    """A stream is not put aside, and does not overtake what was."""
    settings = BalancerSettings(servers=(parse_server("s1=127.0.0.1:9001"),), secrets=("x" * 32,))
    worker = Worker(settings, lambda _event, _fields: None)
    worker._call_soon = lambda _callback: None
    seen: list[int] = []

    class Connection:
        transport = SilentTransport()

        def take(self, data: bytes, carried: int) -> None:
            seen.append(len(data) + carried)

        def wait_turn(self) -> None:
            seen.append(0)

    connection: Any = Connection()
    worker.arrived(connection, b"a", 0)
    assert seen == []
    worker.arrived(connection, bytes(1 << 20), 0)
    assert seen == [1, 1 << 20, 0]
