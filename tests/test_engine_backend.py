"""The engine with other holders: when it asks, what it believes, and what it keeps. What it tells them: beside it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from sessile.delta import Outcome
from sessile.errors import SessionTooLarge, SessionUnavailable
from sessile.record import ENDED, ROTATED, Record, Stamp
from tests.fakes import (
    ELSEWHERE,
    FakeBackend,
    FakeClock,
    cookie_names,
    encoded,
    make_engine,
    make_pair,
    nobody,
    settled,
)

if TYPE_CHECKING:
    from sessile.engine import Engine


def write_elsewhere(backend: FakeBackend, key: bytes, *, touched_ms: int | None = None, **values: Any) -> Stamp:
    """Another server writes to the session, and the others hold it."""
    held = backend.records[key]
    backend.records[key], stamp = held.write(ELSEWHERE, encoded(**values), now_ms=touched_ms or held.touched_ms)
    return stamp


def forget(engine: Engine) -> None:
    """As after a restart: this server holds nothing any more."""
    for key in list(engine.table):
        engine.table.drop(key)


# -- asking ------------------------------------------------------------------------------------------------------------


def test_a_copy_that_covers_what_the_browser_saw_is_served_without_asking() -> None:
    """Held and covering: no pull, whoever else may have written meanwhile."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    write_elsewhere(backend, browser.key, a=2)
    session = browser.open()
    assert (session["a"], session.stale) == (1, False)
    assert backend.pulls == []


def test_a_browser_without_cookies_of_ours_asks_nobody() -> None:
    """Neither a guess nor a first visit reaches another server."""
    backend, engine = make_pair()
    for header in (b"", b"sid=guess", b"sid=" + b"A" * 44):
        session = engine.open((header,), is_https=False)
        asyncio.run(engine.prepare(session))
        assert session.new
    assert backend.pulls == []


def test_a_missing_copy_is_pulled_and_kept() -> None:
    """A holder that lost it gets it from the others, and has it for the next request."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    forget(engine)
    session = browser.open()
    assert (session["a"], session.new, session.stale) == (1, False, False)
    assert browser.finish(session) == []
    assert len(backend.pulls) == 1
    assert backend.pulls[0][1] is None
    assert browser.look() == {"a": 1}
    assert len(backend.pulls) == 1


def test_an_older_copy_is_pulled_and_merged() -> None:
    """The browser saw a write of another server: what is held here and what is held there become one."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    key = browser.key
    other = make_engine(seed=2, backend=FakeBackend(records=backend.records, is_holder=nobody), clock=FakeClock())
    with browser.request(other) as session:
        session["b"] = 2
    with browser.copy().request(engine) as session:  # an older tab: this write is not in what the browser will show
        session["c"] = 3
    session = browser.open(engine)
    assert dict(session) == {"a": 1, "b": 2, "c": 3}
    _, have, heads = backend.pulls[-1]
    assert have is not None
    assert not have.covers(heads)
    held = engine.table.get(key)
    assert held is not None
    assert Record.unpack(held).covers(heads)


def test_what_the_others_do_not_have_either_is_served_stale() -> None:
    """Nobody covers the version: the best there is, marked, counted, and the version is issued anew."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    key = browser.key
    before = Record.unpack(engine.table.get(key) or b"")
    older = browser.cookies["sid_v"]
    with browser.request() as session:
        session["a"] = 2
    engine.table.put(key, before)
    backend.records[key] = before
    session = browser.open()
    assert (session["a"], session.stale) == (1, True)
    assert cookie_names(browser.finish(session)) == ["sid_v"]
    assert browser.cookies["sid_v"] == older
    assert engine.stats()["stale"] == 1
    assert not browser.open().stale


@pytest.mark.parametrize("is_reachable", [True, False])
def test_a_stale_session_is_refused_where_that_is_set(is_reachable: bool) -> None:  # noqa: FBT001  # a parameter
    """With `stale=refuse` every touch raises, whether the others have not got it or do not answer."""
    backend, engine = make_pair(stale="refuse")
    browser = settled(engine, a=1)
    key = browser.key
    before = Record.unpack(engine.table.get(key) or b"")
    with browser.request() as session:
        session["a"] = 2
    engine.table.put(key, before)
    backend.records[key] = before
    backend.is_reachable = is_reachable
    session = browser.open()
    for _ in range(2):
        with pytest.raises(SessionUnavailable):
            session.get("a")
    assert engine.cookies(session) == []
    assert engine.stats()["stale"] == 1


def test_a_copy_that_is_too_old_is_served_while_nobody_answers() -> None:
    """It is the best there is: stale, by the same setting."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    before = Record.unpack(engine.table.get(browser.key) or b"")
    with browser.request() as session:
        session["a"] = 2
    engine.table.put(browser.key, before)
    backend.is_reachable = False
    session = browser.open()
    assert (session["a"], session.stale) == (1, True)


def test_silence_is_not_absence() -> None:
    """Nothing is held here and nobody answers: SessionUnavailable, at the first touch and not before; no cookie."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    forget(engine)
    backend.is_reachable = False
    untouched = browser.open()
    assert browser.finish(untouched) == []
    session = browser.open()
    for _ in range(2):
        with pytest.raises(SessionUnavailable, match="pull_timeout"):
            session.get("a")
    assert browser.finish(session) == []
    assert engine.stats()["unavailable"] == 2
    backend.is_reachable = True
    assert browser.look() == {"a": 1}


def test_absence_is_a_new_session() -> None:
    """Everybody was asked and nobody has it: another id, and it is counted."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    before = browser.cookies["sid"]
    forget(engine)
    backend.records.clear()
    session = browser.open()
    assert (session.new, dict(session)) == (True, {})
    session["b"] = 2
    browser.finish(session)
    assert browser.cookies["sid"] != before
    assert engine.stats()["unknown_here"] == 1


def test_a_session_that_ended_elsewhere_is_over() -> None:
    """The others tell of the end: nothing is served, and what is set is a new session."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    key = browser.key
    forget(engine)
    backend.records[key] = backend.records[key].end(ENDED, 0)
    session = browser.open()
    assert (session.new, dict(session)) == (True, {})
    assert engine.stats()["sessions"] == 0


def test_a_session_that_ended_here_asks_nobody() -> None:
    """An end is for ever: what others may still hold does not matter."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    thief = browser.copy()
    with browser.request() as session:
        session.logout()
    assert thief.open().new
    assert backend.pulls == []


def test_a_copy_that_ran_out_here_asks_the_others() -> None:
    """Another server touched it: expiry is a local judgement, and the later touch wins."""
    clock = FakeClock()
    backend, engine = make_pair(clock=clock, idle_timeout=100)
    browser = settled(engine, a=1)
    key = browser.key
    clock.advance(101)
    backend.records[key] = backend.records[key].touch(clock.now_ms - 50_000)
    assert browser.look() == {"a": 1}
    clock.advance(99)
    assert browser.look() == {"a": 1}, "the look was a touch"


@pytest.mark.parametrize("is_reachable", [True, False])
def test_a_copy_that_ran_out_here_is_new_only_if_the_others_say_so(is_reachable: bool) -> None:  # noqa: FBT001
    """All answered that they have nothing newer: new. Nobody answered: it cannot be told."""
    clock = FakeClock()
    backend, engine = make_pair(clock=clock, idle_timeout=100)
    browser = settled(engine, a=1)
    clock.advance(101)
    backend.is_reachable = is_reachable
    session = browser.open()
    if is_reachable:
        assert session.new
    else:
        with pytest.raises(SessionUnavailable):
            session.get("a")


def test_pulled_sessions_leave_memory_without_anybody_asking() -> None:
    """A server that only ever got copies sweeps them all the same."""
    backend, first = make_pair()
    browser = settled(first, a=1)
    first.close()
    engine = make_engine(seed=2, backend=backend)
    threads = threading.active_count()
    assert browser.open(engine)["a"] == 1
    assert len(engine.table) == 1
    assert threading.active_count() == threads + 1
    engine.close()


# -- a server that holds nothing of the session ------------------------------------------------------------------------


def test_a_non_holder_keeps_nothing() -> None:
    """It serves what it pulled and asks again each time; reads, writes, rotations and ends leave its table empty."""
    backend, holder = make_pair()
    browser = settled(holder, a=1)
    proxy = make_engine(seed=2, backend=FakeBackend(records=backend.records, is_holder=nobody))
    for number in range(2):
        with browser.request(proxy) as session:
            assert session["a"] == 1
            session["b"] = number
            session.increment("n")
    assert len(proxy.table) == 0
    assert isinstance(proxy.backend, FakeBackend)
    assert len(proxy.backend.pulls) == 2
    assert proxy.backend.outcomes == [Outcome.APPLIED] * 2
    assert browser.open(holder)["b"] == 1
    with browser.request(proxy) as session:
        assert session["n"] == 2
        session.login("ann")
    assert browser.open(proxy).subject == "ann"
    with browser.request(proxy) as session:
        session.logout()
    assert len(proxy.table) == 0
    assert {record.state for record in backend.records.values()} == {ROTATED, ENDED}


def test_a_non_holder_sees_what_it_wrote_itself() -> None:
    """A late write in the same request goes on from the first."""
    backend, holder = make_pair()
    browser = settled(holder, a=1)
    proxy = make_engine(seed=2, backend=FakeBackend(records=backend.records, is_holder=nobody))
    session = browser.open(proxy)
    session["a"] = 2
    browser.finish(session, proxy)
    session.increment("n")
    asyncio.run(proxy.settle(proxy.commit(session, is_late=True)))
    assert browser.open(proxy)["n"] == 1
    assert browser.open(proxy)["a"] == 2


def test_a_non_holder_holds_the_limits_of_a_session() -> None:
    """What was pulled counts: a session does not grow beyond its limit by way of another server."""
    limits: dict[str, Any] = {"session_bytes_max": 1_000, "value_bytes_max": 1_000}
    backend, holder = make_pair(**limits)
    browser = settled(holder, a="x" * 800)
    proxy = make_engine(seed=2, backend=FakeBackend(records=backend.records, is_holder=nobody), **limits)
    with pytest.raises(SessionTooLarge):
        browser.open(proxy)["b"] = "x" * 800
