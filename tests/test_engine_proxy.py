"""The engine where it is no holder: it asks each time, and keeps what it wrote until the holders have it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.backend import Pulled, PullStatus
from sessile.delta import Delta, Outcome
from sessile.engine import WRITERS_RENEWED, WRITERS_WRITTEN_MAX
from sessile.errors import SessionEnded, SessionTooLarge
from sessile.record import ENDED, ROTATED, WRITERS_MAX, Record
from sessile.session import Session
from tests.fakes import FakeBackend, FakeBrowser, FakeClock, make_engine, make_pair, nobody, settled

if TYPE_CHECKING:
    from sessile.engine import Engine
    from sessile.record import Heads


class Pair:
    """A holder and a proxy, each with a backend of its own before the same other holders."""

    def __init__(self, **options: Any) -> None:
        options = {"clock": FakeClock(), **options}
        self.others, self.holder = make_pair(**options)
        self.backend = FakeBackend(records=self.others.records, is_holder=nobody)
        self.proxy = make_engine(seed=2, backend=self.backend, **options)

    def browser(self, **values: Any) -> FakeBrowser:
        """One in a session that the proxy has nothing of; it goes to the proxy."""
        browser = settled(self.holder, **values)
        browser.engine = self.proxy
        return browser

    def drop(self, key: bytes) -> None:
        """Every holder has what was written here: the copy leaves."""
        self.proxy.table.drop(key)

    @property
    def deltas(self) -> list[Delta]:
        return [change for change in self.backend.changes if isinstance(change, Delta)]


def held(engine: Engine, key: bytes) -> Record | None:
    packed = engine.table.get(key)
    return None if packed is None else Record.unpack(packed)


# -- what it keeps -------------------------------------------------------------------------------------------------------


def test_a_read_leaves_nothing_behind() -> None:
    """What was pulled is served, asked for again each time, and not kept."""
    pair = Pair()
    browser = pair.browser(a=1)
    for number in range(1, 3):
        assert browser.look() == {"a": 1}
        assert len(pair.backend.pulls) == number
        assert pair.backend.pulls[-1][1] is None
    assert len(pair.proxy.table) == 0


def test_what_was_written_is_kept_until_told_otherwise_and_asked_for_each_time() -> None:
    """The copy is named in the question; when it has left, the others have what it held."""
    pair = Pair()
    browser = pair.browser(a=1)
    for number in range(2):
        with browser.request() as session:
            session["b"] = number
            session.increment("n")
    assert pair.backend.outcomes == [Outcome.APPLIED] * 2
    (key,) = pair.proxy.table
    kept = held(pair.proxy, key)
    assert kept is not None
    assert kept.same_state(pair.others.records[key])
    assert browser.look() == {"a": 1, "b": 1, "n": 2}
    assert [have is None for _, have, _ in pair.backend.pulls] == [True, False, False]
    assert pair.backend.pulls[-1][1] == kept
    pair.drop(key)
    assert browser.look() == {"a": 1, "b": 1, "n": 2}
    assert len(pair.proxy.table) == 0


def test_a_kept_copy_is_served_with_what_others_wrote_meanwhile() -> None:
    """It is merged with what was pulled, and stays what this server wrote and all it has heard of."""
    pair = Pair()
    browser = pair.browser(a=1)
    with browser.request() as session:
        session["b"] = 1
    pair.others.records.update(pair.backend.records)
    with browser.copy().request(pair.holder) as session:
        assert session["b"] == 1
        session["a"] = 2
    assert browser.look() == {"a": 2, "b": 1}


def test_what_was_written_is_seen_in_the_same_request() -> None:
    """A late write goes on from the first, whether the copy is still here or has left."""
    for leaves in (False, True):
        pair = Pair()
        browser = pair.browser(a=1)
        session = browser.open()
        session["a"] = 2
        browser.finish(session)
        if leaves:
            pair.drop(bytes.fromhex(session.key))
        session.increment("n")
        asyncio.run(pair.proxy.settle(pair.proxy.commit(session, is_late=True)))
        assert browser.look() == {"a": 2, "n": 1}


def test_what_was_written_leaves_memory_without_anybody_asking() -> None:
    """A server that created nothing and holds nothing sweeps all the same; so does one that ended a session."""
    threads = threading.active_count()
    for verb in (lambda session: session.update(b=1), Session.logout):
        pair = Pair()
        browser = pair.browser(a=1)
        pair.holder.close()
        assert threading.active_count() == threads
        with browser.request() as session:
            verb(session)
        assert threading.active_count() == threads + 1
        pair.proxy.close()


def test_the_limits_of_a_session_hold() -> None:
    """What was pulled counts: a session does not grow beyond its limit by way of another server."""
    pair = Pair(session_bytes_max=1_000, value_bytes_max=1_000)
    with pytest.raises(SessionTooLarge):
        pair.browser(a="x" * 800).open()["b"] = "x" * 800


def test_a_touch_is_told() -> None:
    """What is read here only is in use all the same."""
    clock = FakeClock()
    pair = Pair(clock=clock, idle_timeout=100)
    browser = pair.browser(a=1)
    clock.advance(50)
    key = bytes.fromhex(browser.open().key)
    assert pair.backend.touches == [(key, clock.now_ms)]
    assert pair.proxy.stats()["touches"] == 1


# -- ends ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "state"), [(Session.logout, ENDED), (Session.rotate, ROTATED)])
def test_an_end_leaves_a_tombstone(verb: Any, state: int) -> None:
    """Here and at the holders: the old id needs no question any more, and no delta brings it back."""
    pair = Pair()
    browser = pair.browser(a=1)
    late = browser.copy()
    key = bytes.fromhex(browser.open().key)
    with browser.request() as session:
        verb(session)
    tombstone = held(pair.proxy, key)
    assert tombstone is not None
    assert tombstone.state == pair.others.records[key].state == state
    asked = len(pair.backend.pulls)
    session = late.open()
    assert (session.new, session.read_only) == (state == ENDED, state == ROTATED)
    assert len(pair.backend.pulls) == asked


def test_an_end_that_was_heard_of_leaves_a_tombstone() -> None:
    """Who asked and learned that it is over remembers it, so that a slower request brings nothing back."""
    pair = Pair()
    browser = pair.browser(a=1)
    slow, key = browser.open(), bytes.fromhex(browser.open().key)
    slow["a"] = 2
    with browser.copy().request(pair.holder) as session:
        session.logout()
    assert browser.open().new
    assert pair.proxy.table.state(key) == ENDED
    with pytest.raises(SessionEnded):
        pair.proxy.commit(slow)
    assert pair.deltas == []


def test_a_full_server_lets_users_leave() -> None:
    """Without room for a tombstone the end is told all the same."""
    pair = Pair(sessions_max=1)
    browser = pair.browser(a=1)
    settled(pair.proxy, other=1)
    key = bytes.fromhex(browser.open().key)
    late = browser.copy()
    with browser.request() as session:
        session.logout()
    assert browser.cookies == {}
    assert pair.others.records[key].state == ENDED
    assert late.open().new


# -- requests that overlap -----------------------------------------------------------------------------------------------


def test_a_parallel_copy_does_not_hide_what_was_pulled() -> None:
    """An older tab kept a copy that lacks what this browser has seen: it sees both, and so does what it writes."""
    pair = Pair()
    browser = pair.browser(a=1)
    slow = browser.copy().open()
    slow["s"] = 1
    with browser.request(pair.holder) as session:
        session["b"] = 2
    for touches_first in (False, True):
        tab, overtaken = browser.copy(), slow if not touches_first else browser.copy().open()
        overtaken["s"] = 2
        mine = tab.open()
        if touches_first:
            assert mine["b"] == 2
        pair.proxy.commit(overtaken)  # its steps are not taken: the holders do not hear of it
        assert (mine["b"], mine.stale) == (2, False)
        mine["m"] = touches_first
        tab.finish(mine)
        assert tab.look() == {"a": 1, "b": 2, "s": 2, "m": touches_first}
        with tab.request() as session:
            assert not session.stale


def test_a_write_goes_on_from_what_its_request_was_given() -> None:
    """A copy that another request kept meanwhile lacks some of it: the version the browser is told has all."""
    pair = Pair()
    browser = pair.browser(a=1)
    slow = browser.copy().open()
    slow["s"] = 1
    with browser.request(pair.holder) as session:
        session["b"] = 2
    mine = browser.open()
    assert mine["b"] == 2
    pair.proxy.commit(slow)
    mine["m"] = 1
    seen = mine.opened.record
    browser.finish(mine)
    told = mine.opened.record
    assert seen is not None and told is not None
    assert (mine["b"], told.covers(seen.heads)) == (2, True)
    assert pair.deltas[-1].stamp.counter > max(counter for counter, _ in seen.heads)
    assert browser.look() == {"a": 1, "b": 2, "s": 1, "m": 1}


@pytest.mark.parametrize("is_touched", [True, False])
def test_no_stamp_is_given_twice(is_touched: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """A write was made and its copy left while a request was under way, which knows nothing of it: it goes on from there."""
    pair = Pair()
    browser = pair.browser(a=1)
    key = bytes.fromhex(browser.open().key)
    slow = browser.copy().open()
    if is_touched:
        slow["s"] = 1
    with browser.request() as session:
        session["b"] = 2
    writer = pair.proxy.writer
    pair.drop(key)
    slow["s"] = 1
    browser.copy().finish(slow)
    one, two = pair.deltas
    assert one.stamp.writer == two.stamp.writer == writer == pair.proxy.writer
    assert two.base == (one.stamp,)
    assert pair.backend.outcomes == [Outcome.APPLIED] * 2
    assert browser.look() == {"a": 1, "b": 2, "s": 1}


def test_a_write_that_comes_while_others_are_asked_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer was given before it, and its copy has left before the answer is read."""
    pair = Pair()
    browser = pair.browser(a=1)
    writing = browser.copy().open()
    writing["b"] = 2
    before = Pulled(PullStatus.RECORD, pair.others.records[bytes.fromhex(writing.key)])

    async def pull(key: bytes, have: Record | None, heads: Heads) -> Pulled:
        await pair.proxy.settle(pair.proxy.commit(writing))
        pair.drop(key)
        return before

    with monkeypatch.context() as patch:
        patch.setattr(pair.backend, "pull", pull)
        slow = browser.open()
    assert "b" not in slow
    slow["s"] = 1
    browser.finish(slow)
    assert pair.backend.outcomes == [Outcome.APPLIED] * 2
    assert browser.look() == {"a": 1, "b": 2, "s": 1}


def test_a_copy_that_leaves_costs_no_writer() -> None:
    """An open socket writes, the holders have it and the copy leaves, over and over: nothing was missed, one writer."""
    pair = Pair()
    browser = pair.browser(a=1)
    session = browser.open()
    for number in range(5):
        session["n"] = number
        asyncio.run(pair.proxy.settle(pair.proxy.commit(session, is_late=number > 0)))
        for key in pair.proxy.table:
            pair.drop(key)
        for _ in range(2):  # others come and go meanwhile, in their own sessions
            other = pair.browser(a=2)
            with other.request() as unrelated:
                unrelated["b"] = 1
            pair.drop(bytes.fromhex(unrelated.key))
    assert len({delta.stamp.writer for delta in pair.deltas}) == 1
    assert set(pair.backend.outcomes) == {Outcome.APPLIED}
    assert browser.look() == {"a": 1, "n": 4}


def test_no_browser_makes_a_server_draw_tags() -> None:
    """A slow request, a quick one, and the copy leaves, again and again: one writer, however often."""
    pair = Pair()
    browser = pair.browser(a=1)
    key = bytes.fromhex(browser.open().key)
    for number in range(20):
        slow = browser.copy().open()
        with browser.request() as session:
            session["b"] = number
        pair.drop(key)
        slow["s"] = number
        browser.copy().finish(slow)
        pair.drop(key)
    assert len({delta.stamp for delta in pair.deltas}) == 40
    assert {delta.stamp.writer for delta in pair.deltas} == {pair.proxy.writer}
    assert len(pair.others.records[key].version) == 2
    assert browser.look() == {"a": 1, "b": 19, "s": 19}


def test_a_copy_that_came_back_older_is_not_written_to_under_a_stamp_that_was_given() -> None:
    """What this process wrote meanwhile is known to the request, though the table's copy lacks it."""
    pair = Pair()
    browser = pair.browser(a=1)
    key = bytes.fromhex(browser.open().key)
    slow = browser.copy().open()
    before = pair.others.records[key]
    with browser.request() as session:
        session["b"] = 2
    pair.drop(key)
    pair.proxy.table.put(key, before)
    slow["s"] = 1
    browser.copy().finish(slow)
    assert len({delta.stamp for delta in pair.deltas}) == 2
    assert browser.look() == {"a": 1, "b": 2, "s": 1}


def test_a_holder_whose_copy_left_keeps_what_was_written() -> None:
    """It is a holder no more: requests go on from what they opened, those too for which nobody was asked."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    sessions = [engine.open((browser.header,), is_https=False), browser.open()]
    for number, session in enumerate(sessions):
        session[f"of {number}"] = number
    with browser.request() as written:
        written["b"] = 2
    for session in sessions:
        engine.table.drop(browser.key)
        browser.copy().finish(session)
    engine.table.drop(browser.key)
    assert backend.outcomes == [Outcome.APPLIED] * 3
    assert browser.look() == {"a": 1, "b": 2, "of 0": 0, "of 1": 1}


@pytest.mark.parametrize("is_confirmed", [True, False])
def test_a_write_that_may_be_lost_leaves_with_its_writer(is_confirmed: bool) -> None:  # noqa: FBT001  # a parameter
    """A copy runs out here, and the session lives on elsewhere: what nobody else may hold is not written twice."""
    clock = FakeClock()
    pair = Pair(clock=clock, idle_timeout=100)
    browser = pair.browser(a=1)
    other = pair.browser(a=1)
    for each in (other, browser):
        with each.request() as session:
            session["b"] = 2
    key, writer = bytes.fromhex(session.key), pair.proxy.writer
    if not is_confirmed:
        pair.backend.unsettled.add(key)
    clock.advance(112)
    pair.others.records[key] = pair.others.records[key].touch(clock.now_ms)
    pair.proxy.sweep()
    assert len(pair.proxy.table) == 0
    with browser.request() as session:
        session["d"] = 4
    assert (pair.deltas[-1].stamp.writer == writer) is is_confirmed
    assert browser.look() == {"a": 1, "b": 2, "d": 4}


def test_sessions_that_run_out_unconfirmed_draw_one_tag_when_one_is_written_to_again() -> None:
    """Other sessions' writes go on under the tag there is; of too many it is not remembered which, and one is drawn."""
    clock = FakeClock()
    pair = Pair(clock=clock, idle_timeout=100)
    lost = [pair.browser(a=1) for _ in range(3)]
    keys = []
    for each in lost:
        with each.request() as session:
            session["b"] = 2
        keys.append(bytes.fromhex(session.key))
    pair.backend.unsettled.update(keys)
    other = pair.browser(a=1)
    writers = [pair.proxy.writer]
    clock.advance(112)
    pair.proxy.sweep()
    for browser in (pair.browser(a=1), *lost, other):
        for key in (*keys, other.key):
            pair.others.records[key] = pair.others.records[key].touch(clock.now_ms)
        with browser.request() as session:
            session["d"] = 4
        writers.append(pair.deltas[-1].stamp.writer)
    assert writers[0] == writers[1] != writers[2] == writers[3] == writers[4] == writers[5]


def test_of_too_many_lost_sessions_none_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered is bounded: beyond it a new tag is drawn at once, under which every session may be written to."""
    monkeypatch.setattr("sessile.engine.LOST_MAX", 2)
    clock = FakeClock()
    pair = Pair(clock=clock, idle_timeout=100)
    for _ in range(3):
        with pair.browser(a=1).request() as session:
            session["b"] = 2
        pair.backend.unsettled.add(bytes.fromhex(session.key))
    writer = pair.proxy.writer
    clock.advance(112)
    pair.proxy.sweep()
    with pair.browser(a=1).request() as session:
        session["b"] = 2
    assert pair.deltas[-1].stamp.writer != writer


def crowded(pair: Pair, key: bytes, writers: int) -> None:
    """So many processes have written to the session, one after the other."""
    record = pair.others.records[key]
    for writer in range(1, writers + 1 - len(record.version)):
        record, _ = record.write(writer, {}, {"n": 1}, now_ms=record.touched_ms)
    pair.others.records[key] = record


def test_a_session_with_too_many_writers_goes_on_under_a_new_id() -> None:
    """The record is made anew with one writer, nothing is lost, and the browser is told; one fewer, and it is not."""
    pair = Pair()
    for writers, is_renewed in ((WRITERS_RENEWED - 1, False), (WRITERS_RENEWED, True)):
        browser = pair.browser(a=1)
        key = bytes.fromhex(browser.open().key)
        crowded(pair, key, writers)
        before = browser.copy()
        with browser.request() as session:
            session["b"] = 2
        assert (bytes.fromhex(session.key) != key) is is_renewed
        assert browser.look() == {"a": 1, "b": 2, "n": writers - 1}
        if is_renewed:
            assert len(pair.others.records[bytes.fromhex(session.key)].version) == 1
            assert pair.others.records[key].state == ROTATED
            with before.request() as late:
                assert late.read_only
    assert pair.proxy.stats()["renewed"] == 1


def test_a_writer_among_them_goes_on_as_ever() -> None:
    """Only who would add one more makes a new record."""
    pair = Pair()
    browser = pair.browser(a=1)
    key = bytes.fromhex(browser.open().key)
    for _ in range(2):
        with browser.request() as session:
            session.increment("n")
        crowded(pair, key, WRITERS_RENEWED)
    with browser.request() as session:
        session["b"] = 2
    assert bytes.fromhex(session.key) == key
    assert pair.proxy.stats()["renewed"] == 0


def test_after_the_head_more_writers_may_write_and_then_no_more() -> None:
    """No cookie can carry a new id: the session goes on, until it is refused, far below what would not travel."""
    pair = Pair()
    browser = pair.browser(a=1)
    key = bytes.fromhex(browser.open().key)
    for writers, is_refused in ((WRITERS_WRITTEN_MAX - 1, False), (WRITERS_WRITTEN_MAX, True)):
        pair.proxy.draw_writer()
        pair.drop(key)
        crowded(pair, key, writers)
        session = browser.open()
        pair.proxy.cookies(session)
        session["late"] = writers
        if is_refused:
            with pytest.raises(SessionTooLarge, match="processes have written"):
                pair.proxy.commit(session, is_late=True)
        else:
            asyncio.run(pair.proxy.settle(pair.proxy.commit(session, is_late=True)))
    assert browser.look()["late"] == WRITERS_WRITTEN_MAX - 1
    assert 2 * WRITERS_WRITTEN_MAX < WRITERS_MAX


def test_a_session_that_ran_out_while_it_was_used_stores_nothing() -> None:
    """A copy that left is no excuse: SessionEnded, and nobody is told."""
    clock = FakeClock()
    pair = Pair(clock=clock, idle_timeout=100)
    session = pair.browser(a=1).open()
    session["a"] = 2
    clock.advance(100)
    with pytest.raises(SessionEnded):
        pair.proxy.commit(session)
    assert pair.deltas == []


_STEPS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["open", "write", "write", "leave"])), max_size=30)


@given(_STEPS)
def test_whenever_copies_leave_every_write_arrives(steps: list[tuple[int, str]]) -> None:
    """Three tabs open and write, each more than once, and copies leave in between: no delta is taken for another.

    And it is one writer, whatever they do.
    """
    pair = Pair()
    browser = pair.browser(a=1)
    key = bytes.fromhex(browser.open().key)
    tabs = {tab: browser.copy().open() for tab in range(3)}
    written: dict[str, int] = {}
    for number, (tab, step) in enumerate(steps):
        if step == "open":
            tabs[tab] = browser.copy().open()
        elif step == "leave":
            pair.drop(key)
        else:
            tabs[tab][f"of {number}"] = number
            written[f"of {number}"] = number
            asyncio.run(pair.proxy.settle(pair.proxy.commit(tabs[tab])))
    assert pair.backend.outcomes == [Outcome.APPLIED] * len(written)
    assert len({delta.stamp for delta in pair.deltas}) == len(written)
    assert len({delta.stamp.writer for delta in pair.deltas}) <= 1
    assert browser.look() == {"a": 1, **written}
