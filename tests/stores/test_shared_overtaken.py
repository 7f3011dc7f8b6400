"""Logouts, rotations and writes that overtake each other between servers that share a store."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from sessile.errors import SessionConflict, SessionUnavailable, StarvedError
from sessile.record import LIVE
from sessile.session import Session
from sessile.wsgi import SessionMiddleware
from tests.network.clusters import Tab, until
from tests.stores.endings import ended
from tests.stores.sharing import Servers, count, ran, servers_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from sessile.engine import Engine

    Meanwhile = Callable[[], Awaitable[object]]


def copied(tab: Tab) -> Tab:
    """Another request of the same browser, under way at the same time."""
    other = Tab(tab.engine)
    other.cookies = dict(tab.cookies)
    return other


async def opened(engine: Engine, tab: Tab) -> Session:
    session = engine.open((tab.header,), is_https=tab.is_https)
    await engine.prepare(session)
    assert session["n"] == 1
    return session


def before_merge(monkeypatch: pytest.MonkeyPatch, servers: Servers, number: int, meanwhile: Meanwhile) -> None:
    """Do something right before the store takes the record of this number."""
    real = servers.store.merge
    numbers = iter(range(1, 1000))

    async def merge(*args: Any, **keywords: Any) -> Any:
        if next(numbers) == number:
            await meanwhile()
        return await real(*args, **keywords)

    monkeypatch.setattr(servers.store, "merge", merge)


def served(servers: Servers) -> list[bytes]:
    """The keys of all live sessions, in the store or at a server."""
    tables = [engine.table for engine in servers.engines]
    held = [key for table in tables for key in table if not table.knows_end(key)]
    return held + [key for key, record in servers.store.records.items() if record.state == LIVE]


@pytest.mark.parametrize("when", ["before commit", "before settle", "before the new one", "before the old one"])
def test_a_rotation_that_a_logout_overtakes_leaves_nothing(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The logout was answered; the other server keeps no live session under the new id, and gives it to nobody."""

    async def run() -> None:
        async with servers_of(2) as servers:
            one, two = servers.engines
            tab = Tab(one)
            await tab.ask(one, count)

            async def logged_out() -> None:
                await copied(tab).ask(one, Session.logout)

            session = await opened(two, tab)
            session.rotate()
            if when == "before commit":
                await logged_out()
            with pytest.raises(SessionConflict):  # noqa: PT012  # any of the two
                steps = two.commit(session)
                if when == "before settle":
                    await logged_out()
                if when.endswith("one"):
                    before_merge(monkeypatch, servers, 1 if when == "before the new one" else 2, logged_out)
                await two.settle(steps)
            await until(lambda: not served(servers))
            tab.keep(two.cookies(session))
            assert await copied(tab).look(one) == await copied(tab).look(two) == {}

    ran(run())


def test_an_app_that_answers_for_itself_gives_nobody_the_new_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frameworks catch what `start_response` raises, and answer 500: without a cookie of the rotation that failed."""

    async def run() -> None:
        async with servers_of(2) as servers:
            one, two = servers.engines
            tab = Tab(one)
            await tab.ask(one, count)
            before_merge(monkeypatch, servers, 1, lambda: copied(tab).ask(one, Session.logout))

            def app(environ: Any, start_response: Any) -> Iterable[bytes]:
                environ["sessile.session"].rotate()
                try:
                    start_response("200 OK", [])
                except SessionConflict:
                    start_response("500 Internal Server Error", [], sys.exc_info())
                return [b""]

            heads: list[Any] = []
            environ = {"HTTP_COOKIE": tab.header.decode(), "wsgi.url_scheme": "https" if tab.is_https else "http", "SERVER_NAME": "127.0.0.1"}  # fmt: skip
            middleware = SessionMiddleware(app, engine=two)

            def start(*head: Any) -> Callable[[bytes], object]:
                heads.append(head)
                return lambda _: None

            await asyncio.to_thread(lambda: list(middleware(environ, start)))
            assert [head[0][:3] for head in heads] == ["500"]
            tab.keep([value.encode() for name, value in heads[0][1] if name.lower() == "set-cookie"])
            assert await copied(tab).look(one) == await copied(tab).look(two) == {}

    ran(run())


def test_a_logout_is_waited_for_by_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A double click: the second request finds the session ended, and is answered when the store knows that."""

    async def run() -> None:
        async with servers_of(2) as servers:
            one, two = servers.engines
            tab = Tab(one)
            await tab.ask(one, count)
            assert await ended(tab).look(two) == {"n": 1}
            first, second, third = copied(tab), copied(tab), copied(tab)
            gate = asyncio.Event()
            before_merge(monkeypatch, servers, 1, gate.wait)
            tasks = [asyncio.create_task(first.ask(one, Session.logout))]
            await until(lambda: one.table.knows_end(tab.key))
            tasks += [asyncio.create_task(second.ask(one, Session.logout)), asyncio.create_task(third.look(one))]
            done, _ = await asyncio.wait(tasks, timeout=0.2)
            assert not done
            gate.set()
            await asyncio.gather(*tasks)
            assert await copied(tab).look(two) == {}

    ran(run())


def test_a_logout_that_failed_is_sent_again_by_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with servers_of(2) as servers:
            one, two = servers.engines
            tab = Tab(one)
            await tab.ask(one, count)
            assert await ended(tab).look(two) == {"n": 1}

            async def starved() -> None:
                raise StarvedError("this process had no time to hear the store")

            before_merge(monkeypatch, servers, 1, starved)
            with pytest.raises(SessionUnavailable):
                await copied(tab).ask(one, Session.logout)
            await copied(tab).ask(one, Session.logout)
            assert await copied(tab).look(two) == {}

    ran(run())


@pytest.mark.parametrize("way", ["evicted", "an earlier write is missing"])
def test_a_write_that_comes_after_the_end_is_a_conflict(way: str) -> None:
    """The store is sent the end instead, which leaves nothing more to answer: the write is refused all the same."""

    async def run() -> None:
        async with servers_of(2) as servers:
            one, two = servers.engines
            tab = Tab(one)
            await tab.ask(one, count)
            session = await opened(two, copied(tab))
            await copied(tab).ask(one, Session.logout)
            await until(lambda: two.table.knows_end(tab.key))
            if way == "evicted":
                del servers.store.records[tab.key]
            else:
                servers.backend(1)._lost.add(tab.key, is_end=False)
            session["late"] = 1
            with pytest.raises(SessionConflict):
                await two.settle(two.commit(session))

    ran(run())


def test_an_end_that_is_told_while_a_change_is_on_its_way_is_not_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store has lost the session, and asks for all of it: it gets the end that this server has heard of meanwhile."""

    async def run() -> None:
        async with servers_of(1) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            session = await opened(engine, copied(tab))
            session["late"] = 1
            real = servers.store.apply

            async def apply(*args: Any, **keywords: Any) -> Any:
                del servers.store.records[tab.key]
                pushed = await real(*args, **keywords)
                engine.table.note_ended(tab.key, servers.clock() + 1_000_000)
                return pushed

            monkeypatch.setattr(servers.store, "apply", apply)
            with pytest.raises(SessionConflict):
                await engine.settle(engine.commit(session))
            assert servers.store.records[tab.key].state != LIVE

    ran(run())


def test_a_change_behind_one_that_was_lost_goes_with_the_whole_record() -> None:
    """The store may lack what the change builds on, so it is not asked to apply it."""

    async def run() -> None:
        async with servers_of(1) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            servers.backend(0)._lost.add(tab.key, is_end=False)
            calls = len(servers.store.calls)
            await copied(tab).ask(engine, count)
            assert "apply" not in servers.store.calls[calls:]
            assert await copied(tab).look(engine) == {"n": 2}

    ran(run())


def test_a_store_that_came_back_empty_may_evict_again() -> None:
    """After the comparison with what the store has now, a session that is missing there has ended."""

    async def run() -> None:
        async with servers_of(1) as servers:
            servers.store.may_forget_ends = True
            (engine,) = servers.engines
            backend = servers.backend(0)
            tabs = [Tab(engine) for _ in range(2)]
            for tab in tabs:
                await tab.ask(engine, count)
            servers.store.records.clear()
            servers.store.mark = b"second"
            backend.leases.drop_all()
            backend.reconcile_soon()
            await until(lambda: len(servers.store.records) == 2)
            await until(lambda: backend.counts["reconciled"] > 0)
            backend.leases.drop(tabs[0].key)
            del servers.store.records[tabs[0].key]
            assert [await copied(tab).look(engine) for tab in tabs] == [{}, {"n": 1}]
            assert backend.counts["gone"] == 1

    ran(run())
