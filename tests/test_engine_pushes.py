"""The engine with other holders: what it tells them, in which order, and what follows when they do not confirm."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sessile.backend import Ended, Whole
from sessile.credentials import DRAWS_MAX
from sessile.delta import Delta, Outcome
from sessile.errors import SessionUnavailable, SettingsError
from sessile.record import ENDED, LIVE, ROTATED, Record
from sessile.session import Session
from sessile.visit import Step
from tests.fakes import (
    FakeBackend,
    FakeClock,
    cookie_names,
    make_pair,
    settled,
)


def test_a_new_session_is_told_whole() -> None:
    """One message: the record; after it both copies are the same."""
    backend, engine = make_pair(ack="all")
    browser = settled(engine, a=1)
    ((change, ack),) = backend.pushes
    assert isinstance(change, Whole)
    assert (change.key, ack) == (browser.key, "all")
    assert Record.unpack(engine.table.get(change.key) or b"").same_state(backend.records[change.key])


def test_a_write_is_told_as_a_delta() -> None:
    """Changed fields only, on the base they were made on; applied over there, both copies are the same."""
    backend, engine = make_pair()
    browser = settled(engine, a=1, untouched="x" * 100)
    key = browser.key
    with browser.request() as session:
        session["a"] = 2
        session["b"] = [1]
        session.increment("n", 3)
    with browser.request() as session:
        session.increment("n", 4)
        del session["b"]
    deltas = backend.changes[1:]
    assert all(isinstance(delta, Delta) for delta in deltas)
    assert [set(delta.values) for delta in deltas if isinstance(delta, Delta)] == [{"a", "b"}, {"b"}]
    assert backend.outcomes == [Outcome.APPLIED] * 2
    here = Record.unpack(engine.table.get(key) or b"")
    assert here.same_state(backend.records[key])
    assert browser.look() == {"a": 2, "untouched": "x" * 100, "n": 7}


def test_a_delta_names_the_heads_of_the_moment_it_was_made() -> None:
    """A parallel request that committed in between is in its base, not what the session was opened with."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    slow, fast = browser.open(), browser.open()
    slow["s"], fast["f"] = 1, 2
    browser.finish(fast)
    browser.finish(slow)
    one, two = (change for change in backend.changes if isinstance(change, Delta))
    assert two.base == (one.stamp,)
    assert backend.outcomes == [Outcome.APPLIED] * 2
    assert backend.records[browser.key].same_state(Record.unpack(engine.table.get(browser.key) or b""))


def test_a_write_is_above_what_the_browser_has_seen() -> None:
    """On a stale copy too, so that the write wins over the one that is missing here (a Lamport clock)."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    key = browser.key
    before = Record.unpack(engine.table.get(key) or b"")
    for number in range(5):
        with browser.request() as session:
            session["a"] = number
    last = backend.changes[-1]
    assert isinstance(last, Delta)
    engine.table.put(key, before)
    backend.records[key] = before
    with browser.request() as session:
        assert session.stale
        session["a"] = "after"
    after = backend.changes[-1]
    assert isinstance(after, Delta)
    assert after.stamp.counter > last.stamp.counter


def test_reads_and_touches_tell_nobody_a_version() -> None:
    """What changes no field is no delta."""
    clock = FakeClock()
    backend, engine = make_pair(clock=clock, idle_timeout=100)
    browser = settled(engine, a=1)
    clock.advance(50)
    browser.look()
    assert len(backend.pushes) == 1
    assert backend.waits == []


def test_a_touch_is_told() -> None:
    """At most every tenth of the idle timeout, by a read; a write needs none beside it."""
    clock = FakeClock()
    backend, engine = make_pair(clock=clock, idle_timeout=100)
    browser = settled(engine, a=1)
    clock.advance(9.9)
    browser.look()
    assert backend.touches == []
    clock.advance(0.1)
    for _ in range(2):
        browser.look()
    assert backend.touches == [(browser.key, clock.now_ms)]


@pytest.mark.parametrize("verb", [Session.rotate, lambda session: session.login("ann")])
def test_a_rotation_is_told_before_the_old_id_ends(verb: Any) -> None:
    """First the new record, and only when that is confirmed the end of the old one, there and here."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    old_key = browser.key

    async def play() -> None:
        backend.gate = asyncio.Event()
        session = engine.open((browser.header,), is_https=False)
        verb(session)
        settling = asyncio.create_task(engine.settle(engine.commit(session)))
        await asyncio.sleep(0)
        assert [type(change) for change in backend.changes[1:]] == [Whole]
        assert engine.table.state(old_key) == LIVE, "no failure in between logs a user out"
        backend.gate.set()
        await asyncio.wait([settling], timeout=0)
        backend.gate.clear()
        while len(backend.pushes) < 3 and not settling.done():
            await asyncio.wait([settling], timeout=0)
        assert engine.table.state(old_key) == ROTATED, "it is over here when the others are told"
        backend.gate.set()
        await settling
        assert [type(change) for change in backend.changes[1:]] == [Whole, Ended]
        assert backend.changes[-1] == Ended(old_key, Record.unpack(engine.table.get(old_key) or b""))
        assert backend.records[old_key].state == ROTATED
        browser.keep(engine.cookies(session))

    asyncio.run(play())
    assert browser.look() == {"a": 1}


def test_an_end_is_told_to_all() -> None:
    """One message, of which no copy recovers."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    key = browser.key
    with browser.request() as session:
        session.logout()
    assert backend.changes[1:] == [Ended(key, Record.unpack(engine.table.get(key) or b""))]
    assert backend.records[key].state == ENDED
    assert backend.records[key].fields == {}


def test_what_is_set_after_a_logout_is_told_before_the_end() -> None:
    """A new session is born and the old one ends: two messages about two keys."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    key = browser.key
    with browser.request() as session:
        session.logout()
        session["b"] = 2
    assert [type(change) for change in backend.changes[1:]] == [Whole, Ended]
    assert backend.changes[1].key != key == backend.changes[2].key


@pytest.mark.parametrize("fault", [{"is_confirming": False}, {"is_reachable": False}, {"lose": 1}])
def test_a_change_that_is_not_confirmed_is_served_and_counted(fault: dict[str, Any]) -> None:
    """With `degraded=serve` the answer goes out, and the count tells."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    for name, value in fault.items():
        setattr(backend, name, value)
    session = browser.open()
    session["a"] = 2
    assert cookie_names(browser.finish(session)) == ["sid_v"]
    assert engine.stats()["degraded"] == 1
    assert browser.look() == {"a": 2}


def test_a_change_that_is_not_confirmed_is_refused_where_that_is_set() -> None:
    """With `degraded=refuse` SessionUnavailable is raised, and counted all the same."""
    backend, engine = make_pair(degraded="refuse")
    browser = settled(engine, a=1)
    backend.is_confirming = False
    session = browser.open()
    session["a"] = 2
    with pytest.raises(SessionUnavailable, match="ack_timeout"):
        asyncio.run(engine.settle(engine.commit(session)))
    assert engine.stats()["degraded"] == 1


def test_a_rotation_that_is_not_confirmed_leaves_the_old_id_alive() -> None:
    """Refused between the two steps: the browser still has the old id, and is still in."""
    backend, engine = make_pair(degraded="refuse")
    browser = settled(engine, a=1)
    key = browser.key
    backend.lose = 1
    session = browser.open()
    session.login("ann")
    with pytest.raises(SessionUnavailable):
        asyncio.run(engine.settle(engine.commit(session)))
    assert backend.records[key].state == LIVE
    session = browser.open()
    assert (dict(session), session.subject, session.read_only) == ({"a": 1}, None, False)


def test_an_old_id_ends_with_what_was_written_meanwhile() -> None:
    """The end is made when its turn has come: a write that was answered until then is in what the others get."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    other, key = browser.copy(), browser.key
    session = browser.open()
    session.rotate()
    steps = engine.commit(session)
    with other.request() as writing:
        writing["b"] = 2
    written = Record.unpack(engine.table.get(key) or b"")
    asyncio.run(engine.settle(steps))
    ended = backend.changes[-1]
    assert isinstance(ended, Ended)
    assert (ended.record.state, ended.record.covers(written.heads)) == (ROTATED, True)
    assert backend.records[key].same_state(Record.unpack(engine.table.get(key) or b""))


# -- what waits though it changed nothing --------------------------------------------------------------------------------


def test_a_read_waits_for_what_it_contains() -> None:
    """Another request's write is not confirmed yet: who answers with it waits for the same confirmation, once."""
    backend, engine = make_pair(ack="all")
    browser = settled(engine, a=1, cart=["book"])
    key = browser.key
    for name in ("a", "cart"):  # one can change in place, so that only the commit knows it did not
        backend.unsettled.add(key)
        session = browser.open()
        assert session[name]
        steps = engine.commit(session)
        assert steps == [Step(key)]
        asyncio.run(engine.settle(steps))
        assert backend.waits.pop() == (key, "all")
        backend.unsettled.add(key)
        assert engine.commit(session, is_late=True) == [], "its head waited, and has left"
    assert len(backend.pushes) == 1


def test_who_has_not_looked_waits_for_nothing() -> None:
    """Neither an untouched session nor one that is new holds an answer up."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    backend.unsettled |= {browser.key, b""}
    assert engine.commit(browser.open()) == []
    session = engine.open((), is_https=False)
    assert session.new
    assert engine.commit(session) == []


def test_a_settled_session_is_read_without_waiting() -> None:
    """As good as always: nothing is under way."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    assert browser.look() == {"a": 1}
    assert backend.waits == []


@pytest.mark.parametrize("degraded", ["serve", "refuse"])
def test_a_read_whose_wait_is_in_vain_is_degraded(degraded: str) -> None:
    """Counted and served, or refused: as the write would be that it shows."""
    backend, engine = make_pair(degraded=degraded)
    browser = settled(engine, a=1)
    backend.unsettled.add(browser.key)
    backend.is_confirming = False
    session = browser.open()
    assert session["a"] == 1
    if degraded == "serve":
        browser.finish(session)
    else:
        with pytest.raises(SessionUnavailable):
            browser.finish(session)
    assert engine.stats()["degraded"] == 1


# -- ids -----------------------------------------------------------------------------------------------------------------


def test_ids_are_drawn_until_this_server_is_the_first_holder() -> None:
    """The server that creates a session is its primary, so that under sticky routing it is never asked for."""
    asked: list[bytes] = []

    def is_third(key: bytes) -> bool:
        asked.append(key)
        return len(asked) == 3

    backend, engine = make_pair(FakeBackend(is_first=is_third))
    browser = settled(engine, a=1)
    assert len(set(asked)) == 3
    assert list(backend.records) == [asked[2]] == [browser.key]


def test_drawing_ids_is_bounded() -> None:
    """A server that is the first holder of nothing still creates sessions."""
    asked: list[bytes] = []

    def never(key: bytes) -> bool:
        asked.append(key)
        return False

    backend, engine = make_pair(FakeBackend(is_first=never))
    assert settled(engine, a=1).look() == {"a": 1}
    assert len(asked) == DRAWS_MAX
    assert list(backend.records) == asked[-1:]


def test_a_change_waits_for_its_confirmation() -> None:
    """`settle` returns when the others have answered, and takes its steps one after the other."""
    backend, engine = make_pair()

    async def play() -> None:
        backend.gate = asyncio.Event()
        session = engine.open((), is_https=False)
        session["a"] = 1
        settling = asyncio.create_task(engine.settle(engine.commit(session)))
        await asyncio.sleep(0)
        assert (len(backend.pushes), settling.done()) == (1, False)
        backend.gate.set()
        await settling
        assert len(backend.records) == 1

    asyncio.run(play())


def test_without_a_secret_other_servers_are_refused() -> None:
    """A secret that only this process knows is worth nothing among several, on loopback or not."""
    _, engine = make_pair(secret=None)
    with pytest.raises(SettingsError, match="sessile keygen"):
        engine.open((), is_https=False, server="127.0.0.1")
