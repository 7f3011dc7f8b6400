"""Every setting at its bounds and one beyond; and that what the bounds allow fits into what servers and browsers take."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.bounds import BOUNDS, is_taken, refusal
from sessile import codec
from sessile.cookies import CookiePolicy
from sessile.delta import Delta
from sessile.errors import SessionTooLarge
from sessile.record import (
    BYTES_MAX,
    COUNTER_MAX,
    FIELDS_MAX,
    HELD_BYTES_MAX,
    REPLACED,
    ROTATED,
    WRITER_BITS,
    WRITERS_MAX,
    WRITTEN_BYTES_MAX,
    WRITTEN_FIELDS_MAX,
    Record,
    Stamp,
    merge,
)
from sessile.replication.intake import message_of
from sessile.replication.messages import Answered, Whole
from sessile.replication.repair import BATCH_BYTES
from sessile.replication.wire import encode
from sessile.session import NAME_BYTES_MAX, Limits, Opened, Session
from sessile.settings import Settings
from sessile.table import HOT_RECORD_BYTES_MAX, Table
from sessile.token import HEADS_MAX, ID_BYTES, Identity, Keyring, key_of
from tests.fakes import FakeBrowser, FakeOpener, make_engine
from tests.loading import load

if TYPE_CHECKING:
    from collections.abc import Iterable


def test_every_setting_has_its_bounds_here() -> None:
    """A setting that is new is entered above, so that somebody decides how far it may go."""
    assert set(BOUNDS) == {each.name for each in fields(Settings)}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_setting_at_its_bounds_is_taken(name: str) -> None:
    """By keyword; and an engine that is alone is built with it."""
    bound = BOUNDS[name]
    for value in bound.inside:
        assert is_taken(name, value), refusal(name, value)
        if "url" not in bound.given:
            make_engine(**{**bound.given, name: value}).close()


@pytest.mark.parametrize("name", BOUNDS)
def test_a_setting_beyond_its_bounds_is_refused_in_one_line(name: str) -> None:
    """The line names the setting and ends with what to do."""
    for value in BOUNDS[name].outside:
        message = refusal(name, value)
        assert message.startswith(name), message
        assert "\n" not in message and (": " in message or "did you mean" in message), message


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("session_bytes_max", "3MiB", "could not be sent to other servers in one piece: keep large values elsewhere"),
        ("fields_max", 5_000, "other servers would not take a session with more: keep a few fields"),
        ("value_bytes_max", "2MiB", "keep the value elsewhere and its key in the session"),
        ("path", "/" + 2_000 * "x", "up to 1024"),
    ],
)
def test_a_limit_that_follows_from_another_says_so(name: str, value: Any, says: str) -> None:
    """Why there is no more, and what to do instead."""
    assert says in refusal(name, value)


# -- what travels --------------------------------------------------------------------------------------------------------


def largest(writer: int, *, fields_max: int = 2, size: int = WRITTEN_BYTES_MAX) -> Record:
    """As much as one server may write into a session that others fill as well."""
    born = Record.create(now_ms=1, idle_ms=1, deadline_ms=10**12, subject="é" * (NAME_BYTES_MAX // 2))
    base, _ = born.write(1, {"x": b"\x01"}, now_ms=1)
    each = size // fields_max
    values = {f"{writer:08}{n:08}": bytes(each - 16) for n in range(fields_max)}
    return base.write(writer, values, now_ms=1)[0]


@pytest.mark.parametrize(
    ("servers", "fields_max"), [(7, 2), (3, WRITTEN_FIELDS_MAX)], ids=["bytes", "fields and their names"]
)
def test_what_several_servers_fill_at_the_same_time_travels_as_one(servers: int, fields_max: int) -> None:
    """Seven times `session_bytes_max`, three times `fields_max` (and the fourth is refused): held, sent and taken."""
    merged = largest(2, fields_max=fields_max)
    for writer in range(3, 2 + servers):
        merged = merge(merged, largest(writer, fields_max=fields_max))
    table = Table(sessions_max=9, bytes_max=2**40, rotation_grace_ms=1, tombstone_keep_ms=1)
    packed = table.put(bytes(16), merged)
    assert len(packed) > (servers - 1) * WRITTEN_BYTES_MAX
    assert Record.parse(packed) == merged
    assert Record.parse(merged.shift(10**12).pack())
    others = tuple((bytes(16), bytes(BATCH_BYTES)) for _ in range(1))
    encode(Whole(10**12, (*others, (bytes(16), packed))))
    encode(Answered(2**53, 1, 10**12, packed))
    written, stamp = merged.write(99, dict.fromkeys(merged.fields, b"\x01"), now_ms=2)
    delta = Delta.of(written, bytes(16), merged, stamp, names=written.fields, counted=())
    encode(message_of(delta, 1))
    assert Delta.parse(delta.pack()) == delta


def test_one_more_is_refused_and_changes_nothing() -> None:
    """What would not travel is not held: the session says so itself."""
    table = Table(sessions_max=9, bytes_max=2**40, rotation_grace_ms=1, tombstone_keep_ms=1)
    merged = largest(2)
    before = table.put(bytes(16), merged)
    for writer in range(3, 12):
        merged = merge(merged, largest(writer))
    with pytest.raises(SessionTooLarge, match=r"more than any other server takes.*end it, or lower these"):
        table.put(bytes(16), merged)
    assert table.get(bytes(16)) is before
    table.offer(bytes(16), merged)
    assert table.get(bytes(16)) is before
    held = Record.unpack(table.put(bytes(16), merged.end(ROTATED, 5)))
    assert (held.state, held.fields, held.ended_ms) == (REPLACED, {}, 5), "that it is over always has room"


@pytest.mark.parametrize(("writers", "fields_max"), [(WRITERS_MAX + 1, 1), (1, FIELDS_MAX + 1)])
def test_too_many_writers_or_fields_are_refused_as_too_many_bytes(writers: int, fields_max: int) -> None:
    """However small they are."""
    record = Record.create(now_ms=1, idle_ms=1, deadline_ms=10**12)
    for writer in range(1, writers + 1):
        record, _ = record.write(writer, {}, now_ms=1)
    record, _ = record.write(1, {str(n): b"\x01" for n in range(fields_max)}, now_ms=1)
    assert len(record.pack()) > HOT_RECORD_BYTES_MAX
    table = Table(sessions_max=9, bytes_max=2**40, rotation_grace_ms=1, tombstone_keep_ms=1)
    with pytest.raises(SessionTooLarge):
        table.put(bytes(16), record)


def test_the_limits_leave_room_for_each_other() -> None:
    """What is held is taken, on whatever clock; what settings allow is a part of it."""
    assert HELD_BYTES_MAX < BYTES_MAX < 2**24 - 2 * BATCH_BYTES
    assert 4 * WRITTEN_FIELDS_MAX <= FIELDS_MAX
    assert 7 * WRITTEN_BYTES_MAX < HELD_BYTES_MAX
    assert codec.VALUE_BYTES_MAX < WRITTEN_BYTES_MAX


def fill(session: Session, names: Iterable[str], value: Any) -> None:
    """Set one name after the other until one is refused."""
    with pytest.raises(SessionTooLarge):
        session.update(dict.fromkeys(names, value))


@pytest.mark.parametrize(
    "limits", [{}, {"session_bytes_max": "2MiB", "value_bytes_max": "1984KiB", "fields_max": 4_096}]
)
def test_a_session_at_the_limits_of_its_settings_is_stored(limits: dict[str, Any]) -> None:
    """Filled by its handler until it is refused, with names of the greatest length: what is stored travels."""
    engine = make_engine(**limits)
    browser = FakeBrowser(engine)
    with browser.request() as session:
        session.login("é" * (NAME_BYTES_MAX // 2))
        fill(session, (f"{number:05}" + "é" * 125 for number in range(FIELDS_MAX)), b"x" * 200)
    (key,) = engine.table
    packed = engine.table.get(key)
    assert packed is not None
    record = Record.parse(packed)
    assert len(record.fields) in {engine.settings.fields_max, len(browser.look())}
    assert record.travels(7 * len(packed))


def test_a_session_that_parallel_writes_made_too_large_may_shrink() -> None:
    """Only what makes it larger still is refused."""
    engine = make_engine(session_bytes_max=1_000, value_bytes_max=1_000)
    browser = FakeBrowser(engine)
    with browser.request() as session:
        session["x"] = 1
    tabs = [browser.copy().open() for _ in range(2)]
    for number, tab in enumerate(tabs):
        tab[f"of {number}"] = "x" * 800
    for tab in tabs:
        browser.copy().finish(tab)
    with browser.request() as session:
        with pytest.raises(SessionTooLarge):
            session["y"] = "y" * 10
        session["of 0"] = "x" * 700
        del session["of 1"]
        session["y"] = "y" * 10
    assert {name: len(str(value)) for name, value in browser.look().items()} == {"x": 1, "of 0": 700, "y": 10}


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdé"), st.sampled_from(["set", "add", "del", "end", "keep"]), st.integers(0, 60)),
        max_size=40,
    )
)
def test_the_limit_is_held_to_the_byte(steps: list[tuple[str, str, int]]) -> None:
    """Whatever a handler does: an assignment is refused exactly when names and values would take more."""
    limit = 120
    engine = make_engine(session_bytes_max=limit, value_bytes_max=limit)
    browser = FakeBrowser(engine)
    with browser.request() as session:
        session["kept"] = "x" * 20
    session = browser.open()
    sizes = {"kept": 4 + 22}  # removed names count as well
    for name, step, size in steps:
        if step == "set":
            data = codec.encode("x" * size)
            after = sizes | {name: len(name.encode()) + len(data)}
            try:
                session[name] = "x" * size
            except SessionTooLarge:
                assert sum(after.values()) > max(limit, sum(sizes.values()))
            else:
                assert sum(after.values()) <= limit
                sizes = after
        elif step == "add" and type(session.get(name, 0)) is int:
            with suppress(SessionTooLarge):
                session.increment(name)
        elif step == "del" and name in session:
            del session[name]
            sizes[name] = len(name.encode())  # at the most
        elif step == "end":
            session.end()
            sizes = {}
        elif step == "keep":
            browser.finish(session)
            session = browser.open()
        if any(session.get(each) is not None and type(session[each]) is int for each in session):
            return  # what a counter takes is an estimate
        assert sum(len(each.encode()) for each in session) <= limit


def test_filling_a_session_takes_time_in_proportion() -> None:
    """Thousands of fields, and all of them again at the limit: no assignment looks at all the others."""
    looks = 0

    class Counted(Session):
        def _size_of(self, name: str) -> int:
            nonlocal looks
            looks += 1
            return super()._size_of(name)

    session = Counted(FakeOpener(Opened()), Limits(4_000, 1_000, 50_000))
    fill(session, (f"{number:05}" for number in range(4_000)), "x" * 10)
    count = len(session)
    for _ in range(2):
        for name in list(session):
            session[name] = "y" * 10
            del session[name]
            session[name] = "z" * 10
    assert looks < 20 * count


def test_a_name_is_counted_by_its_bytes() -> None:
    """Four bytes for one character: the limit on the session is on what is stored."""
    engine = make_engine(session_bytes_max=1_000, value_bytes_max=1_000)
    with FakeBrowser(engine).request() as session:
        fill(session, ("\U0001f600" * 20 + str(number) for number in range(20)), 1)
    assert all(len(engine.table.get(key) or b"") < 1_200 for key in engine.table)


# -- cookies -------------------------------------------------------------------------------------------------------------


def test_the_longest_cookies_are_kept_by_browsers() -> None:
    """Name and value up to 4096 bytes, each attribute up to 1024 (RFC 6265bis §5.6): with every setting at its bound."""
    settings = load(cookie_name=64 * "a", path="/" + 1_023 * "x", samesite="strict", partitioned=True, secure=True)
    policy = CookiePolicy(settings)
    session_id = bytes(ID_BYTES)
    identity = Identity(session_id, key_of(session_id))
    keyring = Keyring((b"s" * 16,), cluster=settings.cluster, cookie_name=settings.cookie_name)
    heads = tuple(Stamp(COUNTER_MAX, (1 << WRITER_BITS) - 1 - n) for n in range(HEADS_MAX))
    version = keyring.sign_version(identity, heads)
    assert keyring.read(keyring.sign_id(identity), version) is not None
    for cookie in (
        policy.id_cookie(keyring.sign_id(identity), is_https=True),
        policy.version_cookie(version, is_https=True),
        *policy.removal(is_https=True),
    ):
        pair, *attributes = cookie.split(b"; ")
        assert len(pair) <= 4_096 and len(cookie) <= 4_096
        assert all(len(attribute.partition(b"=")[2]) <= 1_024 for attribute in attributes)
