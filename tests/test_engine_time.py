"""The engine's sessions run out, and it takes no more of them than it may."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from sessile.errors import SessionEnded, SessionLimit
from sessile.record import ENDED, Record, merge
from sessile.token import HEADS_MAX
from tests.fakes import FakeBrowser, FakeClock, cookie_names, encoded, make_engine, make_pair, settled

if TYPE_CHECKING:
    from sessile.engine import Engine

DEADLINE_S = 10.0


def wait_until_gone(engine: Engine) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while len(engine.table):
        assert time.monotonic() < deadline, "the table was never emptied"
        time.sleep(0.01)


# -- time --------------------------------------------------------------------------------------------------------------


def test_an_idle_session_runs_out() -> None:
    """Nobody asked for it during the idle timeout: what is set then goes into another session with another id."""
    clock = FakeClock()
    browser = settled(make_engine(clock=clock, idle_timeout=100), a=1)
    old = browser.cookies["sid"]
    clock.advance(99.999)
    session = browser.open()
    assert session["a"] == 1
    clock.advance(99.999)
    assert browser.open()["a"] == 1, "the look before was a touch"
    clock.advance(100)
    session = browser.open()
    assert (session.new, dict(session)) == (True, {})
    session["b"] = 2
    assert cookie_names(browser.finish(session)) == ["sid", "sid_v"]
    assert browser.cookies["sid"] != old


def test_a_used_session_ends_at_its_absolute_timeout() -> None:
    """No use prolongs a session beyond the absolute timeout."""
    clock = FakeClock()
    browser = settled(make_engine(clock=clock, idle_timeout=100, absolute_timeout=250), a=1)
    for _ in range(4):
        clock.advance(60)
        with browser.request() as session:
            session.increment("n")
    clock.advance(9.999)
    assert browser.look() == {"a": 1, "n": 4}
    clock.advance(0.001)
    assert browser.open().new


def test_a_session_is_touched_at_most_every_tenth_of_the_idle_timeout() -> None:
    """A touch is counted, changes no version and sets no cookie; a write is a touch of its own."""
    clock = FakeClock()
    engine = make_engine(clock=clock, idle_timeout=100)
    browser = settled(engine, a=1)
    version = browser.cookies["sid_v"]
    for seconds, touches in ((9.999, 0), (0.001, 1), (9.9, 1), (0.1, 2)):
        clock.advance(seconds)
        session = browser.open()
        assert session["a"] == 1
        assert browser.finish(session) == []
        assert engine.stats()["touches"] == touches
    assert browser.cookies["sid_v"] == version
    clock.advance(9)
    with browser.request() as session:
        session["a"] = 2
    clock.advance(9)
    browser.open().mark_accessed()
    assert engine.stats()["touches"] == 2


def test_a_session_that_runs_out_while_it_is_used_stores_nothing() -> None:
    """A handler slower than the idle timeout: SessionEnded, counted, and the session does not come back."""
    clock = FakeClock()
    engine = make_engine(clock=clock, idle_timeout=100)
    for sweeps in (False, True):
        browser = settled(engine, a=1)
        session = browser.open()
        session["a"] = 2
        clock.advance(102)
        if sweeps:
            engine.sweep()
        with pytest.raises(SessionEnded):
            engine.commit(session)
        assert browser.open().new
    assert engine.stats()["conflicts"] == 2


def test_expired_sessions_leave_memory() -> None:
    """A sweep drops what has run out of time, counts it, and leaves the rest."""
    clock = FakeClock()
    engine = make_engine(clock=clock, idle_timeout=100)
    for number in range(50):
        settled(engine, n=number)
    clock.advance(60)
    kept = settled(engine, n="kept")
    clock.advance(42)
    while engine.sweep():
        pass
    stats = engine.stats()
    assert (stats["sessions"], stats["expired"], stats["created"]) == (1, 50, 51)
    assert kept.look() == {"n": "kept"}
    clock.advance(200)
    engine.sweep()
    assert (engine.stats()["sessions"], engine.stats()["bytes"]) == (0, 0)


def test_expired_sessions_leave_memory_without_anybody_asking() -> None:
    """A thread sweeps from the first session on, and again after `close`; it ends with its engine."""
    clock = FakeClock()
    engine = make_engine(clock=clock, idle_timeout=1)
    threads = threading.active_count()
    for _ in range(2):
        settled(engine, a=1)
        assert threading.active_count() == threads + 1
        clock.advance(5)
        wait_until_gone(engine)
        engine.close()
        assert threading.active_count() == threads


def test_an_engine_that_nobody_holds_is_gone() -> None:
    """Neither the sweeper's thread nor the fork hook keeps an engine alive."""
    engine = make_engine()
    settled(engine, a=1)
    find = weakref.ref(engine)
    del engine
    gc.collect()
    assert find() is None


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["sessions_max", "bytes_max"])
def test_a_full_server_refuses_new_sessions(limit: str, caplog: pytest.LogCaptureFixture) -> None:
    """SessionLimit names the setting, and so does one line in the log; nothing is stored, and those who are in stay in."""
    probe = make_engine()
    for number in range(3):
        settled(probe, a=number)
    limits: dict[str, Any] = {"sessions_max": 3, "bytes_max": probe.stats()["bytes"] + 50}
    engine = make_engine(session_bytes_max=500, value_bytes_max=500, **{limit: limits[limit]})
    inside = [settled(engine, a=number) for number in range(3)]
    before = engine.stats()
    browser = FakeBrowser(engine)
    session = browser.open()
    session["a"] = 1
    for _ in range(2):
        with pytest.raises(SessionLimit, match=f"{limit} is .*: raise it"):
            engine.commit(session)
        assert engine.cookies(session) == []
        session = browser.open()
        session["a"] = 1
    assert [f"{limit} is " in record.getMessage() for record in caplog.records] == [True]
    assert engine.stats() == before
    for browser in inside:
        with browser.request() as session:
            session["a"] = 7
        assert browser.look() == {"a": 7}


def test_room_is_free_again_when_a_session_has_left() -> None:
    """The limit is on what is held, not on what was ever created."""
    clock = FakeClock()
    engine = make_engine(clock=clock, sessions_max=1, idle_timeout=100)
    for number in range(3):
        assert settled(engine, n=number).look() == {"n": number}
        clock.advance(102)
        engine.sweep()


def test_a_failed_commit_may_be_repeated() -> None:
    """What was refused for want of room is stored once there is room: the session still has it."""
    clock = FakeClock()
    engine = make_engine(clock=clock, sessions_max=1, idle_timeout=100)
    settled(engine, a=1)
    browser = FakeBrowser(engine)
    session = browser.open()
    session["b"] = 2
    with pytest.raises(SessionLimit):
        engine.commit(session)
    clock.advance(102)
    engine.sweep()
    browser.finish(session)
    assert browser.look() == {"b": 2}


def crowd(engine: Engine, key: bytes) -> Record:
    """What is held for the key after more writers wrote at once than a version cookie may name."""
    held = engine.table.get(key)
    assert held is not None
    base = crowded = Record.unpack(held)
    for writer in range(1, HEADS_MAX + 3):
        parallel, _ = base.write(writer, encoded(**{f"f{writer}": writer}), now_ms=base.touched_ms)
        crowded = merge(crowded, parallel)
    engine.table.put(key, crowded)
    return crowded


def test_more_heads_than_a_cookie_may_name_are_joined() -> None:
    """After many parallel writers even a read writes once, so that the version cookie stays small."""
    engine = make_engine()
    browser = settled(engine, a=1)
    crowded = crowd(engine, browser.key)
    assert len(crowded.heads) > HEADS_MAX
    session = browser.open()
    assert session["f5"] == 5
    assert cookie_names(browser.finish(session)) == ["sid_v"]
    joined = session.opened.record
    assert joined is not None
    assert len(joined.heads) == 1
    assert joined.covers(crowded.heads)
    assert len(browser.cookies["sid_v"]) < 40
    assert browser.finish(browser.open()) == []


def test_a_look_back_with_many_heads_writes_nothing() -> None:
    """The old id of a rotated session may look: that there are too many heads to name is no reason to refuse."""
    engine = make_engine()
    browser = settled(engine, a=1)
    late = browser.copy()
    crowd(engine, browser.key)
    with browser.request() as session:
        session.rotate()
    session = late.open()
    assert (session.read_only, session["f5"]) == (True, 5)
    assert late.finish(session) == []


# -- anonymous sessions ------------------------------------------------------------------------------------------------


def log_in(engine: Engine, user: str) -> FakeBrowser:
    browser = FakeBrowser(engine)
    with browser.request() as session:
        session.login(user)
    return browser


def test_anonymous_sessions_live_shorter() -> None:
    """Until a login binds them to a user; a logout that begins a new session begins an anonymous one."""
    clock = FakeClock()
    engine = make_engine(clock=clock, idle_timeout=1_000, anonymous_timeout=100)
    nobody, ann, out = settled(engine, a=1), settled(engine, a=1), log_in(engine, "bob")
    with ann.request() as session:
        session.login("ann")
    with out.request() as session:
        session.logout()
        session["a"] = 1
    clock.advance(101)
    assert (nobody.look(), out.look(), ann.look()) == ({}, {}, {"a": 1})
    clock.advance(999)
    assert ann.look() == {"a": 1}


def test_a_part_of_the_room_is_kept_for_users() -> None:
    """Visitors without a login are refused before the server is full; users are not."""
    engine = make_engine(sessions_max=20)
    for number in range(18):
        settled(engine, n=number)
    with pytest.raises(SessionLimit, match=r"18 sessions .*sessions_max is 20: raise it.* 10% "):
        settled(engine, n=18)
    users = [log_in(engine, f"user{number}") for number in range(2)]
    assert engine.stats()["sessions"] == 20 and engine.stats()["made_way"] == 0
    assert [user.open().subject for user in users] == ["user0", "user1"]


@pytest.mark.parametrize("has_others", [False, True])
def test_anonymous_sessions_make_way_for_users(has_others: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """One for each login that finds no room, and they end, so that every server knows; users never do."""
    backend, engine = make_pair(sessions_max=10) if has_others else (None, make_engine(sessions_max=10))
    visitors = [settled(engine, n=number) for number in range(9)]
    users = [log_in(engine, f"user{number}") for number in range(10)]
    assert (engine.stats()["sessions"], engine.stats()["made_way"]) == (10, 9)
    assert [user.open().subject for user in users] == [f"user{number}" for number in range(10)]
    assert all(visitor.look() == {} for visitor in visitors)
    if backend is not None:
        assert [record.state for record in backend.records.values()].count(ENDED) == 9
    with pytest.raises(SessionLimit):
        log_in(engine, "one too many")
    assert engine.stats()["made_way"] == 9
