"""What a handler did, held against a record that others have changed meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from sessile import codec
from sessile.changes import Changes, Verb, carried_over, check_is_live, rebased
from sessile.errors import SessionEnded, SessionRotated
from sessile.record import ENDED, REMOVED, ROTATED, TOTAL_MAX, Record
from tests.fakes import ELSEWHERE, HERE, encoded, make_record, open_session


def some_changes(
    values: dict[str, Any] | None = None, increments: dict[str, int] | None = None, *, removed: tuple[str, ...] = ()
) -> Changes:
    data = encoded(**(values or {})) | dict.fromkeys(removed, REMOVED)
    return Changes(Verb.KEEP, "", False, data, increments or {})  # a field of data


def never(name: str) -> Any:
    raise AssertionError(f"nobody need know what the handler saw of {name}")


def decoded(values: dict[str, bytes]) -> dict[str, Any]:
    return {name: codec.decode(data) for name, data in values.items()}


@pytest.mark.parametrize(
    ("changes", "is_any"),
    [
        (some_changes(), False),
        (some_changes({"a": 1}), True),
        (some_changes(removed=("a",)), True),
        (some_changes(increments={"n": 1}), True),
        (Changes(Verb.ROTATE, "", False, {}, {}), True),  # a field of data
        (Changes(Verb.KEEP, "", True, {}, {}), True),
        (Changes(Verb.KEEP, "ann", False, {}, {}), False),
    ],
)
def test_changes_are_true_when_there_is_something_to_store(changes: Changes, *, is_any: bool) -> None:
    """A subject alone is none: it is whom the session is bound to anyway."""
    assert bool(changes) is is_any


def test_only_a_living_session_may_be_changed() -> None:
    """Rotated, over and run out are refused, each by the error that says so."""
    record = make_record({"a": 1})
    check_is_live(record, record.expires_ms() - 1)
    with pytest.raises(SessionEnded):
        check_is_live(record, record.expires_ms())
    with pytest.raises(SessionEnded):
        check_is_live(record.end(ENDED, 0), 0)
    with pytest.raises(SessionRotated):
        check_is_live(record.end(ROTATED, 0), 0)


def test_what_nobody_else_touched_applies_as_it_is() -> None:
    """Assignments, removals and increments of ints and of new names need no second look."""
    changes = some_changes({"a": 2}, {"n": 5, "new": 1}, removed=("b",))
    record = make_record({"a": 1, "b": 1, "n": 1})
    assert rebased(record, changes, never) == (changes.values, changes.increments)


def test_an_increment_of_what_is_no_longer_an_int_is_an_assignment() -> None:
    """Of what the handler saw; other increments stay, and what was given is not changed."""
    changes = some_changes({"a": 2}, {"n": 5, "m": 1})
    values, increments = rebased(make_record({"n": "text", "m": 1}), changes, lambda name: {"n": 15}[name])
    assert decoded(values) == {"a": 2, "n": 15}
    assert increments == {"m": 1}
    assert (set(changes.values), set(changes.increments)) == ({"a"}, {"n", "m"})


def test_an_increment_of_what_was_removed_is_an_increment() -> None:
    """A tombstone is nothing, so it counts from nothing."""
    record, _ = make_record({"n": 41}).write(ELSEWHERE, {"n": REMOVED}, now_ms=0)
    assert rebased(record, some_changes(increments={"n": 1}), never) == ({}, {"n": 1})


def test_a_running_sum_that_would_leave_its_bounds_is_folded() -> None:
    """The assignment of what the handler saw starts it anew."""
    record, _ = make_record({"n": 7}).write(HERE, {}, {"n": TOTAL_MAX}, now_ms=0)
    values, increments = rebased(record, some_changes(increments={"n": 1}), lambda _: 7 + TOTAL_MAX + 1)
    assert (decoded(values), increments) == ({"n": TOTAL_MAX + 8}, {})
    record, _ = make_record({"n": 7}).write(HERE, {}, {"n": TOTAL_MAX - 1}, now_ms=0)
    assert rebased(record, some_changes(increments={"n": 1}), never) == ({}, {"n": 1}), "the bound itself is allowed"


def carried(record: Record, changes: Changes, **seen: Any) -> dict[str, Any]:
    return decoded(carried_over(record, changes, seen.__getitem__))


def test_a_new_record_has_every_field_with_counters_folded() -> None:
    """What others counted, here and elsewhere, and what this handler counted, as one assignment each."""
    record = make_record({"a": 1, "n": 10, "gone": 1, "text": "x"})
    record, _ = record.write(HERE, {"gone": REMOVED}, {"n": 1, "only": 3}, now_ms=0)
    record, _ = record.write(ELSEWHERE, {}, {"n": 5}, now_ms=0)
    changes = some_changes({"a": 2, "b": [1]}, {"n": 100, "only": 1, "fresh": 4}, removed=("text",))
    assert carried(record, changes) == {"a": 2, "n": 116, "only": 4, "fresh": 4, "b": [1]}


def test_a_new_record_without_changes_is_the_old_one() -> None:
    """Nothing is lost and nothing appears; tombstones stay behind."""
    assert carried(make_record({"a": 1, "b": {1: (2,)}}), some_changes()) == {"a": 1, "b": {1: (2,)}}
    record, _ = make_record({"a": 1}).write(HERE, {"a": REMOVED}, now_ms=0)
    assert carried(record, some_changes()) == {}


def test_an_increment_over_a_collection_removes_its_items() -> None:
    """It becomes an assignment of what the handler saw, and no item outlives its collection."""
    session = open_session(make_record({"a": 1}))
    session.add_to("n", "book")
    record, _ = make_record({"a": 1}).write(ELSEWHERE, session.take().values, now_ms=0)
    values, increments = rebased(record, some_changes(increments={"n": 1}), {"n": 5}.__getitem__)
    assert (values.pop("n"), increments) == (codec.encode(5), {})
    assert list(values.values()) == [REMOVED] and values.keys() == record.fields.keys() - {"a", "n"}
    assert carried(record, some_changes(increments={"n": 1}), n=5) == {"a": 1, "n": 5}


def test_an_increment_of_what_is_no_longer_an_int_is_carried_over_as_it_was_seen() -> None:
    """The same rule as for a write."""
    assert carried(make_record({"n": "text"}), some_changes(increments={"n": 1}), n=11) == {"n": 11}
