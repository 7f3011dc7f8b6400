"""A store that this process had too little time to hear is not away: nothing is served that it did not confirm."""

from __future__ import annotations

import asyncio

import pytest

from sessile.errors import SessionUnavailable, StarvedError
from sessile.record import ENDED
from sessile.session import Session
from tests.network.clusters import Tab, until
from tests.stores.sharing import Servers, count, ran, servers_of


def starve(servers: Servers) -> None:
    servers.store.fails, servers.store.failure = "it was not heard", StarvedError


@pytest.mark.parametrize("is_ended", [False, True])
def test_no_copy_is_served_that_the_store_did_not_confirm(is_ended: bool) -> None:  # noqa: FBT001  # both ways
    """The request is refused, and no other: there is no outage, and the next question is asked."""

    async def run() -> None:
        async with servers_of(2, has_channel=False) as servers:
            one, other = servers.engines
            tab = Tab(one)
            await tab.ask(one, count)
            await tab.ask(other, dict)
            late = Tab(other)
            late.cookies = dict(tab.cookies)
            if is_ended:
                await tab.ask(one, Session.logout)
            starve(servers)
            with pytest.raises(SessionUnavailable):
                await late.look(other)
            backend = servers.backend(1)
            assert not backend.outage and not backend.counts["outages"]
            servers.store.fails = ""
            assert await late.look(other) == ({} if is_ended else {"n": 1})

    ran(run())


def test_a_change_that_did_not_come_is_brought_again() -> None:
    """It is answered as one that was not confirmed, and comes when there is time, without an outage."""

    async def run() -> None:
        async with servers_of(1) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            starve(servers)
            await tab.ask(engine, count)
            backend = servers.backend(0)
            assert (backend.status()["queued"], backend.counts["starved"]) == (1, 1)
            await until(lambda: backend.counts["starved"] > 1)
            servers.store.fails = ""
            await until(lambda: not backend.status()["queued"])
            assert servers.store.records[tab.key].fields["n"].value and not backend.counts["outages"]
            assert engine.stats()["degraded"] == 1

    ran(run())


def test_a_server_that_stops_leaves_no_question_behind() -> None:
    """Who asked was cancelled, and the question went on: it is ended before the store is closed."""

    async def run() -> None:
        async with servers_of(1, cache="checked", ack_timeout="1ms") as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            servers.store.gate = asyncio.Event()
            asking = asyncio.create_task(tab.look(engine))
            await until(lambda: servers.store.calls[-1] == "fetch")
            asking.cancel()
            await asyncio.wait([asking])
            before = asyncio.all_tasks()
            await servers.backend(0).stop()
            assert asyncio.all_tasks() < before and servers.store.calls[-1] == "close"
            assert not [task for task in asyncio.all_tasks() if "_fetch" in repr(task)]

    ran(run())


@pytest.mark.parametrize("ack", ["none", "one"])
def test_an_end_that_may_not_have_come_is_not_answered(ack: str) -> None:
    """Other servers may still show the session: the logout is refused, and comes to the store all the same."""

    async def run() -> None:
        async with servers_of(1, ack=ack) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            key = tab.key
            await until(lambda: servers.backend(0).is_settled(key))
            starve(servers)
            with pytest.raises(SessionUnavailable):
                await tab.ask(engine, Session.logout)
            servers.store.fails = ""
            await until(lambda: servers.store.records[key].state == ENDED)

    ran(run())


def test_an_end_is_waited_for_with_ack_none_too() -> None:
    """A change is answered at once; an end when the store has it, whatever `ack` and `ack_timeout` say."""

    async def run() -> None:
        async with servers_of(1, ack="none", ack_timeout="1ms") as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            servers.store.gate = asyncio.Event()
            await tab.ask(engine, count)
            key = tab.key
            leaving = asyncio.create_task(tab.ask(engine, Session.logout))
            await asyncio.wait([leaving], timeout=0.05)
            assert not leaving.done(), "the store has not heard of it"
            servers.store.gate.set()
            await leaving
            assert servers.store.records[key].state == ENDED
            assert not servers.backend(0).counts["ack_timeouts"]

    ran(run())


def test_a_comparison_that_was_not_heard_is_made_again() -> None:
    """After a failover every copy is compared, though some answers were not heard."""

    async def run() -> None:
        async with servers_of(1) as servers:
            (engine,) = servers.engines
            tab = Tab(engine)
            await tab.ask(engine, count)
            key, backend = tab.key, servers.backend(0)
            starve(servers)
            servers.store.fail_over({})
            await until(lambda: backend.counts["starved"] > 1)
            servers.store.fails = ""
            await until(lambda: key in servers.store.records)
            assert not backend.counts["outages"]

    ran(run())
