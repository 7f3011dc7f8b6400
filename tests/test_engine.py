"""The engine without other holders: cookies and ids. Time, secrets, rotation, parallel use, peers: beside it."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.engine import Engine, engine_of
from sessile.errors import SessionUnavailable, SettingsError
from sessile.record import Record
from sessile.session import Session
from sessile.settings import Settings
from tests.fakes import SECRET, FakeBrowser, FakeClock, cookie_names, make_engine, settled

# -- what is stored, and which cookies follow --------------------------------------------------------------------------


def test_building_an_engine_does_nothing() -> None:
    """No randomness is drawn, no thread started, no clock read."""

    def never(*_: object) -> Any:
        raise AssertionError("building an engine must not come here")

    threads = threading.active_count()
    Engine(secret=SECRET, draw=never, clock_ms=never)
    assert threading.active_count() == threads


def test_a_session_that_nobody_touches_costs_nothing() -> None:
    """Neither looked up, nor stored, nor answered with a cookie; a broken cookie is not even counted."""
    engine = make_engine()
    session = engine.open((b"sid=nonsense",), is_https=False)
    assert engine.commit(session) == []
    assert engine.cookies(session) == []
    assert engine.stats()["foreign"] == 0


def test_a_session_never_written_is_never_stored() -> None:
    """Reading, popping defaults and asking for the key store nothing and set no cookie."""
    engine = make_engine()
    browser = FakeBrowser(engine)
    session = browser.open()
    assert session.get("a") is None
    assert session.pop("a", 1) == 1
    assert session.key
    session.clear()
    session.update({})
    assert browser.finish(session) == []
    assert (engine.stats()["sessions"], engine.stats()["created"]) == (0, 0)


def test_the_first_write_sets_both_cookies_and_later_ones_the_version() -> None:
    """The id is set at creation only, the version exactly when it grows, and a read sets nothing."""
    browser = FakeBrowser(make_engine())
    session = browser.open()
    session["a"] = 1
    assert cookie_names(browser.finish(session)) == ["sid", "sid_v"]
    before = dict(browser.cookies)

    session = browser.open()
    assert session["a"] == 1
    assert browser.finish(session) == []

    session = browser.open()
    session["a"] = 1
    assert browser.finish(session) == [], "an equal value is no write"

    session = browser.open()
    session["a"] = 2
    assert cookie_names(browser.finish(session)) == ["sid_v"]
    assert browser.cookies["sid"] == before["sid"]
    assert browser.cookies["sid_v"] != before["sid_v"]


def test_the_key_of_a_new_session_is_the_one_it_is_kept_under() -> None:
    """What a handler logs before the commit is what later requests log."""
    browser = FakeBrowser(make_engine())
    session = browser.open()
    key = session.key
    session["a"] = 1
    browser.finish(session)
    assert session.key == browser.open().key == key
    assert bytes.fromhex(key) in list(browser.engine.table)


def test_a_browser_that_missed_a_version_is_told_by_a_read() -> None:
    """A second tab, or a lost response: the version it has not seen is set although nothing was written."""
    browser = settled(make_engine(), a=1)
    other = browser.copy()
    with browser.request() as session:
        session["a"] = 2
    session = other.open()
    assert session["a"] == 2
    assert cookie_names(other.finish(session)) == ["sid_v"]
    assert other.cookies == browser.cookies
    assert other.finish(other.open()) == []


def test_a_browser_without_a_version_is_told_by_a_read() -> None:
    """The id alone opens the session."""
    browser = settled(make_engine(), a=1)
    del browser.cookies["sid_v"]
    session = browser.open()
    assert session["a"] == 1
    assert cookie_names(browser.finish(session)) == ["sid_v"]


def test_the_id_is_kept_nowhere() -> None:
    """A dump of what the process holds for sessions opens none: records are filed under a hash."""
    drawn: list[bytes] = []

    def draw(size: int) -> bytes:
        drawn.append(bytes([len(drawn) + 65]) * size)
        return drawn[-1]

    engine = Engine(secret=SECRET, draw=draw, clock_ms=FakeClock())
    settled(engine, a=1)
    ids = [data for data in drawn if len(data) == 18]
    held = b"".join(key + (engine.table.get(key) or b"") for key in engine.table)
    assert len(ids) == 1
    assert ids[0] not in held
    assert held
    engine.close()


# -- ids that are not ours ---------------------------------------------------------------------------------------------


def test_an_unknown_id_is_never_adopted() -> None:
    """A valid id of which nothing is known here gives a new session under another id."""
    elsewhere, here = make_engine(seed=1), make_engine(seed=2)
    browser = settled(elsewhere, a=1)
    before = dict(browser.cookies)
    session = browser.open(here)
    assert session.new
    session["b"] = 2
    assert cookie_names(browser.finish(session, here)) == ["sid", "sid_v"]
    assert browser.cookies["sid"] != before["sid"]
    assert here.stats()["unknown_here"] == 1
    assert here.stats()["foreign"] == 0


@pytest.mark.parametrize("place", [0, 20, 43])
def test_a_forged_id_is_foreign_and_never_deleted(place: int) -> None:
    """One changed character anywhere: the cookie is ignored and counted, and no answer touches it."""
    engine = make_engine()
    browser = settled(engine, a=1)
    text = browser.cookies["sid"]
    browser.cookies["sid"] = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
    session = browser.open()
    assert session.new
    session.logout()
    assert browser.finish(session) == []
    assert engine.stats()["foreign"] == 1
    assert engine.stats()["unknown_here"] == 0


def test_the_version_of_another_session_is_ignored() -> None:
    """A version cookie counts only with its own id; another one is foreign, and the right one is set."""
    engine = make_engine()
    mine, other = settled(engine, a=1), settled(engine, b=2)
    with other.request() as session:
        session["b"] = 3
    right = mine.cookies["sid_v"]
    mine.cookies["sid_v"] = other.cookies["sid_v"]
    session = mine.open()
    assert (session["a"], session.stale) == (1, False)
    mine.finish(session)
    assert mine.cookies["sid_v"] == right
    assert engine.stats()["foreign"] == 1


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_several_cookies_of_one_name_are_each_tried(order: tuple[int, ...]) -> None:
    """Garbage and an id that is unknown here do not hide the session that is held, wherever they stand."""
    engine = make_engine()
    browser = settled(engine, a=1)
    ids = [browser.cookies["sid"], "garbage", settled(make_engine(seed=2), x=1).cookies["sid"]]
    header = "; ".join([*(f"sid={ids[place]}" for place in order), f"sid_v={browser.cookies['sid_v']}"])
    session = engine.open((header.encode(),), is_https=False)
    assert session["a"] == 1
    assert engine.cookies(session) == []


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("over", [Session.rotate, Session.logout])
def test_a_living_session_goes_before_one_that_is_over(over: Any, is_first: bool) -> None:  # noqa: FBT001  # a parameter
    """A browser that kept the id of before a rotation, or of an ended session, beside its own is in its own."""
    engine = make_engine()
    old = settled(engine, a="old")
    with old.copy().request() as session:
        over(session)
    new = settled(engine, a="new")
    pairs = [f"sid={old.cookies['sid']}", f"sid={new.cookies['sid']}"]
    session = engine.open(("; ".join(pairs if is_first else reversed(pairs)).encode(),), is_https=False)
    assert (session.get("a"), session.read_only) == ("new", False)


def test_a_foreign_cookie_beside_a_good_one_is_counted() -> None:
    """What fails its MAC is counted wherever it stands, an id and a version alike."""
    engine = make_engine()
    browser = settled(engine, a=1)
    header = f"sid=garbage; sid={browser.cookies['sid']}; sid_v={browser.cookies['sid_v']}; sid_v=rubbish"
    assert engine.open((header.encode(),), is_https=False)["a"] == 1
    assert engine.stats()["foreign"] == 2


TOKENS = st.text(alphabet='AZaz09-_=;, "\\\x00\xff', max_size=60) | st.sampled_from(["sid", "sid_v", "__Host-sid", "="])


@given(st.lists(TOKENS, max_size=12), st.booleans(), st.integers(0, 200), st.integers(0, 255))
def test_no_cookie_header_breaks_in_or_breaks_anything(
    parts: list[str],
    is_https: bool,  # noqa: FBT001  # drawn
    place: int,
    byte: int,
) -> None:
    """Noise, and our own cookies with one byte changed: a new session, or the very one, and never an exception."""
    engine = make_engine()
    browser = settled(engine, a=1)
    noise = "".join(parts).encode("latin-1")
    mutated = bytearray(browser.header)
    mutated[place % len(mutated)] = byte
    for header in (noise, bytes(mutated), noise + b"; " + browser.header, bytes(mutated) + b"; sid=" + noise):
        session = engine.open((header,), is_https=is_https)
        assert session.new or (session["a"] == 1 and browser.cookies["sid"].encode() in header)
        session["b"] = 2
        engine.commit(session)
        engine.cookies(session)


def test_cookies_in_several_headers_are_each_tried() -> None:
    """HTTP/2 may split the Cookie header (RFC 9113 §8.2.3)."""
    engine = make_engine()
    browser = settled(engine, a=1)
    headers = [f"other=1; sid={browser.cookies['sid']}".encode(), f"sid_v={browser.cookies['sid_v']}; x=y".encode()]
    session = engine.open(headers, is_https=False)
    assert session["a"] == 1
    assert engine.cookies(session) == []


def test_several_versions_count_together() -> None:
    """Two version cookies of one session: the browser has seen what either of them says."""
    engine = make_engine()
    browser = settled(engine, a=1)
    old = browser.cookies["sid_v"]
    with browser.request() as session:
        session["a"] = 2
    new = browser.cookies["sid_v"]
    for versions in ((old, new), (new, old)):
        header = f"sid={browser.cookies['sid']}; " + "; ".join(f"sid_v={version}" for version in versions)
        session = engine.open((header.encode(),), is_https=False)
        assert session["a"] == 2
        assert engine.cookies(session) == []


def test_a_session_of_another_process_is_counted_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A valid id whose version names a writer that is not this process: the log names the remedy, once."""
    elsewhere, here = make_engine(seed=1), make_engine(seed=2)
    for _ in range(3):
        assert settled(elsewhere, a=1).open(here).new
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "--workers" in warnings[0]
    assert here.stats()["unknown_here"] == 3


def test_middlewares_with_equal_settings_share_an_engine() -> None:
    """An app and one that is mounted in it know the same sessions; other settings are another table."""
    first = engine_of(secret=SECRET, idle_timeout="7m")
    assert engine_of(secret=SECRET, idle_timeout=420) is first
    assert engine_of(secret=SECRET, idle_timeout="8m") is not first
    assert Engine(secret=SECRET, idle_timeout="7m") is not first


def test_a_session_of_another_engine_of_this_process_is_told_as_such(caplog: pytest.LogCaptureFixture) -> None:
    """The warning names the settings that differ, and `engine=`: no other process is blamed."""
    first = engine_of(secret=SECRET, idle_timeout="7m", fields_max=9)
    second = engine_of(secret=SECRET, idle_timeout="8m", fields_max=9)
    for _ in range(2):
        assert settled(first, a=1).open(second).new
    (line,) = [record.getMessage() for record in caplog.records]
    assert "another engine of this process wrote it, with other settings (idle_timeout)" in line and "engine=" in line
    first.close()


def test_a_session_that_ran_out_of_time_here_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """What this process wrote itself and dropped is counted, but no sign of a missing strategy."""
    clock = FakeClock()
    engine = make_engine(clock=clock)
    browser = settled(engine, a=1)
    clock.advance(1_802)
    engine.sweep()
    assert browser.open().new
    assert engine.stats()["unknown_here"] == 1
    assert not caplog.records


# -- the rest ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", ["auto", True, False])
def test_a_proxy_s_word_for_https_is_noticed_once(secure: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Only where the scheme decides, and only a word for https."""
    engine = make_engine(secure=secure)
    assert engine.doubts_http is (secure == "auto")
    engine.hear_of_proxy(b"http")
    assert not caplog.records
    if secure == "auto":
        engine.hear_of_proxy(b"https")
        engine.hear_of_proxy(b"https")
        assert len(caplog.records) == 1 and not engine.doubts_http
        assert all(word in caplog.text for word in ("secure=true", "SESSILE_SECURE", "Secure", "samesite=none"))


def test_a_host_cookie_over_http_means_that_tls_ended_in_front(caplog: pytest.LogCaptureFixture) -> None:
    """The browser came by HTTPS, so its cookies are set for HTTPS; one warning says so."""
    engine = make_engine()
    browser = FakeBrowser(engine, is_https=True)
    with browser.request() as session:
        session["a"] = 1
    assert sorted(browser.cookies) == ["__Host-sid", "__Host-sid_v"]
    browser.is_https = False
    for value in (2, 3):
        session = browser.open()
        assert session["a"] == value - 1
        session["a"] = value
        set_cookies = browser.finish(session)
        assert cookie_names(set_cookies) == ["__Host-sid_v"]
        assert b"; Secure" in set_cookies[0]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "__Host-" in caplog.text


def test_a_plain_cookie_over_https_does_not_count() -> None:
    """Whoever controls plain HTTP of a host, or a sibling domain, cannot plant a session."""
    browser = settled(make_engine(), a=1)
    browser.is_https = True
    session = browser.open()
    assert session.new
    session["b"] = 1
    assert cookie_names(browser.finish(session)) == ["__Host-sid", "__Host-sid_v"]


def test_a_late_commit_is_counted_and_kept() -> None:
    """What changes after the head has left is stored; a late commit without changes is none."""
    engine = make_engine()
    browser = settled(engine, a=1)
    session = browser.open()
    assert session["a"] == 1
    engine.commit(session, is_late=True)
    assert engine.stats()["late"] == 0
    session["a"] = 2
    engine.commit(session, is_late=True)
    assert engine.stats()["late"] == 1
    assert browser.look() == {"a": 2}


def test_a_browser_that_has_seen_more_is_served_what_there_is() -> None:
    """Nobody else may hold it: the session is stale, counted, and its version is issued anew."""
    engine = make_engine()
    browser = settled(engine, a=1)
    key, before = browser.key, browser.cookies["sid_v"]
    held = engine.table.get(key)
    assert held is not None
    with browser.request() as session:
        session["a"] = 2
    engine.table.put(key, Record.unpack(held))  # as after a restart from a backup
    session = browser.open()
    assert (session["a"], session.stale) == (1, True)
    assert cookie_names(browser.finish(session)) == ["sid_v"]
    assert browser.cookies["sid_v"] == before
    assert not browser.open().stale
    assert engine.stats()["stale"] == 1


def test_a_browser_that_has_seen_more_is_refused_where_that_is_set() -> None:
    """With `stale=refuse` the first touch raises SessionUnavailable, and no cookie is touched."""
    engine = make_engine(stale="refuse")
    browser = settled(engine, a=1)
    key = browser.key
    held = engine.table.get(key)
    assert held is not None
    with browser.request() as session:
        session["a"] = 2
    engine.table.put(key, Record.unpack(held))
    session = browser.open()
    for _ in range(2):
        with pytest.raises(SessionUnavailable):
            session.get("a")
    assert engine.cookies(session) == []


def test_settings_come_as_an_object_or_by_name() -> None:
    """Not both; the error names what is too much."""
    settings = Settings.load(secret=SECRET, idle_timeout=60)
    assert Engine(settings).settings is settings
    assert Engine(secret=SECRET, idle_timeout=60).settings == settings
    with pytest.raises(SettingsError, match="idle_timeout"):
        Engine(settings, idle_timeout=60)


def test_stats_are_numbers_by_name() -> None:
    """Every counter is there from the start, at nothing."""
    stats = make_engine().stats()
    assert set(stats.values()) == {0}
    wanted = {
        "sessions",
        "bytes",
        "created",
        "ended",
        "expired",
        "foreign",
        "unknown_here",
        "late",
        "conflicts",
        "stale",
    }
    assert wanted <= stats.keys()
