"""Connections that stay open: what keeps a session alive over them, how they see what others changed, and how they hear of its end."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from sessile.errors import (
    EncodeError,
    SessionConflict,
    SessionEnded,
    SessionRotated,
    SessionTooLarge,
    SessionUnavailable,
)
from sessile.session import Session
from tests.asgi_client import AsgiBrowser, engine_of, fields, put, sends, wrapped
from tests.fakes import ELSEWHERE, FakeBrowser, FakeClock, make_engine, make_pair, nobody, settled
from tests.test_asgi_websocket import CONNECT, socket, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.engine import Engine
    from tests.asgi_client import Receive, Send

WITHIN_S = 10.0


def lasting(browser: FakeBrowser) -> Session:
    """A session of a connection that stays open."""
    session = browser.engine.open((browser.header,), is_https=False, is_lasting=True)
    if browser.engine.backend is not None:
        asyncio.run(browser.engine.prepare(session))
    session.open()
    browser.engine.cookies(session)
    return session


# -- what keeps it alive -----------------------------------------------------------------------------------------------

USES: dict[str, Callable[[Session], object]] = {
    "read": lambda session: session["a"],
    "get": lambda session: session.get("nothing"),
    "names": list,
    "in": lambda session: "a" in session,
    "reload": Session.reload,
    "message": lambda session: session._opener.used(session),
}


@pytest.mark.parametrize("has_others", [False, True])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_what_is_a_use(use: Callable[[Session], object], has_others: bool) -> None:  # noqa: FBT001  # a parameter
    """Each look over a socket, and each message; others are told, at most ten times in an idle timeout."""
    clock = FakeClock()
    settings: dict[str, Any] = {"clock": clock, "idle_timeout": 100}
    backend, engine = make_pair(**settings) if has_others else (None, make_engine(**settings))
    browser = settled(engine, a=1)
    session = lasting(browser)
    for _ in range(60):
        clock.advance(5)
        use(session)
        engine.sweep()
    assert browser.look() == {"a": 1}
    assert 20 <= engine.stats()["touches"] <= 31
    assert backend is None or len(backend.touches) == engine.stats()["touches"]
    clock.advance(101)
    use_is_refused = use is Session.reload
    if use_is_refused:
        with pytest.raises(SessionEnded):
            use(session)
    else:
        use(session)
    assert browser.look() == {}


def test_a_server_that_holds_no_copy_tells_of_the_use() -> None:
    """And its socket may still write after hours."""
    clock = FakeClock()
    backend, engine = make_pair(clock=clock, idle_timeout=100)
    browser = settled(engine, a=1)
    backend.is_holder = nobody
    engine.table.drop(browser.key)
    session = lasting(browser)
    for _ in range(30):
        clock.advance(30)
        assert session["a"] == 1
    assert len(backend.touches) == 30
    session["b"] = 2
    asyncio.run(engine.settle(engine.commit(session, is_late=True)))
    assert sorted(backend.records[browser.key].fields) == ["a", "b"]


def test_the_messages_of_a_socket_keep_its_session_alive() -> None:
    """Those of the browser, if the socket has looked at the session; a socket that has not leaves it alone."""
    for is_used in (True, False):
        clock = FakeClock()
        browser = wrapped(put(a=1), engine=make_engine(clock=clock, idle_timeout=100))
        browser.ask()

        async def app(scope: Any, receive: Receive, send: Send, *, looks: bool = is_used) -> None:
            if looks:
                scope["session"].get("a")
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                clock.advance(30)  # noqa: B023  # called in this turn

        messages = [CONNECT, *[text("hello")] * 9, {"type": "websocket.disconnect"}]
        browser.ask(*messages, app=socket(app, engine_of(browser)), kind="websocket")
        assert fields(browser, engine_of(browser)) == ({"a": 1} if is_used else {})


# -- reload ------------------------------------------------------------------------------------------------------------


def test_a_holder_reloads_at_once() -> None:
    """What others set, removed and counted is there without awaiting; what this request has not committed stays."""
    browser = settled(make_engine(), a=1, cart=["book"], gone=1, n=1, mine=1)
    session = lasting(browser)
    assert dict(session) == {"a": 1, "cart": ["book"], "gone": 1, "n": 1, "mine": 1}
    session["mine"] = 2
    session.increment("n")
    with browser.copy().request() as other:
        other.update(a=2, mine=9, new=1)
        other["cart"].append("pen")
        other.increment("n", 5)
        del other["gone"]
    session.reload()
    assert dict(session) == {"a": 2, "cart": ["book", "pen"], "n": 7, "mine": 2, "new": 1}
    browser.engine.commit(session, is_late=True)
    assert browser.look() == dict(session)


@pytest.mark.parametrize("verb", [Session.rotate, lambda session: session.login("ann")], ids=["rotate", "login"])
def test_a_socket_that_logged_in_before_it_was_accepted_reloads(verb: Callable[[Session], object]) -> None:
    """Found by an attack: the login was committed, and still refused every reload until the session was looked at."""
    browser = settled(make_engine(), a=1)
    session = browser.open()
    verb(session)
    with pytest.raises(SessionConflict, match="commit comes first"):
        session.reload()
    browser.finish(session)
    with browser.copy().request() as other:
        other["a"] = 2
    session.reload()
    assert session["a"] == 2


def test_a_reload_counts_on_what_became_unreadable() -> None:
    """Found by an attack: it raised half way, and another counter lost what was added to it."""
    browser = settled(make_engine(), n=1, k=5)
    session = lasting(browser)
    session.increment("n")
    session.increment("k")
    held = browser.engine._held(browser.key)
    assert held is not None
    record, _ = held.write(ELSEWHERE, {"n": b"\xc1"}, {"k": 10}, now_ms=held.touched_ms)
    browser.engine._merge_in(browser.key, record)
    session.reload()
    assert (session["n"], session["k"]) == (2, 16)
    browser.engine.commit(session, is_late=True)
    assert browser.look() == {"n": 2, "k": 16}


def test_collections_are_read_anew_after_a_reload() -> None:
    """Those that hold objects as well: what was handed out of them is the handler's own from then on."""
    browser = settled(make_engine(), a=1)
    with browser.request() as session:
        session.add_to("cart", ["book"])
    session = lasting(browser)
    assert session["cart"] == (["book"],)
    with browser.copy().request() as other:
        other.add_to("cart", ["pen"])
    session.reload()
    session["a"] = 2
    browser.engine.commit(session, is_late=True)
    assert session["cart"] == (["book"], ["pen"])


def test_what_is_not_committed_counts_for_the_room_after_a_reload() -> None:
    """So a session does not grow beyond its limit by reloading."""
    browser = settled(make_engine(session_bytes_max=2000, value_bytes_max=1900), a=1)
    session = lasting(browser)
    session["b"] = "x" * 1200
    session.reload()
    with pytest.raises(SessionTooLarge):
        session["c"] = "x" * 900


def test_a_change_in_place_survives_a_reload() -> None:
    """It is an assignment that was not committed yet; the object that the handler has stays the one that counts."""
    browser = settled(make_engine(), cart=["book"])
    session = lasting(browser)
    cart = session["cart"]
    cart.append("pen")
    with browser.copy().request() as other:
        other["a"] = 1
    session.reload()
    cart.append("ink")
    browser.engine.commit(session, is_late=True)
    assert browser.look() == {"cart": ["book", "pen", "ink"], "a": 1}


def test_a_reload_reads_collections_anew() -> None:
    """With the items of others, and those of this request which are not committed yet, last."""
    browser = settled(make_engine(), a=1)
    with browser.request() as first:
        first.add_to("cart", "book")
        first.append_to("seen", "/")
    session = lasting(browser)
    assert (session["cart"], session["seen"]) == (("book",), ("/",))
    session.add_to("cart", "mine")
    assert session["cart"] == ("book", "mine")
    with browser.copy().request() as other:
        other.add_to("cart", "pen")
        other.discard_from("cart", "book")
        other.append_to("seen", "/pen")
    session.reload()
    assert (session["cart"], session["seen"]) == (("pen", "mine"), ("/", "/pen"))
    browser.engine.commit(session, is_late=True)
    assert browser.look() == {"a": 1, "cart": ("pen", "mine"), "seen": ("/", "/pen")}


def test_a_reload_after_an_item_was_changed_in_place_is_refused() -> None:
    """What the handler changed could not be kept, and must not be lost without a word."""
    browser = settled(make_engine(), a=1)
    with browser.request() as first:
        first.add_to("orders", [1])
    session = lasting(browser)
    session["orders"][0].append(2)
    with pytest.raises(EncodeError, match="'orders'"):
        session.reload()


def test_after_a_reload_the_room_is_counted_anew() -> None:
    """Room that this request gave back is not given back again when others make the same field small."""
    browser = settled(make_engine(session_bytes_max=1_000, value_bytes_max=1_000), big="x" * 700)
    session = lasting(browser)
    with pytest.raises(SessionTooLarge):
        session["more"] = "y" * 400
    session["big"] = "x"
    with browser.copy().request() as other:
        other["big"] = "y"
    session.reload()
    session["more"] = "y" * 400
    session["much"] = "y" * 400
    with pytest.raises(SessionTooLarge):
        session["too"] = "y" * 400
    browser.engine.commit(session, is_late=True)
    assert sorted(browser.look()) == ["big", "more", "much"]


def test_a_commit_of_what_is_no_counter_any_more_takes_no_lock_twice() -> None:
    """What the handler saw becomes an assignment; to look at it while the table is locked is no use of the session."""
    clock = FakeClock()
    browser = settled(make_engine(clock=clock, idle_timeout=100), n=1)
    session = lasting(browser)
    session.increment("n")
    with browser.copy().request() as other:
        other["n"] = "text"
    clock.advance(20)
    late = threading.Thread(target=browser.engine.commit, args=(session,), kwargs={"is_late": True}, daemon=True)
    late.start()
    late.join(WITHIN_S)
    assert not late.is_alive() and browser.look() == {"n": 2}


def test_elsewhere_a_reload_is_awaited() -> None:
    """A server that holds no copy asks one that does; a thread without a loop waits."""
    backend, engine = make_pair(idle_timeout=100)
    browser = settled(engine, a=1)
    backend.is_holder = nobody
    engine.table.drop(browser.key)
    for is_async in (True, False):
        session = lasting(browser)
        record, _ = backend.records[browser.key].write(99, {"b": b"\x02"}, now_ms=0)
        backend.records[browser.key] = record

        async def run(session: Session = session) -> None:
            await session.reload()

        asyncio.run(run()) if is_async else session.reload()
        assert dict(session) == {"a": 1, "b": 2}
    backend.is_reachable = False
    with pytest.raises(SessionUnavailable):
        session.reload()


@pytest.mark.parametrize(
    ("end", "error"), [(Session.logout, SessionEnded), (Session.rotate, SessionRotated)], ids=["logout", "rotate"]
)
@pytest.mark.parametrize("is_holder", [None, True, False], ids=["alone", "a holder", "a proxy"])
def test_a_reload_tells_of_the_end(end: Any, error: type[SessionConflict], is_holder: bool | None) -> None:  # noqa: FBT001
    """Whatever this server holds; also long afterwards."""
    clock = FakeClock()
    backend, engine = (None, make_engine(clock=clock)) if is_holder is None else make_pair(clock=clock)
    browser = settled(engine, a=1)
    if backend is not None and is_holder is False:
        backend.is_holder = nobody
        engine.table.drop(browser.key)
    session = lasting(browser)
    with browser.copy().request() as other:
        end(other)
    for seconds in (0, 20, 700):
        clock.advance(seconds)
        engine.sweep()
        with pytest.raises(error):
            session.reload()


def test_a_session_that_is_not_stored_has_nothing_to_reload() -> None:
    """And a login that was not committed yet comes first."""
    engine = make_engine()
    session = FakeBrowser(engine).open()
    session.reload()
    assert dict(session) == {}
    session = settled(engine, a=1).open()
    session.login("ann")
    with pytest.raises(SessionConflict, match="commit comes first"):
        session.reload()


# -- being told of the end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Session.logout, Session.rotate, lambda session: session.login("ann")])
@pytest.mark.parametrize("is_holder", [None, True], ids=["alone", "a holder"])
def test_a_socket_is_told_of_the_end(end: Any, is_holder: bool | None) -> None:  # noqa: FBT001
    """It waits beside what serves the socket, and then closes it."""
    engine = make_engine() if is_holder is None else make_pair()[1]
    browser = AsgiBrowser(socket(sends(put(a=1)), engine))
    browser.ask()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        session = scope["session"]
        session.get("a")
        await send({"type": "websocket.accept"})
        ended = asyncio.create_task(session.until_ended())
        while not engine._watchers:  # noqa: ASYNC110  # whatever it does before it waits
            await asyncio.sleep(0)
        await browser.copy().call(app=socket(sends(end), engine))
        await asyncio.wait_for(ended, WITHIN_S)
        await send({"type": "websocket.close", "code": 4401})

    got = browser.ask(CONNECT, app=socket(app, engine), kind="websocket")
    assert got.types == ["websocket.accept", "websocket.close"]
    assert len(engine._watchers) == 0


def waits(engine: Engine, session: Session, then: Callable[[], object]) -> None:
    """Wait for the end while this happens."""

    async def run() -> None:
        ended = asyncio.create_task(session.until_ended())
        while not engine._watchers and not ended.done():  # noqa: ASYNC110  # as above
            await asyncio.sleep(0)
        assert not ended.done(), "it is not over yet"
        then()
        await asyncio.wait_for(ended, WITHIN_S)

    asyncio.run(run())


def test_running_out_of_time_is_an_end() -> None:
    """As soon as the sweep finds it."""
    clock = FakeClock()
    engine = make_engine(clock=clock, idle_timeout=100)
    session = lasting(settled(engine, a=1))

    def run_out() -> None:
        clock.advance(103)
        engine.sweep()

    waits(engine, session, run_out)


def test_where_nobody_tells_others_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without a copy, or on a store that tells of nothing, asks every few seconds."""
    monkeypatch.setattr("sessile.engine.ASK_S", 0.01)
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    backend.is_holder = nobody
    engine.table.drop(browser.key)
    session = lasting(browser)
    key = browser.key

    def end_elsewhere() -> None:
        backend.records[key] = backend.records[key].end(2, 0)

    waits(engine, session, end_elsewhere)


def test_what_is_over_or_not_stored_is_not_waited_for() -> None:
    """The wait ends at once."""
    engine = make_engine()
    browser = settled(engine, a=1)
    session = lasting(browser)
    with browser.request() as other:
        other.logout()
    for each in (session, FakeBrowser(engine).open()):
        asyncio.run(asyncio.wait_for(each.until_ended(), WITHIN_S))
