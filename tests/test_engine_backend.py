"""The engine with other holders: when it asks, what it believes, and what it keeps. What it tells them: beside it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from sessile.errors import SessionUnavailable
from sessile.record import ENDED, Record, Stamp
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


def test_a_copy_that_may_be_old_is_served_after_asking() -> None:
    """It covers what the browser saw; a server that does not hear of every change asks all the same, and names it."""
    backend, engine = make_pair(FakeBackend(is_informed=False))
    browser = settled(engine, a=1)
    held = Record.unpack(engine.table.get(browser.key) or b"")
    for number in range(1, 3):
        assert browser.look() == {"a": 1}
        assert len(backend.pulls) == number
    assert backend.pulls[-1][1] == held
    write_elsewhere(backend, browser.key, a=2)
    assert browser.look() == {"a": 2}


@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_copy_that_may_be_old_is_served_alone_only_where_it_may_be_trusted(is_trusted: bool) -> None:  # noqa: FBT001
    """Nobody answers: served, unless this process may have missed the end of sessions; then it cannot be told."""
    backend, engine = make_pair(FakeBackend(is_informed=False, is_trusted=is_trusted))
    browser = settled(engine, a=1)
    backend.is_reachable = False
    session = browser.open()
    if is_trusted:
        assert (session["a"], session.stale) == (1, False)
    else:
        with pytest.raises(SessionUnavailable, match="pull_timeout"):
            session.get("a")


def test_a_copy_that_leaves_while_others_are_asked_is_still_served() -> None:
    """They said it is the newest, or nothing: that it left meanwhile logs nobody out."""
    for is_reachable in (True, False):
        backend, engine = make_pair(FakeBackend(is_informed=False))
        browser = settled(engine, a=1)
        backend.is_reachable = is_reachable
        session = browser.open()
        forget(engine)
        assert (session["a"], session.stale) == (1, False)
        session["b"] = 2
        browser.finish(session)
        assert browser.look() == {"a": 1, "b": 2}


def test_what_finds_no_room_is_served_and_not_kept() -> None:
    """A full server still answers for a session that it pulled."""
    backend, first = make_pair()
    browser = settled(first, a=1)
    engine = make_engine(seed=2, backend=backend, sessions_max=1)
    settled(engine, other=1)
    session = browser.open(engine)
    assert (session["a"], session.stale) == (1, False)
    assert engine.stats()["sessions"] == 1


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


def test_absence_is_a_new_session(caplog: pytest.LogCaptureFixture) -> None:
    """Everybody was asked and nobody has it: another id, and it is counted; no warning, as no process keeps its own."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    before = browser.cookies["sid"]
    forget(engine)
    backend.records.clear()
    engine._writer = 0
    session = browser.open()
    assert (session.new, dict(session)) == (True, {})
    session["b"] = 2
    browser.finish(session)
    assert browser.cookies["sid"] != before
    assert engine.stats()["unknown_here"] == 1
    assert not caplog.records


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


def test_an_unused_copy_is_held_a_little_longer_than_it_is_served() -> None:
    """It may have been used elsewhere, and word of that be on its way: a tenth of the idle timeout later it goes."""
    clock = FakeClock()
    backend, engine = make_pair(clock=clock, idle_timeout=100)
    browser = settled(engine, a=1)
    key = browser.key
    clock.advance(109)
    engine.sweep()
    assert engine.table.get(key) is not None
    browser.open()
    assert len(backend.pulls) == 1, "it is not served without asking"
    assert browser.open().new
    clock.advance(3)
    engine.sweep()
    assert engine.table.get(key) is None


def test_somebody_else_may_sweep() -> None:
    """With `sweeps=False` no thread is started, neither by a session that is created nor by one that is pulled."""
    threads = threading.active_count()
    clock = FakeClock()
    backend, first = make_pair(sweeps=False, clock=clock)
    browser = settled(first, a=1)
    engine = make_engine(seed=2, backend=backend, sweeps=False, clock=clock)
    assert browser.open(engine)["a"] == 1
    first._after_fork()
    assert threading.active_count() == threads
    clock.advance(10**6)
    for each in (first, engine):
        assert len(each.table) == 1
        each.sweep()
        assert len(each.table) == 0


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


def test_a_browser_whose_version_cookie_is_another_sessions_is_asked_for() -> None:
    """A late answer to the session before took it away: nobody knows what this browser has seen, so others are asked."""
    backend, engine = make_pair()
    browser, before = settled(engine, a=1), settled(engine, a=0)
    name = next(name for name in browser.cookies if name.endswith("_v"))
    browser.cookies[name] = before.cookies[name]
    write_elsewhere(backend, browser.key, a=2)
    assert browser.look() == {"a": 2}
    assert len(backend.pulls) == 1
