"""The engine gives a session a new id, binds it to a user, and ends it; and what the old id may do afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from sessile.errors import EncodeError, SessionConflict, SessionEnded, SessionLimit, SessionRotated
from sessile.record import REPLACED, ROTATED, Record
from sessile.session import Session
from tests.fakes import FakeBackend, FakeBrowser, FakeClock, cookie_names, encoded, make_engine, make_pair, settled

VERBS = pytest.mark.parametrize("verb", [Session.rotate, lambda session: session.login("ann")], ids=["rotate", "login"])
ENDS = pytest.mark.parametrize("verb", [Session.logout, Session.end], ids=["logout", "end"])
BOTH = ["sid", "sid_v"]


def change(browser: FakeBrowser, verb: Any) -> list[bytes]:
    session = browser.open()
    verb(session)
    return browser.finish(session)


# -- the new id --------------------------------------------------------------------------------------------------------


@VERBS
def test_the_same_session_goes_on_under_a_new_id(verb: Any) -> None:
    """Every field is there, the key is another one, both cookies are set, and it is counted."""
    engine = make_engine()
    browser = settled(engine, a=1, cart=["book"])
    with browser.request() as session:
        session.increment("n", 5)
    old, old_key = browser.cookies["sid"], browser.open().key
    session = browser.open()
    session["b"] = 2
    session["cart"].append("pen")
    session.increment("n")
    session.increment("fresh", 3)
    del session["a"]
    verb(session)
    assert cookie_names(browser.finish(session)) == BOTH
    assert dict(session) == browser.look() == {"b": 2, "cart": ["book", "pen"], "n": 6, "fresh": 3}
    assert browser.cookies["sid"] != old
    assert session.key == browser.open().key != old_key
    assert (engine.stats()["rotated"], engine.stats()["sessions"]) == (1, 1)


@VERBS
def test_the_session_goes_on_in_the_same_request(verb: Any) -> None:
    """What is changed after the head of the response has left goes into the session with the new id."""
    engine = make_engine()
    browser = settled(engine, a=1)
    session = browser.open()
    verb(session)
    browser.finish(session)
    session["late"] = 1
    session.increment("n")
    engine.commit(session, is_late=True)
    assert browser.look() == {"a": 1, "late": 1, "n": 1}


def test_login_binds_a_user_and_rotation_keeps_them() -> None:
    """The subject is the session's until another login or the end."""
    browser = settled(make_engine(), a=1)
    assert browser.open().subject is None
    for verb, subject in (
        (lambda session: session.login("ann"), "ann"),
        (Session.rotate, "ann"),
        (lambda session: session.login("ann"), "ann"),
    ):
        change(browser, verb)
        assert browser.open().subject == subject
    assert browser.look() == {"a": 1}


def test_login_of_somebody_new_creates_a_session() -> None:
    """A first visit may log in at once, with nothing in the session but its user."""
    browser = FakeBrowser(make_engine())
    assert cookie_names(change(browser, lambda session: session.login("ann"))) == BOTH
    session = browser.open()
    assert (session.subject, dict(session), session.new) == ("ann", {}, False)


def test_rotation_of_nothing_is_nothing() -> None:
    """A session that is not stored has no id to change."""
    engine = make_engine()
    browser = FakeBrowser(engine)
    assert change(browser, Session.rotate) == []
    assert engine.stats()["sessions"] == engine.stats()["rotated"] == 0


def test_login_begins_a_new_absolute_timeout_and_rotation_does_not() -> None:
    """Renewing an id prolongs nothing; who logs in has the whole time before them."""
    clock = FakeClock()
    for verb, lives in ((Session.rotate, False), (lambda session: session.login("ann"), True)):
        browser = settled(make_engine(clock=clock, absolute_timeout=2_000), a=1)
        clock.advance(1_500)
        change(browser, verb)
        clock.advance(501)
        assert browser.open().new is not lives
        clock.advance(1_498)
        assert browser.open().new is not lives
        clock.advance(1)
        assert browser.open().new


@pytest.mark.parametrize("is_bytes", [False, True], ids=["sessions", "bytes"])
@pytest.mark.parametrize("has_others", [False, True], ids=["alone", "with others"])
def test_what_replaces_a_session_needs_no_room(is_bytes: bool, has_others: bool) -> None:  # noqa: FBT001  # parameters
    """On a full server who is in may log in, rotate, switch users and begin anew, as often as they like."""
    room: dict[str, Any] = {"sessions_max": 20}
    if is_bytes:
        room = {"bytes_max": 3_000, "session_bytes_max": 500, "value_bytes_max": 500}
    backend, engine = make_pair(**room) if has_others else (None, make_engine(**room))
    browser = FakeBrowser(engine)
    change(browser, lambda session: session.login("ann"))
    with pytest.raises(SessionLimit):  # noqa: PT012  # one of these
        for number in range(99):
            change(FakeBrowser(engine), lambda session, number=number: session.login(f"user{number}"))
    count = engine.stats()["sessions"]
    verbs: list[Any] = [
        Session.rotate,
        lambda session: session.login("ann"),
        lambda session: session.login("bob"),
        lambda session: (session.logout(), session.update(b=1)),
    ]
    for _ in range(10):
        for verb in verbs:
            assert cookie_names(change(browser, verb)) == BOTH
    assert browser.look() == {"b": 1}
    assert engine.stats()["sessions"] == count
    assert engine.table.held_bytes - engine.table.live_bytes <= (3_000 if is_bytes else 2**26) * 0.25 + 500
    assert backend is None or browser.key in backend.records


def test_anonymous_sessions_that_have_grown_make_way_for_a_visitor_who_logs_in() -> None:
    """Sessions that were there may grow beyond `bytes_max`; those who log in need a few bytes more than they had."""
    engine = make_engine(bytes_max=30_000, session_bytes_max=500, value_bytes_max=500)
    browsers = [FakeBrowser(engine) for _ in range(300)]
    with pytest.raises(SessionLimit):  # noqa: PT012  # one of these
        for browser in browsers:
            change(browser, lambda session: session.update(a=1))
    held = [browser for browser in browsers if browser.cookies]
    size = 400
    for browser in held:
        try:
            change(browser, lambda session, size=size: session.update(big="x" * size))
        except SessionLimit:
            size //= 2
    for browser in held[-10:]:
        assert cookie_names(change(browser, lambda session: session.login("ann"))) == BOTH
        assert browser.open().subject == "ann"


def test_what_replaces_a_session_and_is_larger_needs_room() -> None:
    """It may grow the table as any write may, and no further: a rotation that finds no room changes nothing."""
    engine = make_engine(bytes_max=3_000, session_bytes_max=2_000, value_bytes_max=2_000)
    browser = FakeBrowser(engine)
    change(browser, lambda session: session.login("ann"))
    with pytest.raises(SessionLimit):  # noqa: PT012  # one of these
        for number in range(99):
            change(FakeBrowser(engine), lambda session, number=number: session.login(f"user{number}"))
    session = browser.open()
    session["a"] = "x" * 1_900
    session.rotate()
    with pytest.raises(SessionLimit):
        engine.commit(session)
    assert (browser.look(), browser.open().subject) == ({}, "ann")
    assert engine.stats()["rotated"] == 0


# -- the old id --------------------------------------------------------------------------------------------------------


@VERBS
def test_the_old_id_may_look_back_for_a_moment(verb: Any) -> None:
    """It sees what was there before, read-only, never what the new one may do; it sets no cookie; then it is dead."""
    clock = FakeClock()
    engine = make_engine(clock=clock, rotation_grace=10)
    browser = settled(engine, a=1)
    late = browser.copy()
    session = browser.open()
    session["secret"] = "of the new one"
    verb(session)
    browser.finish(session)
    with browser.request() as session:
        session["more"] = 2
    for seconds in (0, 9.999):
        clock.advance(seconds)
        session = late.open()
        assert dict(session) == {"a": 1}
        assert (session.read_only, session.subject, session.new) == (True, None, False)
        assert late.finish(session) == []
    clock.advance(0.001)
    session = late.open()
    assert (session.read_only, session.new, dict(session)) == (False, True, {})
    assert browser.look() == {"a": 1, "secret": "of the new one", "more": 2}


def test_a_second_rotation_does_not_prolong_the_first_grace() -> None:
    """Each old id counts from its own rotation."""
    clock = FakeClock()
    browser = settled(make_engine(clock=clock, rotation_grace=10), a=1)
    oldest = browser.copy()
    change(browser, Session.rotate)
    clock.advance(6)
    older = browser.copy()
    change(browser, Session.rotate)
    clock.advance(6)
    assert oldest.open().new
    assert older.open().read_only
    assert browser.look() == {"a": 1}


@pytest.mark.parametrize(
    "write",
    [
        lambda session: session.update(a=2),
        lambda session: session.increment("n"),
        lambda session: session.login("mallory"),
        Session.rotate,
        Session.logout,
    ],
)
def test_the_old_id_may_not_write(write: Any) -> None:
    """Each write raises SessionRotated where it happens, and the new session never hears of it."""
    browser = settled(make_engine(), a=1)
    late = browser.copy()
    change(browser, lambda session: session.login("ann"))
    session = late.open()
    with pytest.raises(SessionRotated):
        write(session)
    assert late.finish(session) == []
    session = browser.open()
    assert (dict(session), session.subject) == ({"a": 1}, "ann")


def test_a_mutation_with_the_old_id_is_refused_at_the_commit() -> None:
    """A list that was handed out read-only and changed in place: SessionRotated, counted, nothing stored."""
    engine = make_engine()
    browser = settled(engine, cart=["book"])
    late = browser.copy()
    change(browser, Session.rotate)
    session = late.open()
    session["cart"].append("stolen")
    with pytest.raises(SessionRotated):
        engine.commit(session)
    assert engine.stats()["conflicts"] == 1
    assert browser.look() == {"cart": ["book"]}


@VERBS
def test_a_slow_handler_with_the_old_id_is_refused(verb: Any) -> None:
    """It began before the rotation and commits after it: SessionRotated, counted, and neither session has its change."""
    engine = make_engine()
    browser = settled(engine, a=1)
    late = browser.copy()
    slow = late.open()
    slow["a"] = 2
    change(browser, verb)
    with pytest.raises(SessionRotated):
        engine.commit(slow)
    assert engine.stats()["conflicts"] == 1
    assert browser.look() == late.look() == {"a": 1}


def test_two_rotations_at_once_give_one_session() -> None:
    """Of two parallel logins one wins, and the other is told."""
    engine = make_engine()
    browser = settled(engine, a=1)
    late = browser.copy()
    slow = late.open()
    slow.login("bob")
    change(browser, lambda session: session.login("ann"))
    with pytest.raises(SessionConflict):
        engine.commit(slow)
    assert engine.cookies(slow) == []
    assert engine.stats()["sessions"] == 1
    assert browser.open().subject == "ann"


def test_rotated_sessions_leave_memory() -> None:
    """The data goes when the grace is over, the tombstone when it is no longer needed."""
    clock = FakeClock()
    engine = make_engine(clock=clock, rotation_grace=10, tombstone_keep=60)
    browser = settled(engine, a=1)
    old_key = browser.key
    change(browser, Session.rotate)
    held = engine.table.get(old_key)
    assert held is not None
    assert (Record.unpack(held).state, len(Record.unpack(held).fields)) == (ROTATED, 1)
    clock.advance(12)
    engine.sweep()
    held = engine.table.get(old_key)
    assert held is not None
    assert (Record.unpack(held).state, len(Record.unpack(held).fields)) == (REPLACED, 0)
    assert engine.stats()["tombstones"] == 1
    clock.advance(62)
    engine.sweep()
    assert engine.table.get(old_key) is None
    assert (engine.stats()["tombstones"], engine.stats()["sessions"], engine.stats()["expired"]) == (0, 1, 0)


# -- the end -----------------------------------------------------------------------------------------------------------


@ENDS
def test_an_ended_session_is_gone(verb: Any) -> None:
    """Both cookies are removed; the old ones open nothing, at once and for ever; no data stays."""
    engine = make_engine()
    browser = settled(engine, a="something to be forgotten")
    thief = browser.copy()
    set_cookies = change(browser, verb)
    assert cookie_names(set_cookies) == BOTH
    assert all(b"Max-Age=0" in cookie for cookie in set_cookies)
    assert browser.cookies == {}
    session = thief.open()
    assert (session.new, session.subject, dict(session)) == (True, None, {})
    assert (engine.stats()["ended"], engine.stats()["sessions"], engine.stats()["tombstones"]) == (1, 0, 1)
    assert not any(b"forgotten" in (engine.table.get(key) or b"") for key in engine.table)


@ENDS
def test_the_cookies_of_an_ended_session_are_removed_as_they_were_set(verb: Any) -> None:
    """A browser removes a `__Host-` cookie only by one with the same prefix and attributes."""
    browser = FakeBrowser(make_engine(), is_https=True)
    with browser.request() as session:
        session["a"] = 1
    set_cookies = change(browser, verb)
    assert cookie_names(set_cookies) == ["__Host-sid", "__Host-sid_v"]
    assert all(b"; Secure" in cookie and b"Path=/" in cookie for cookie in set_cookies)


@ENDS
def test_ending_nothing_is_nothing(verb: Any) -> None:
    """Who logs out without a session gets no cookie, and nothing is counted."""
    engine = make_engine()
    assert change(FakeBrowser(engine), verb) == []
    assert engine.stats()["ended"] == 0
    assert engine.stats()["tombstones"] == 0


@ENDS
def test_a_slow_handler_after_the_end_brings_nothing_back(verb: Any) -> None:
    """It began before the logout and commits after it: SessionEnded, counted, and the session stays over."""
    engine = make_engine()
    browser = settled(engine, a=1)
    late = browser.copy()
    slow, slower = late.open(), late.open()
    slow["a"] = 2
    slower.rotate()
    change(browser, verb)
    for session in (slow, slower):
        with pytest.raises(SessionEnded):
            engine.commit(session)
    assert engine.stats()["conflicts"] == 2
    assert late.open().new
    assert engine.stats()["sessions"] == 0


def test_what_is_set_after_a_logout_is_a_new_session() -> None:
    """In the same request: a new id, none of the old fields, nobody's user, a whole absolute timeout."""
    clock = FakeClock()
    engine = make_engine(clock=clock, absolute_timeout=2_000)
    browser = settled(engine, a=1)
    change(browser, lambda session: session.login("ann"))
    thief = browser.copy()
    clock.advance(1_500)
    session = browser.open()
    old_key = session.key
    session["a"] = 5
    session.logout()
    session["b"] = 2
    session.increment("n", 3)
    set_cookies = browser.finish(session)
    assert cookie_names(set_cookies) == BOTH
    assert not any(b"Max-Age=0" in cookie for cookie in set_cookies)
    assert session.key != old_key
    assert browser.look() == {"b": 2, "n": 3}
    assert browser.open().subject is None
    assert thief.open().new
    clock.advance(1_700)
    assert browser.look() == {"b": 2, "n": 3}


def test_login_after_logout_is_another_users_session() -> None:
    """Switching users in one request takes nothing along."""
    browser = settled(make_engine(), a=1)
    change(browser, lambda session: session.login("ann"))
    session = browser.open()
    session.logout()
    session.login("bob")
    browser.finish(session)
    session = browser.open()
    assert (dict(session), session.subject) == ({}, "bob")


def test_a_second_end_in_another_request_is_harmless() -> None:
    """Two tabs log out at once: both are told that they are out."""
    engine = make_engine()
    browser = settled(engine, a=1)
    other = browser.copy()
    slow = other.open()
    slow.logout()
    change(browser, Session.logout)
    other.finish(slow)
    assert browser.cookies == other.cookies == {}
    assert engine.stats()["tombstones"] == 1


def test_no_delta_brings_an_ended_session_back() -> None:
    """A record that another server still holds alive does not resurrect one that ended here."""
    engine = make_engine()
    browser = settled(engine, a=1)
    thief = browser.copy()
    key = browser.key
    held = engine.table.get(key)
    assert held is not None
    alive, _ = Record.unpack(held).write(99, encoded(a=2), now_ms=0)
    change(browser, Session.logout)
    engine._merge_in(key, alive)
    assert thief.open().new
    assert engine.stats()["sessions"] == 0


# -- a request that began before ---------------------------------------------------------------------------------------

WRITES = pytest.mark.parametrize(
    "write",
    [lambda session: session.update(a=2), lambda session: session.login("mallory"), Session.rotate, Session.logout],
    ids=["set", "login", "rotate", "logout"],
)
AGES = pytest.mark.parametrize("age_s", [10, 12, 100, 5_000], ids=["grace over", "stripped", "forgotten", "long ago"])


def grown_old(engine: Any, clock: FakeClock, seconds: float) -> None:
    """Let time pass, and what is due leave memory."""
    clock.advance(seconds)
    while engine.sweep():
        pass


@AGES
@WRITES
@VERBS
def test_a_request_with_a_rotated_id_never_sets_an_id_cookie(verb: Any, write: Any, age_s: int) -> None:
    """However late it touches the session: it sees nothing, its writes are refused, and the login's cookies still count."""
    clock = FakeClock()
    engine = make_engine(clock=clock, rotation_grace=10, tombstone_keep=60, idle_timeout=10_000)
    browser = settled(engine, a=1)
    slow, slower = browser.open(), browser.copy().open()
    assert slower["a"] == 1
    change(browser, verb)
    grown_old(engine, clock, age_s)
    assert (dict(slow), slow.subject, slow.new) == ({}, None, True)
    for session in (slow, slower):
        with pytest.raises(SessionConflict):  # noqa: PT012  # where it is raised depends on when the session was opened
            write(session)
            engine.commit(session)
        browser.keep(engine.refusal_cookies(session))
        assert "sid" not in cookie_names([*engine.cookies(session), *engine.refusal_cookies(session)])
    assert browser.look() == {"a": 1}
    assert engine.stats()["sessions"] == 1


@pytest.mark.parametrize("write", [lambda session: session.update(a=2), lambda session: session.login("ann")])
@pytest.mark.parametrize("state", [ROTATED, REPLACED])
def test_a_request_that_found_nothing_begins_no_session_beside_the_new_one(write: Any, state: int) -> None:
    """Found by simulation: holders denied the session, and what replaced it became known while the request ran."""
    browser = settled(make_engine(), a=1)
    _, elsewhere = make_pair(FakeBackend())
    slow = browser.open(elsewhere)
    assert dict(slow) == {}
    opened = browser.open()
    assert opened["a"] == 1
    record = opened.opened.record
    assert record is not None
    elsewhere.table.put(browser.key, record.end(state, elsewhere.clock_ms()))
    write(slow)
    with pytest.raises(SessionRotated):
        elsewhere.commit(slow)
    assert elsewhere.stats()["sessions"] == 0


@AGES
def test_a_browser_that_never_got_the_new_id_may_begin_anew(age_s: int) -> None:
    """The answer with the new id was lost. The next answer tells that the old id is over; presented again, it is as good as none."""
    clock = FakeClock()
    engine = make_engine(clock=clock, rotation_grace=10, tombstone_keep=60)
    browser = settled(engine, a=1)
    cut_off = browser.copy()
    change(browser, lambda session: session.login("ann"))
    grown_old(engine, clock, age_s)
    assert cut_off.look() == {} and cookie_names(cut_off.finish(cut_off.open())) == []
    session = cut_off.open()
    session.login("ann")
    assert cookie_names(cut_off.finish(session)) == BOTH
    assert cut_off.open().subject == "ann"


def test_a_refused_write_tells_the_browser_that_its_id_is_over() -> None:
    """A page that only ever writes is refused once, and not for as long as the rotation is remembered."""
    clock = FakeClock()
    engine = make_engine(clock=clock, rotation_grace=10)
    browser = settled(engine, a=1)
    cut_off = browser.copy()
    change(browser, Session.rotate)
    assert engine.refusal_cookies(cut_off.open()) == []
    clock.advance(10)
    session = cut_off.open()
    with pytest.raises(SessionRotated):
        session["b"] = 2
    cut_off.keep(engine.refusal_cookies(session))
    with cut_off.request() as session:
        session["b"] = 2
    assert cut_off.look() == {"b": 2}


def test_of_two_cookies_the_rotated_one_gives_way() -> None:
    """A browser may present both, of two paths: once the grace is over, the one that is unknown here may live elsewhere."""
    clock = FakeClock()
    engine = make_engine(clock=clock, rotation_grace=10)
    browser = settled(engine, a=1)
    old = browser.cookies["sid"]
    other = settled(make_engine(clock=clock, seed=2), b=1)
    change(browser, Session.rotate)
    for seconds, is_old in ((0, True), (12, False)):
        grown_old(engine, clock, seconds)
        session = engine.open((f"sid={other.cookies['sid']}; sid={old}".encode(),), is_https=False)
        assert session.read_only is is_old
    session["c"] = 1


# -- another user ------------------------------------------------------------------------------------------------------


def logged_in(engine: Any, **fields: Any) -> FakeBrowser:
    """A browser whose session is Ann's."""
    browser = settled(engine, **fields)
    change(browser, lambda session: session.login("ann"))
    return browser


def test_another_users_login_starts_empty() -> None:
    """Nothing of the session that was there goes over: not what was read, set, counted or changed in place in that request."""
    engine = make_engine()
    browser = logged_in(engine, a=1, cart=["book"])
    old_key = browser.key
    session = browser.open()
    session["cart"].append("pen")
    session["b"] = 2
    session.increment("n")
    session.login("bob")
    assert (dict(session), session.subject) == ({}, "bob")
    session["c"] = 3
    assert cookie_names(browser.finish(session)) == BOTH
    assert (browser.look(), browser.open().subject) == ({"c": 3}, "bob")
    assert browser.key != old_key and engine.table.state(old_key) == REPLACED
    assert (engine.stats()["sessions"], engine.stats()["ended"]) == (1, 1)


def test_a_login_keeps_what_it_names() -> None:
    """Of another user's session, with what this request made of it; a name that is not there is no mistake."""
    browser = logged_in(make_engine(), a=1, cart=["book"], n=3)
    session = browser.open()
    session["cart"].append("pen")
    session.increment("n")
    session.login("bob", keep=("cart", "n", "nothing"))
    session["cart"].append("ink")
    browser.finish(session)
    assert (browser.look(), browser.open().subject) == ({"cart": ["book", "pen", "ink"], "n": 4}, "bob")


def test_a_login_after_a_logout_keeps_what_it_names() -> None:
    """Also for the same user; what was set since the logout stays as it was set."""
    for user in ("ann", "bob"):
        browser = logged_in(make_engine(), a=1, b=2, c=3)
        session = browser.open()
        session.logout()
        session["b"] = "new"
        session.login(user, keep=["a", "b"])
        browser.finish(session)
        assert (browser.look(), browser.open().subject) == ({"a": 1, "b": "new"}, user)


@pytest.mark.parametrize("user", ["ann", ""], ids=["the same user", "nobody"])
def test_a_login_of_the_same_user_or_of_nobody_keeps_everything(user: str) -> None:
    """A visitor's cart goes with them, and who logs in again loses nothing, whatever `keep` says."""
    engine = make_engine()
    browser = logged_in(engine, a=1, b=2) if user else settled(engine, a=1, b=2)
    change(browser, lambda session: session.login("ann", keep=("a",)))
    assert (browser.look(), browser.open().subject) == ({"a": 1, "b": 2}, "ann")


def test_a_login_keeps_sets_and_lists_that_merge() -> None:
    """With what this request added and discarded, in their order; they go on merging under the new id, the empty ones as well."""
    browser = logged_in(make_engine(), a=1)
    with browser.request() as session:
        for value in ("book", "pen", ("a", 1)):
            session.add_to("cart", value)
            session.append_to("seen", value)
        session.add_to("empty", 1)
        session.add_to("other", 1)
    session = browser.open()
    session.discard_from("cart", "book")
    session.discard_from("empty", 1)
    session.add_to("cart", "ink")
    session.append_to("seen", "ink")
    session.login("bob", keep=("cart", "seen", "empty"))
    kept = {"cart": ("pen", ("a", 1), "ink"), "seen": ("book", "pen", ("a", 1), "ink"), "empty": ()}
    assert dict(session) == kept
    with pytest.raises(TypeError, match="set that merges"):
        session.append_to("empty", 1)
    browser.finish(session)
    assert browser.look() == kept
    with browser.request() as one, browser.request() as other:
        one.add_to("cart", "one")
        other.add_to("cart", "other")
        other.append_to("seen", "other")
    assert sorted(map(str, browser.look()["cart"])) == ["('a', 1)", "ink", "one", "other", "pen"]
    assert browser.look()["seen"] == (*kept["seen"], "other")


def test_an_item_that_was_changed_in_place_is_not_kept_without_a_word() -> None:
    """As at a commit."""
    browser = logged_in(make_engine(), a=1)
    with browser.request() as session:
        session.add_to("orders", [1])
    session = browser.open()
    session["orders"][0].append(2)
    with pytest.raises(EncodeError, match="'orders'"):
        session.login("bob", keep=["orders"])


def test_keep_takes_several_names() -> None:
    """A str would be taken for its letters."""
    session = logged_in(make_engine(), a=1).open()
    with pytest.raises(TypeError, match="'cart',"):
        session.login("bob", keep="cart")
    assert (dict(session), session.subject) == ({"a": 1}, "ann")


def test_two_logins_in_one_request_leave_the_last() -> None:
    """The first user's fields do not go over to the second."""
    browser = FakeBrowser(make_engine())
    session = browser.open()
    session.login("ann")
    session["a"] = 1
    session.login("bob")
    session["b"] = 2
    browser.finish(session)
    assert (browser.look(), browser.open().subject) == ({"b": 2}, "bob")


@AGES
@pytest.mark.parametrize("verbs", [("login",), ("logout", "login")], ids=" and ".join)
def test_a_slow_request_does_not_undo_another_users_login(verbs: tuple[str, ...], age_s: int) -> None:
    """The session of before may not be looked back at, at once; what the slow request writes is refused, however late."""
    clock = FakeClock()
    engine = make_engine(clock=clock, rotation_grace=10, tombstone_keep=60, idle_timeout=10_000)
    browser = logged_in(engine, a=1)
    at_once, slow, slower = browser.copy(), browser.open(), browser.copy().open()
    assert slower["a"] == 1

    def switch(session: Session) -> None:
        for verb in verbs:
            getattr(session, verb)(*["bob"][: verb == "login"])

    change(browser, switch)
    assert at_once.look() == {}
    grown_old(engine, clock, age_s)
    for session in (slow, slower):
        with pytest.raises(SessionConflict):  # noqa: PT012  # as above
            session.logout()
            session["a"] = 2
            engine.commit(session)
        assert "sid" not in cookie_names([*engine.cookies(session), *engine.refusal_cookies(session)])
    assert browser.open().subject == "bob"
