"""What the promises about ended sessions share: old cookies, servers of every kind, relays and WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from bench.browser import HOST, Browser
from bench.ending.group import Host, group, within
from bench.ending.server import KINDS
from bench.ending.sockets import Talk
from bench.ending.stores import File, Relay
from bench.ending.visits import Tally, User, ask, began, logged_out, see_all, try_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

WITHIN_S = 20.0


@contextlib.asynccontextmanager
async def answering(status: int, told: dict[str, Any]) -> AsyncIterator[Host]:
    """A server that says this to everybody."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(told).encode()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body))
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    async with server:
        yield Host("a", server.sockets[0].getsockname()[1], socket.socket())


@pytest.mark.parametrize(
    ("status", "told", "opened", "refused", "failed"),
    [
        (200, {"key": "aa", "fields": {}}, 1, 0, 0),
        (200, {"key": "bb", "fields": {"user": "ann"}}, 1, 0, 0),
        (200, {"key": "bb", "fields": {"user": "bob"}}, 0, 0, 0),
        (200, {"key": "", "fields": {}}, 0, 0, 0),
        (503, {"error": "nobody can tell"}, 0, 1, 0),
        (500, {}, 0, 0, 1),
    ],
)
def test_an_answer_shows_a_session_by_its_key_or_by_its_user(
    status: int, told: dict[str, Any], opened: int, refused: int, failed: int
) -> None:
    """Whatever shows it is counted; 503 is no showing, and any other status is no answer."""
    tally = Tally()

    async def run() -> None:
        async with answering(status, told) as host:
            user = User("ann", old={b"sid": b"x"}, key="aa", ended_s=time.monotonic())
            await try_all([user, User("bob", key="bb")], [host], tally, "now")
            host.listener.close()

    asyncio.run(asyncio.wait_for(run(), WITHIN_S))
    assert (tally.asked, tally.opened, tally.refused, tally.failed) == (1, opened, refused, failed)


@pytest.mark.parametrize("kind", KINDS)
def test_servers_of_every_kind_show_what_lives_and_end_what_ends(kind: str, tmp_path: Path) -> None:
    """Two of them on one store: a session is shown at both, by both kinds of long requests too, until it has ended."""

    async def run() -> None:
        store = File(str(tmp_path))
        async with group(store.url, 2, kind=kind, settings={}) as servers:
            first, second = servers.hosts
            ann, bob = await began(servers.hosts, ["ann", "bob"], seen=servers.hosts)
            long = asyncio.create_task(ask(first, "/long", dict(bob.old)))
            streaming = asyncio.create_task(ask(second, "/stream", dict(bob.old)))

            async def all_wait() -> bool:
                return bool(sum([(await host.ask("state"))["waiting"] for host in servers.hosts]) == 2)

            assert await within(WITHIN_S, all_wait)
            for host in servers.hosts:
                await host.ask("release")
            await asyncio.gather(long, streaming)
            status, told = await ask(second, "/look", dict(bob.old))
            assert (status, told["fields"]) == (200, {"user": "bob", "late": "1"})
            tally, living = Tally(), Tally()
            await logged_out([ann], [first], tally)
            await try_all([ann], servers.hosts, tally, "at once")
            await see_all([bob], servers.hosts, living)
            assert (tally.ended, tally.asked, tally.opened, tally.failed) == (1, 2, 0, 0), tally.wrongs
            assert (living.asked, living.failed) == (2, 0)
            await second.end()
            await servers.run(second)
            await servers.until_ready()
            await see_all([bob], [second], living)
            assert living.failed == 0

    asyncio.run(asyncio.wait_for(run(), 3 * WITHIN_S))


def test_a_websocket_writes_to_its_session() -> None:
    """Opened with cookies, it writes with each message."""

    async def run() -> None:
        async with group("sticky://", 1, settings={}) as servers:
            (host,) = servers.hosts
            (ann,) = await began([host], ["ann"], seen=[host])
            talk = await Talk.begin(host.port, ann.old)
            assert await talk.say() == b"written"
            talk.close()
            status, told = await ask(host, "/look", dict(ann.old))
            assert (status, told["fields"]) == (200, {"user": "ann", "late": "1"})

    asyncio.run(asyncio.wait_for(run(), 2 * WITHIN_S))


def test_nothing_passes_a_relay_that_is_cut() -> None:
    """Until it heals: then what was held back goes on."""

    async def run() -> None:
        async with answering(200, {"key": "", "fields": {}}) as host, Relay(host.port) as relay:
            status, _ = await Browser(relay.port).ask("GET", "/look")
            assert status == 200
            relay.cut()
            asking = asyncio.create_task(Browser(relay.port).ask("GET", "/look"))
            direct, _ = await Browser(host.port).ask("GET", "/look")
            assert direct == 200
            assert not asking.done()
            relay.heal()
            status, _ = await asking
            assert status == 200
            host.listener.close()

    asyncio.run(asyncio.wait_for(run(), WITHIN_S))


def test_a_file_that_is_held_takes_no_write(tmp_path: Path) -> None:
    """As a store that is away; it goes on with all that was there."""

    async def run() -> None:
        store = File(str(tmp_path))
        async with group(store.url, 1, settings={"degraded": "refuse", "store_timeout": "100ms"}) as servers:
            (host,) = servers.hosts
            (ann,) = await began([host], ["ann"], seen=[host])
            store.stop()
            status, _ = await ask(host, "/set?name=n&value=1", dict(ann.old))
            store.go_on()
            assert status == 503
            await servers.until_ready()
            living = Tally()
            await see_all([ann], [host], living)
            assert living.failed == 0

    asyncio.run(asyncio.wait_for(run(), 2 * WITHIN_S))
