"""The engine under requests that overlap: by hand, by threads, and after a fork."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile import forks
from sessile.engine import Engine
from sessile.errors import SessionEnded
from sessile.record import Record
from sessile.wsgi import SessionMiddleware
from tests.fakes import SECRET, FakeBrowser, make_engine, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE_S = 20.0


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads change places as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run_together(*targets: Callable[[], None]) -> None:
    """Run them in threads that start at one moment; an exception in any of them is raised here."""
    start = threading.Barrier(len(targets))
    raised: list[BaseException] = []

    def run(target: Callable[[], None]) -> None:
        try:
            start.wait(DEADLINE_S)
            target()
        except BaseException as error:  # noqa: BLE001  # raised again below
            raised.append(error)

    threads = [threading.Thread(target=run, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    if raised:
        raise raised[0]
    assert not any(thread.is_alive() for thread in threads)


# -- interleaved by hand -----------------------------------------------------------------------------------------------


def test_parallel_requests_on_different_fields_lose_nothing() -> None:
    """Eight requests are opened before the first commits; each field is there at the end."""
    browser = settled(make_engine(), a=0)
    sessions = [browser.open() for _ in range(8)]
    for number, session in enumerate(sessions):
        session[f"field{number}"] = number
    for session in reversed(sessions):
        browser.finish(session)
    assert browser.look() == {"a": 0, **{f"field{number}": number for number in range(8)}}


def test_parallel_increments_all_count() -> None:
    """Each of eight overlapping requests sees its own sum, and the session has them all."""
    browser = settled(make_engine(), n=100)
    sessions = [browser.open() for _ in range(8)]
    assert [session.increment("n", 1 + number) for number, session in enumerate(sessions)] == list(range(101, 109))
    for session in sessions:
        browser.finish(session)
    assert browser.look() == {"n": 136}


def test_parallel_writes_to_one_field_leave_the_last() -> None:
    """One of them wins, whole: the one that was committed last."""
    browser = settled(make_engine(), cart=["book"])
    sessions = [browser.open() for _ in range(3)]
    for number, session in enumerate(sessions):
        session["cart"].append(number)
    for number in (2, 0, 1):
        browser.finish(sessions[number])
    assert browser.look() == {"cart": ["book", 1]}


def test_an_assignment_that_comes_between_wins_over_earlier_increments_only() -> None:
    """Increments count from the assignment that the session has when they are committed."""
    browser = settled(make_engine(), n=1)
    early, late, assigning = browser.open(), browser.open(), browser.open()
    early.increment("n", 10)
    late.increment("n", 100)
    assigning["n"] = 50
    browser.finish(early)
    browser.finish(assigning)
    assert browser.look() == {"n": 50}
    browser.finish(late)
    assert browser.look() == {"n": 150}


def test_an_increment_of_what_is_no_longer_an_int_becomes_an_assignment() -> None:
    """The field was given a text meanwhile: what the handler saw is what is stored, and nothing raises."""
    for verb in (lambda _: None, lambda session: session.rotate()):
        browser = settled(make_engine(), n=1)
        adding, assigning = browser.open(), browser.open()
        adding.increment("n", 10)
        adding["other"] = 1
        verb(adding)
        assigning["n"] = "text"
        browser.finish(assigning)
        browser.finish(adding)
        assert browser.look() == {"n": 11, "other": 1}


def test_a_removed_field_and_an_increment_meet() -> None:
    """Removed in one request and incremented in another that committed later: it counts from nothing."""
    browser = settled(make_engine(), n=41)
    adding, removing = browser.open(), browser.open()
    adding.increment("n")
    del removing["n"]
    browser.finish(removing)
    browser.finish(adding)
    assert browser.look() == {"n": 1}


def test_a_session_goes_on_from_what_others_committed() -> None:
    """After its first commit a session has the fields of the requests that were faster, but its own objects stay."""
    browser = settled(make_engine(), cart=["book"])
    slow, fast = browser.open(), browser.open()
    mine = slow["cart"]
    mine.append("pen")
    fast["other"] = 1
    browser.finish(fast)
    browser.finish(slow)
    assert slow["other"] == 1
    assert slow["cart"] is mine
    mine.append("ink")
    browser.engine.commit(slow, is_late=True)
    assert browser.look() == {"cart": ["book", "pen", "ink"], "other": 1}


def test_what_was_only_read_is_never_written_back() -> None:
    """A list that this request looked at and another one changed: later commits of this request leave it alone."""
    browser = settled(make_engine(), cart=["book"])
    slow, fast = browser.open(), browser.open()
    assert slow["cart"] == ["book"]
    fast["cart"].append("pen")
    browser.finish(fast)
    for number in range(2):
        slow["mine"] = number
        browser.engine.commit(slow, is_late=True)
        assert browser.look() == {"cart": ["book", "pen"], "mine": number}


def test_a_rotation_takes_along_what_was_committed_meanwhile() -> None:
    """A parallel write that was answered before the rotation is in the session with the new id."""
    browser = settled(make_engine(), a=1)
    rotating, writing = browser.open(), browser.open()
    rotating.login("ann")
    writing["b"] = 2
    writing.increment("n", 5)
    browser.finish(writing)
    browser.finish(rotating)
    assert browser.look() == {"a": 1, "b": 2, "n": 5}


_STEPS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["open", "add", "set", "finish"])), max_size=40)


@given(_STEPS)
def test_no_interleaving_loses_an_increment(steps: list[tuple[int, str]]) -> None:
    """Four tabs open, add, write their own field and commit in any order: the sum is that of all committed ones."""
    browser = settled(make_engine(), n=0)
    tabs: dict[int, list[Any]] = {}
    total, fields = 0, {"n": 0}
    for tab, step in steps:
        session, added, value = tabs.setdefault(tab, [browser.open(), 0, None])
        if step == "add":
            session.increment("n", tab + 1)
            tabs[tab][1] += tab + 1
        elif step == "set":
            tabs[tab][2] = session[f"of {tab}"] = session.get(f"of {tab}", 0) + 1
        elif step == "finish":
            browser.finish(session)
            total += added
            if value is not None:
                fields[f"of {tab}"] = value
            del tabs[tab]
        else:
            tabs[tab] = [browser.open(), 0, None]
    assert browser.look() == {**fields, "n": total}


# -- threads -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eager_threads")
def test_threads_lose_nothing() -> None:
    """Eight threads increment one counter and write a field each, in one session; some only read. All is there."""
    browser = settled(make_engine(), n=0)
    engine = browser.engine
    cookies = dict(browser.cookies)

    def work(tab: int) -> None:
        mine = FakeBrowser(engine)
        mine.cookies = dict(cookies)
        for number in range(100):
            with mine.request() as session:
                assert not session.new
                session.increment("n")
                session[f"of {tab}"] = number
            with mine.request() as session:
                assert session[f"of {tab}"] == number, "a request sees what the one before it wrote"

    run_together(*(lambda tab=tab: work(tab) for tab in range(8)))
    assert browser.look() == {"n": 800, **{f"of {tab}": 99 for tab in range(8)}}
    assert engine.stats()["conflicts"] == 0
    assert engine.stats()["created"] == 1


@pytest.mark.usefixtures("eager_threads")
def test_readers_never_see_a_session_disappear() -> None:
    """While one thread writes, others read with the very same cookies: never new, never going back."""
    browser = settled(make_engine(), n=0)
    engine = browser.engine
    done = threading.Event()

    def read() -> None:
        mine, last = browser.copy(), 0
        while not done.is_set():
            session = engine.open((mine.header,), is_https=False)
            assert not session.new
            assert session["n"] >= last
            last = session["n"]

    def write() -> None:
        try:
            for _ in range(300):
                with browser.copy().request() as session:
                    session.increment("n")
        finally:
            done.set()

    run_together(read, read, read, write)
    assert browser.look() == {"n": 300}


@pytest.mark.usefixtures("eager_threads")
def test_one_of_many_logouts_and_writes_is_the_last() -> None:
    """However writes and one logout meet, the session is over when all is done."""
    for _ in range(20):
        browser = settled(make_engine(), n=0)
        engine, copies = browser.engine, [browser.copy() for _ in range(4)]

        def write(mine: FakeBrowser, engine: Engine = engine) -> None:
            session = mine.open()
            if session.new:
                return
            session.increment("n")
            with contextlib.suppress(SessionEnded):
                engine.commit(session)

        def leave(mine: FakeBrowser = copies[0]) -> None:
            with mine.request() as session:
                session.logout()

        run_together(leave, *(lambda mine=mine: write(mine) for mine in copies[1:]))
        assert browser.open().new
        assert engine.stats()["sessions"] == 0


# -- fork --------------------------------------------------------------------------------------------------------------


def in_a_child(work: Callable[[], bytes], fork: Callable[[], int] = os.fork) -> bytes:
    """What `work` returns in a forked process; nothing, of one that is stuck."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12 warns of a fork beside threads: that is the test
        pid = fork()
    if pid == 0:
        try:
            os.write(writing, work())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        is_stuck = not select.select([stream], [], [], DEADLINE_S)[0]
        if is_stuck:
            os.kill(pid, signal.SIGKILL)
        told = stream.read()
    os.waitpid(pid, 0)
    return told


def test_forked_processes_draw_their_own_writers() -> None:
    """The parent has drawn its tag; each child draws another one, and the parent keeps its own."""
    engine = Engine(secret=SECRET)
    before = engine.writer
    writers = [int(in_a_child(lambda: b"%d" % engine.writer)) for _ in range(2)]
    assert len({before, *writers}) == 3
    assert engine.writer == before


def test_a_child_goes_on_with_the_sessions_of_its_parent() -> None:
    """Both may write to a session from before the fork, under their own tags."""
    browser = settled(Engine(secret=SECRET), n=1)
    engine = browser.engine
    key = browser.key

    def work() -> bytes:
        with browser.request() as session:
            session.increment("n")
        held = engine.table.get(key)
        assert held is not None
        return b"%d %d" % (browser.look()["n"], len(Record.unpack(held).version))

    assert in_a_child(work) == b"2 2"
    assert browser.look() == {"n": 1}


def test_a_child_has_a_lock_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork by the very thread that holds the lock waits in vain, and does not leave the child waiting for ever."""
    monkeypatch.setattr(forks, "HOLD_S", 0.01)
    browser = settled(Engine(secret=SECRET), n=1)
    engine = browser.engine

    def work() -> bytes:
        with browser.request() as session:
            session.increment("n")
        return b"done"

    with engine.lock:
        assert in_a_child(work) == b"done"


def test_a_table_is_copied_between_two_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork waits for the thread that is changing the table, and that thread goes on afterwards."""
    monkeypatch.setattr(forks, "HOLD_S", DEADLINE_S)
    engine = Engine(secret=SECRET)
    is_changing, may_go_on = threading.Event(), threading.Event()
    steps: list[str] = []

    def change() -> None:
        with engine.lock:
            is_changing.set()
            may_go_on.wait(DEADLINE_S)
            steps.append("changed")

    changing = threading.Thread(target=change)
    changing.start()
    is_changing.wait(DEADLINE_S)
    threading.Timer(0.05, may_go_on.set).start()
    assert in_a_child(lambda: repr(steps).encode()) == b"['changed']"
    changing.join()
    assert not engine.lock.locked()


def test_a_child_is_not_about_to_stop() -> None:
    """Its parent is: that is no news of the child, which serves for as long as it wants."""
    engine = Engine(secret=SECRET)
    engine.is_draining = True
    assert in_a_child(lambda: b"%d" % engine.is_draining) == b"0"
    assert engine.is_draining


def test_a_fork_that_bypasses_python_is_noticed() -> None:
    """As uWSGI's do: the child still writes under its own tag, whatever it inherited."""
    engine = Engine(secret=SECRET)
    before = engine.writer

    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["sessile.session"]["n"] = 1
        start_response("200 OK", [])
        return []

    def work() -> bytes:
        environ = {"uwsgi.version": b"2.0", "wsgi.url_scheme": "http", "SERVER_NAME": "127.0.0.1", "PATH_INFO": "/"}
        SessionMiddleware(app, engine=engine)(environ, lambda *_: lambda _: None)
        return b"%d" % (engine.writer != before)

    assert in_a_child(work, fork=ctypes.PyDLL(None).fork) == b"1"
    assert engine.writer == before


def has_a_sweeper(engine: Engine) -> bool:
    """Whether the engine's own thread runs; other engines that are still in memory have theirs."""
    return engine._sweeper is not None and engine._sweeper._thread.is_alive()


def test_a_child_sweeps() -> None:
    """The thread of the parent is not in the child: where there are sessions, its first request starts another one."""
    engine = Engine(secret=SECRET)
    settled(engine, n=1)

    def work() -> bytes:
        assert not has_a_sweeper(engine), "a child that serves nobody has no thread"
        engine.open((), is_https=False)
        engine.clock_ms = lambda: 10**15
        deadline = time.monotonic() + DEADLINE_S
        while len(engine.table) and time.monotonic() < deadline:
            time.sleep(0.01)
        return b"%d %d" % (len(engine.table), has_a_sweeper(engine))

    assert in_a_child(work) == b"0 1"
    assert len(engine.table) == 1


def test_a_child_of_an_empty_engine_has_no_thread() -> None:
    """A server that is loaded before it forks starts nothing in its children until there is a session."""
    engine = Engine(secret=SECRET)

    def work() -> bytes:
        before = has_a_sweeper(engine)
        settled(engine, n=1)
        return b"%d %d" % (before, has_a_sweeper(engine))

    assert in_a_child(work) == b"0 1"
