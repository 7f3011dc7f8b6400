"""The session as a handler sees it: what it reads, what counts as a change, what it refuses. No engine is needed."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import pytest

from sessile import codec
from sessile.changes import Verb
from sessile.errors import SessionRotated
from sessile.record import REMOVED
from sessile.session import Opened, Session
from tests.fakes import KEY, LIMITS, FakeOpener, encoded, make_record, open_session

# -- opening -----------------------------------------------------------------------------------------------------------


def test_a_session_is_opened_at_its_first_touch_and_once() -> None:
    """Building one looks nothing up; whatever is asked first does, and nothing after it."""
    opener = FakeOpener(Opened(make_record({"a": 1}), KEY))
    session = Session(opener, LIMITS)
    assert (opener.loads, session.accessed, session.modified) == (0, False, False)
    assert repr(session) == "<Session, not opened>"
    assert opener.loads == 0
    assert session["a"] == 1
    assert list(session) == ["a"]
    assert (opener.loads, session.accessed) == (1, True)


@pytest.mark.parametrize(
    "touch",
    [
        lambda session: session.get("a"),
        lambda session: "a" in session,
        len,
        list,
        lambda session: session.new,
        lambda session: session.key,
        lambda session: session.stale,
        lambda session: session.subject,
        lambda session: session.read_only,
        lambda session: session.mark_accessed(),
        lambda session: session.increment("n"),
        lambda session: session.update(a=2),
        lambda session: session.rotate(),
        lambda session: session.end(),
    ],
)
def test_every_look_at_a_session_is_an_access(touch: Any) -> None:
    """A response that depends on the session in any way is known to, or a cache would give it to others."""
    session = open_session(make_record({"a": 1}))
    touch(session)
    assert session.accessed


def test_a_new_session_says_so() -> None:
    """Without a record the session is new, empty, bound to nobody, and has the key it would be kept under."""
    session = open_session()
    assert (session.new, session.modified, session.stale, session.read_only, session.subject) == (
        *(True, False, False, False),
        None,
    )
    assert dict(session) == {}
    assert session.key == "02" * 16


def test_a_stored_session_says_so() -> None:
    """With a record the session has its key and its subject, and flags come from where it was opened."""
    session = open_session(make_record({"a": 1}, subject="ann"), is_stale=True)
    assert (session.new, session.modified, session.stale, session.subject) == (False, False, True, "ann")
    assert session.key == KEY.hex()


def test_it_is_a_mutable_mapping() -> None:
    """Whatever takes a MutableMapping takes a session."""
    assert isinstance(open_session(), MutableMapping)
    assert open_session(make_record({"a": 1, "b": 2})) == {"a": 1, "b": 2}


def test_repr_shows_no_data() -> None:
    """A session in a log or a traceback tells its key and size, never a name, a value or a subject."""
    session = open_session(make_record({"token": "hunter2"}, subject="ann"), is_stale=True)
    session["password"] = "swordfish"
    shown = repr(session)
    assert shown == f"<Session {KEY.hex()}, 2 fields, stale>"
    assert repr(open_session()).startswith("<Session")
    for secret in ("ann", "hunter2", "swordfish", "password", "token"):
        assert secret not in shown


# -- what is a change --------------------------------------------------------------------------------------------------


@dataclass
class Basket:
    """A mutable value of the application."""

    items: list[str]


codec.register(Basket, name="tests.session.Basket")

MUTATIONS: list[tuple[Any, Any]] = [
    ([1], lambda value: value.append(2)),
    ([1, 2], lambda value: value.reverse()),
    ({"a": 1}, lambda value: value.update(b=2)),
    ({1, 2}, lambda value: value.discard(2)),
    ({"a": {"b": [1]}}, lambda value: value["a"]["b"].append(2)),
    (([1],), lambda value: value[0].clear()),
    ([{1}], lambda value: value[0].add(2)),
    (Basket(["tea"]), lambda value: value.items.append("milk")),
    ({"of": Basket([])}, lambda value: value["of"].items.append("milk")),
]


@pytest.mark.parametrize(("value", "mutate"), MUTATIONS)
def test_a_mutation_in_place_is_noticed(value: Any, mutate: Any) -> None:
    """What was handed out and is no longer what it was is a change, at any depth, without `modified = True`."""
    session = open_session(make_record({"x": value, "y": [1]}))
    mutate(session["x"])
    assert session.may_have_changed
    assert session.modified
    expected = codec.decode(codec.encode(value))
    mutate(expected)
    assert session.take().values == encoded(x=expected)


@pytest.mark.parametrize(("value", "mutate"), MUTATIONS)
def test_a_mutation_after_the_assignment_is_noticed(value: Any, mutate: Any) -> None:
    """A value that is assigned first and filled afterwards is kept as it is at the commit."""
    session = open_session()
    mine = codec.decode(codec.encode(value))
    session["x"] = mine
    mutate(mine)
    assert session.take().values == encoded(x=mine)


@pytest.mark.parametrize("value", [value for value, _ in MUTATIONS])
def test_reading_a_mutable_value_is_no_change(value: Any) -> None:
    """What was handed out and is what it was is no write."""
    session = open_session(make_record({"x": value}))
    assert session["x"] == session.get("x") == value
    assert list(session.values()) == [value]
    assert not session.modified
    assert not session.take()


def test_a_set_filled_in_another_order_is_no_change() -> None:
    """Equal sets are equal, whatever the order in which they came to be."""
    session = open_session(make_record({"x": {"a", "b", "c"}}))
    handed: set[str] = session["x"]
    handed.clear()
    handed.update(["c", "a", "b"])
    assert not session.take()


def test_a_mutation_that_is_undone_is_no_change() -> None:
    """Only what differs at the commit counts."""
    session = open_session(make_record({"x": [1]}))
    session["x"].append(2)
    assert session.take().values == encoded(x=[1, 2])
    session["x"].pop()
    assert not session.take()


def test_the_same_object_is_handed_out_each_time() -> None:
    """Two looks at one field see each other's changes."""
    session = open_session(make_record({"x": [1]}))
    session["x"].append(2)
    assert session["x"] == [1, 2]


@pytest.mark.parametrize("value", [0, False, "", "text", 1.5, None, [1], {"a": {1}}, (1, 2)])
def test_assigning_an_equal_value_is_no_change(value: Any) -> None:
    """A write that changes nothing is none: no message, no cookie."""
    session = open_session(make_record({"x": value}))
    session["x"] = codec.decode(codec.encode(value))
    assert not session.may_have_changed or not session.take()
    assert not session.modified


@pytest.mark.parametrize(("was", "becomes"), [(1, True), (1, 1.0), ([1], (1,)), ("1", b"1"), (0, False)])
def test_a_value_of_another_type_is_a_change(was: Any, becomes: Any) -> None:
    """Types survive, so a value that only compares equal is another one."""
    session = open_session(make_record({"x": was}))
    session["x"] = becomes
    assert session.take().values == encoded(x=becomes)


def test_what_is_assigned_and_taken_back_is_no_change() -> None:
    """Set and deleted, deleted and set, changed and changed back: nothing is left to store."""
    session = open_session(make_record({"a": 1}))
    session["b"] = 2
    del session["b"]
    del session["a"]
    session["a"] = 1
    session["a"] = 5
    session["a"] = 1
    assert not session.take()


def test_a_removed_mutable_value_does_not_come_back() -> None:
    """A list that is changed after its field was removed changes nothing."""
    session = open_session(make_record({"x": [1]}))
    handed = session.pop("x")
    handed.append(2)
    assert session.take().values == {"x": REMOVED}
    assert "x" not in session


def test_a_replaced_mutable_value_does_not_come_back() -> None:
    """A list that is changed after its field was given another value changes nothing."""
    session = open_session(make_record({"x": [1]}))
    handed = session["x"]
    session["x"] = "other"
    handed.append(2)
    assert session.take().values == encoded(x="other")


def test_changes_survive_until_they_are_taken_over() -> None:
    """`take` asks, it does not clear: a commit that failed may be asked again; `rebase` starts afresh."""
    session = open_session(make_record({"x": [1]}))
    session["x"].append(2)
    session["y"] = 1
    assert session.take().values == session.take().values == encoded(x=[1, 2], y=1)
    session.rebase(Opened(make_record({"x": [1, 2], "y": 1}), KEY))
    assert not session.take()
    assert session.modified, "it was, in this request"
    session["x"].append(3)
    assert session.take().values == encoded(x=[1, 2, 3])


# -- verbs -------------------------------------------------------------------------------------------------------------


def test_rotate_and_login_ask_for_a_new_id() -> None:
    """Rotation keeps the subject, login names a new one, and the stronger of the two stays."""
    session = open_session(make_record({"a": 1}))
    session.rotate()
    assert (session.take().verb, session.subject) == (Verb.ROTATE, None)
    session.login("bob")
    session.rotate()
    assert (session.take().verb, session.subject, session["a"]) == (Verb.LOGIN, "bob", 1)
    assert session.modified


@pytest.mark.parametrize("subject", ["", None, 5, "x" * 256, "\ud800", "a\udfff"])
def test_login_takes_a_subject(subject: Any) -> None:
    """A subject is a str of 1 to 255 bytes of Unicode text; another one changes nothing."""
    session = open_session(make_record({"a": 1}))
    with pytest.raises(TypeError, match="subject"):
        session.login(subject)
    assert not session.take()


@pytest.mark.parametrize("verb", [Session.end, Session.logout])
def test_an_ended_session_is_empty_at_once(verb: Any) -> None:
    """After the end nothing of the session is seen, and what is set goes into another one under another key."""
    session = open_session(make_record({"a": [1]}, subject="ann"))
    handed = session["a"]
    session["b"] = 2
    session.increment("n")
    verb(session)
    handed.append(2)
    assert (dict(session), session.subject, session.key) == ({}, None, "02" * 16)
    assert session.take().ends
    session["c"] = 3
    changes = session.take()
    assert (changes.ends, changes.verb, changes.values, changes.increments) == (True, Verb.KEEP, encoded(c=3), {})


def test_a_read_only_session_reads_and_refuses_every_write() -> None:
    """The look back after a rotation: each way of writing raises SessionRotated, and nothing is a change."""
    session = open_session(make_record({"a": 1, "x": [1]}, subject="ann"), is_read_only=True)
    assert (session.read_only, session["a"], session.subject) == (True, 1, "ann")
    writes: list[Any] = [
        lambda: session.update(a=2),
        lambda: session.pop("a"),
        lambda: session.setdefault("b", 1),
        session.clear,
        lambda: session.increment("a"),
        session.rotate,
        lambda: session.login("bob"),
        session.logout,
        session.end,
    ]
    for write in writes:
        with pytest.raises(SessionRotated):
            write()
    assert dict(session) == {"a": 1, "x": [1]}
    assert not session.take()
