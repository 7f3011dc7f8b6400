"""A process that forks while it has connections to Redis: parent and child get their own replies, and only those."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from sessile.errors import StoreError
from sessile.stores.base import Changed, ChannelDown, FetchStatus
from sessile.stores.redis import RedisStore
from sessile.stores.redis_links import LinkLost, Links, dialer
from tests.forked import Child, bypassing_python, in_a_child
from tests.network.clusters import until
from tests.stores.redis_server import REDIS, Server, serving
from tests.stores.rig import fresh_key, new, ran

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessile.stores.base import Channel
    from sessile.token import SessionKey

pytestmark = pytest.mark.needs("redis-server")

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
with contextlib.suppress(ImportError):
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop
FETCHES = 40


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(REDIS) as running:
        yield running


def clients(server: Server) -> int:
    """How many connections the server has, that of the question not counted."""
    return server.ask("CLIENT", "LIST").count(b"id=") - 1


async def users(store: RedisStore, keys: dict[str, SessionKey]) -> list[str]:
    """Whose session comes, of those that are asked for again and again, several at a time; what is wrong, if anything is."""

    async def one(name: str) -> str:
        for _ in range(FETCHES):
            fetched = await store.fetch(keys[name], None)
            found = fetched.record.subject if fetched.record is not None else fetched.status.name
            if found != name:
                return f"{name} got {found}"
        return ""

    return [wrong for wrong in await asyncio.gather(*map(one, keys)) if wrong]


def on_a_loop(make: Callable[[], asyncio.AbstractEventLoop], coroutine: Any) -> Any:
    with asyncio.Runner(loop_factory=make) as runner:
        return runner.run(coroutine)


@pytest.mark.parametrize("fork", [None, bypassing_python], ids=["by Python", "in C"])
@pytest.mark.parametrize("make", LOOPS.values(), ids=LOOPS)
def test_parent_and_child_get_their_own_replies(
    server: Server, make: Callable[[], asyncio.AbstractEventLoop], fork: Callable[[], int] | None
) -> None:
    """Both go on with the one store, at the same time: the child over connections of its own."""

    async def child(store: RedisStore, keys: dict[str, SessionKey]) -> list[str]:
        try:
            await store.fetch(fresh_key(), None)
        except StoreError:  # whoever opens a store that its parent had open finds it closed
            await store.open()
        wrong = await users(store, keys)
        await store.close()
        return wrong

    async def parent() -> None:
        store = RedisStore(server.url)
        await store.open()
        keys = {name: fresh_key() for name in ("ann", "bob", "cyd", "dan")}
        for name, key in keys.items():
            await store.merge(key, new(subject=name, name=name.encode()), "one")
        assert await users(store, keys) == []
        for _ in range(3):
            one = Child(lambda: on_a_loop(make, child(store, keys)), *([fork] if fork else []))
            try:
                assert await users(store, keys) == []
                assert await asyncio.to_thread(one.said) == "[]"
            finally:
                one.end()
        assert await users(store, keys) == []
        await store.close()

    on_a_loop(make, parent())


@pytest.mark.parametrize("make", LOOPS.values(), ids=LOOPS)
def test_a_child_that_uses_nothing_disturbs_nothing_and_keeps_nothing_open(
    server: Server, make: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """The subscription goes on, and when the parent closes its connections they are closed, child or no child."""
    told: list[Channel] = []

    async def parent() -> None:
        store = RedisStore(server.url)
        await store.open()
        listening = asyncio.create_task(store.listen(told.append))
        await until(lambda: bool(told))
        assert clients(server) >= 2
        child = Child(lambda: "here")
        try:
            assert await asyncio.to_thread(child.said) == "'here'"
            key = fresh_key()
            await store.merge(key, new(a=b"1"), "one")
            await until(lambda: any(isinstance(event, Changed) and event.key == key for event in told))
            assert not any(isinstance(event, ChannelDown) for event in told)
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening
            await store.close()
            await until(lambda: not clients(server))
        finally:
            child.end()

    on_a_loop(make, parent())


def test_a_connection_knows_whose_it_is(server: Server) -> None:
    """Where nothing else has noticed a fork, a trip in the child is refused, and not a byte leaves."""

    async def trip(links: Links) -> str:
        try:
            return repr((await links.trip([("GET", "x")])).replies)
        except LinkLost as lost:
            return f"{lost}, {len(links._free)} left"

    async def test() -> None:
        links = Links(dialer(is_tls=False)("127.0.0.1", server.port))
        await links.trip([("SET", "x", "parent's")])
        seen = server.ask("INFO", "stats")
        said = await asyncio.to_thread(in_a_child, lambda: asyncio.run(trip(links)), bypassing_python)
        assert "forked from, 0 left" in said
        assert commands(seen) + 1 == commands(server.ask("INFO", "stats"))
        assert (await links.trip([("GET", "x")])).replies == [b"parent's"]
        await links.close()

    ran(test)


def commands(stats: bytes) -> int:
    """How many commands a server has run."""
    return int(stats.partition(b"total_commands_processed:")[2].split()[0])


def test_what_a_parent_has_open_is_not_open_in_a_child(server: Server) -> None:
    """It says so, and can be opened there."""

    async def child(store: RedisStore) -> str:
        try:
            await store.fetch(fresh_key(), None)
        except StoreError as error:
            await store.open()
            return f"{error}; {(await store.fetch(fresh_key(), None)).status is FetchStatus.NONE}"
        return "open"

    async def test() -> None:
        store = RedisStore(server.url)
        await store.open()
        said = await asyncio.to_thread(in_a_child, lambda: asyncio.run(child(store)))
        assert "is not open; True" in said
        await store.close()

    ran(test)
