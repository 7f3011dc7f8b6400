from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import TYPE_CHECKING

import pytest

from sessile.record import LIVE
from sessile.stores import redis_channel
from sessile.stores.base import Changed, ChannelDown, ChannelUp
from sessile.stores.redis import RedisStore
from sessile.tasks import end_tasks
from tests.network.clusters import ran
from tests.stores.redis_server import REDIS, Server, serving
from tests.stores.rig import Heard, fresh_key, new

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessile.stores.base import Channel

pytestmark = pytest.mark.needs(REDIS)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(REDIS) as server:
        yield server


def kinds(messages: list[Channel]) -> list[type]:
    return [type(message) for message in messages if not isinstance(message, Changed)]


def test_a_lost_link_is_told_and_made_again(server: Server) -> None:
    """Down at once, up again soon, with the same primary; what is changed then is told."""

    async def test() -> None:
        store = RedisStore(server.url, timeout_s=20.0)
        await store.open()
        async with Heard().listening(store) as heard:
            server.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await heard.until(lambda: kinds(heard.all)[1:3] == [ChannelDown, ChannelUp])
            assert heard.all[0] == heard.all[2]
            key, record = fresh_key(), new(a=b"1")
            await store.merge(key, record, "one")
            await heard.until(lambda: heard.changes == [Changed(key, record.heads, LIVE)])
        await store.close()

    ran(test())


def test_whoever_listens_may_be_stopped_though_a_cancellation_is_lost(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver may lose one (`asyncio.wait_for` before Python 3.12) just when it looks who the primary is."""
    monkeypatch.setattr(redis_channel, "WATCH_S", 0.0)

    async def test() -> None:
        store = RedisStore(server.url, timeout_s=20.0)
        await store.open()
        servers = store._servers
        assert servers is not None
        looking, look = asyncio.Event(), servers.identity

        async def identity() -> str:
            primary = await look()
            if heard and not looking.is_set():
                looking.set()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
            return primary

        monkeypatch.setattr(servers, "identity", identity)
        heard: list[Channel] = []
        listening = asyncio.create_task(store.listen(heard.append))
        await looking.wait()
        listening.cancel()
        ended, _ = await asyncio.wait([listening], timeout=10)
        await end_tasks([listening])
        await store.close()
        assert ended

    ran(test())


def test_a_silent_link_is_down(server: Server) -> None:
    """A server that hangs is told of by its silence, in about a second and a half, and not by a closed connection."""

    async def test() -> None:
        store = RedisStore(server.url, timeout_s=5.0)
        await store.open()
        async with Heard().listening(store) as heard:
            await asyncio.sleep(1.2)
            assert kinds(heard.all) == [ChannelUp], "a link on which nothing happens is up"
            server.process.send_signal(signal.SIGSTOP)
            try:
                started_s = time.monotonic()
                await heard.until(lambda: kinds(heard.all)[-1] is ChannelDown)
                assert time.monotonic() - started_s > 0.4
            finally:
                server.process.send_signal(signal.SIGCONT)
            await heard.until(lambda: kinds(heard.all)[-1] is ChannelUp)
        await store.close()

    ran(test())


def test_a_server_started_anew_is_another_primary() -> None:
    """It may have come back empty, so it has another name."""

    async def test() -> None:
        with serving(REDIS) as server:
            store = RedisStore(server.url, timeout_s=20.0)
            await store.open()
            async with Heard().listening(store) as heard:
                server.kill()
                await heard.until(lambda: kinds(heard.all) == [ChannelUp, ChannelDown])
                server.again()
                await heard.until(lambda: kinds(heard.all) == [ChannelUp, ChannelDown, ChannelUp])
                assert heard.all[0] != heard.all[2]
            await store.close()

    ran(test())


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x93\xc4\x01a\xc2\x90x", b"\x80"])
def test_what_somebody_else_publishes_is_counted(server: Server, data: bytes) -> None:
    """A message that is none of ours is not told, and ends nothing."""

    async def test() -> None:
        store = RedisStore(server.url, timeout_s=20.0)
        await store.open()
        async with Heard().listening(store) as heard:
            server.ask("PUBLISH", "sessile:changes", data)
            key, record = fresh_key(), new(a=b"1")
            await store.merge(key, record, "one")
            await heard.until(lambda: bool(heard.changes))
            assert heard.changes == [Changed(key, record.heads, LIVE)]
            assert store.counts["foreign_messages"] == 1
            assert kinds(heard.all) == [ChannelUp]
        await store.close()

    ran(test())


def test_who_may_not_subscribe_hears_nothing(server: Server) -> None:
    """There is no channel, and the listener keeps trying; the store works all the same."""

    async def test() -> None:
        server.ask("ACL", "SETUSER", "deaf", "on", ">secret", "~*", "+@all", "resetchannels", "&other")
        store = RedisStore(f"redis://deaf:secret@127.0.0.1:{server.port}", timeout_s=5.0)
        await store.open()
        heard = Heard()
        listening = asyncio.create_task(store.listen(heard))
        await asyncio.sleep(0.3)
        assert not heard.all and not listening.done()
        server.ask("ACL", "SETUSER", "deaf", "&sessile:*")
        await heard.until(lambda: kinds(heard.all) == [ChannelUp])
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await store.close()

    ran(test())
