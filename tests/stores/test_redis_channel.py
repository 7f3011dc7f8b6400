from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import TYPE_CHECKING

import pytest

from sessile.delta import Outcome
from sessile.record import ENDED, LIVE
from sessile.stores import redis_channel
from sessile.stores.base import Changed, ChannelDown, ChannelUp, Confirmed
from sessile.stores.redis import RedisStore
from sessile.stores.redis_links import LinkLost
from sessile.tasks import end_tasks
from tests.network.clusters import ran, until
from tests.stores.redis_server import REDIS, Server, serving
from tests.stores.rig import WITHIN_S, Heard, fresh_key, new

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


async def pulses(heard: Heard, more: int) -> None:
    """Wait until so many more have come."""
    wanted = heard.pulses + more
    await heard.until(lambda: heard.pulses >= wanted)


def test_what_was_published_has_been_heard(server: Server) -> None:
    """While copies are served without asking there is a pulse again and again, and none while the store does not answer."""

    async def test() -> None:
        store = RedisStore(server.url, timeout_s=20.0)
        await store.open()
        async with Heard().listening(store) as heard:
            await pulses(heard, 3)
            server.process.send_signal(signal.SIGSTOP)
            try:
                await heard.until(lambda: kinds(heard.all)[-1] is ChannelDown)
                before = heard.pulses
            finally:
                server.process.send_signal(signal.SIGCONT)
            assert heard.pulses == before
            await heard.until(lambda: kinds(heard.all)[-1] is ChannelUp)
            await pulses(heard, 2)
        await store.close()

    ran(test())


def test_there_is_no_pulse_while_beats_are_refused(server: Server) -> None:
    """The primary is the present one and the channel is up, but nothing proves that everything was received."""

    async def test() -> None:
        server.ask("ACL", "SETUSER", "mute", "on", ">secret", "~*", "&*", "+@all")
        store = RedisStore(f"redis://mute:secret@127.0.0.1:{server.port}", timeout_s=20.0)
        await store.open()
        async with Heard().listening(store) as heard:
            await pulses(heard, 1)
            server.ask("ACL", "SETUSER", "mute", "-publish")

            async def refused(count: int) -> None:
                """Wait until this number of further beats has been refused."""
                wanted = store.counts["refused_beats"] + count
                await until(lambda: store.counts["refused_beats"] >= wanted, WITHIN_S)

            await refused(2)  # the beats before have come back
            before = heard.pulses
            await refused(3)
            assert heard.pulses == before
            server.ask("ACL", "SETUSER", "mute", "+publish")
            await pulses(heard, 1)
            assert kinds(heard.all) == [ChannelUp]
        await store.close()

    ran(test())


def test_a_server_that_serves_no_copies_asks_nothing(server: Server) -> None:
    """And no end waits for it: it is not among those who may hold leases."""

    async def test() -> None:
        idle, used, ender = (RedisStore(server.url, cluster="idle", timeout_s=20.0) for _ in range(3))
        for store in (idle, used, ender):
            await store.open()
        tasks = [
            asyncio.create_task(idle.listen(lambda _: None, lambda: False)),
            asyncio.create_task(used.listen(lambda _: None, lambda: True)),
        ]
        async with Heard().listening(ender) as heard:
            await pulses(heard, 5)
            lessees: tuple[bytes, ...] | None = None
            key = fresh_key()
            while not lessees:
                key = fresh_key()
                pushed = await ender.merge(key, new(a=b"1").end(ENDED, 0), "one", is_awaited=True)
                lessees = pushed.lessees
            assert used._listener is not None and lessees == (used._listener.name,)
            await heard.until(lambda: Confirmed(key, lessees[0]) in heard.all)
            again = await ender.merge(key, new(a=b"1").end(ENDED, 0), "one", is_awaited=True)
            assert again.outcome is Outcome.KNOWN and again.lessees == lessees
            await heard.until(lambda: heard.all.count(Confirmed(key, lessees[0])) == 2)
        await end_tasks(tasks)
        for store in (idle, used, ender):
            await store.close()

    ran(test())


def test_soon_after_another_primary_nobody_can_say_who_holds_a_lease(server: Server) -> None:
    """By what the old one told somebody may still serve copies: the end waits until that is over."""

    async def test() -> None:
        store = RedisStore(server.url, timeout_s=20.0)
        await store.open()
        assert store._servers is not None
        await store._servers.doubt()
        pushed = await store.merge(fresh_key(), new(a=b"1").end(ENDED, 0), "one", is_awaited=True)
        assert pushed.lessees is None
        await store.close()

    ran(test())


def test_another_primary_is_noticed_though_the_link_is_well(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever decides names another one: the channel comes up anew, under that name."""
    monkeypatch.setattr(redis_channel, "WATCH_S", 0.0)

    async def test() -> None:
        store = RedisStore(server.url, timeout_s=20.0)
        await store.open()
        assert store._servers is not None
        who = ["one"]

        async def identity() -> str:
            return who[0]

        monkeypatch.setattr(store._servers, "identity", identity)
        async with Heard().listening(store) as heard:
            who[0] = "other"
            await heard.until(lambda: len(heard.all) == 3)
            assert heard.all == [ChannelUp("one"), ChannelDown(), ChannelUp("other")]
        await store.close()

    ran(test())


def test_there_is_no_pulse_once_another_primary_was_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old primary is alive and answers, as one does that is cut off from those who decide: leases run out."""

    async def test() -> None:
        store = RedisStore(server.url, timeout_s=20.0)
        await store.open()
        servers = store._servers
        assert servers is not None
        async with Heard().listening(store) as heard:
            await pulses(heard, 2)
            asked = asyncio.Event()
            answers = [LinkLost("has no servers"), False, False]

            async def is_current() -> bool:
                if len(answers) == 1:
                    asked.set()
                    return True
                answer = answers.pop(0)
                if isinstance(answer, LinkLost):
                    raise answer
                before.append(heard.pulses)
                return bool(answer)

            before: list[int] = []
            monkeypatch.setattr(servers, "is_current", is_current)
            await asked.wait()
            assert before[0] == before[-1]
            await pulses(heard, 1)
            assert kinds(heard.all) == [ChannelUp]
        await store.close()

    ran(test())


def test_a_primary_that_is_demoted_ends_the_channel() -> None:
    """By its refusal of the next beat, and not only when somebody looks who the primary is."""

    async def test() -> None:
        with serving(REDIS) as server:
            store = RedisStore(server.url, timeout_s=20.0)
            await store.open()
            async with Heard().listening(store) as heard:
                await pulses(heard, 1)
                server.ask("REPLICAOF", "127.0.0.1", str(server.port + 1))
                await heard.until(lambda: kinds(heard.all)[-1] is ChannelDown)
                server.ask("REPLICAOF", "NO", "ONE")
                await heard.until(lambda: kinds(heard.all)[-1] is ChannelUp)
                await pulses(heard, 1)
            await store.close()

    ran(test())
