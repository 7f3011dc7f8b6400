from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.errors import RecordError
from sessile.record import ENDED, LIVE, REPLACED, ROTATED, Record
from sessile.stores.sql_rows import Keep, Row, bare_end, digest_of, due_in_ms, kept, shown, timeless
from tests.record_model import A, B, born, wrote

KEEP = Keep(tombstone_keep_ms=10_000, rotation_grace_ms=1_000)
NOW_MS = 1_700_000_000_000
KEY = b"k" * 16


def row_of(record: Record, now_ms: int = NOW_MS) -> Row:
    """The row of a record whose times are durations, read at once."""
    return Row(
        KEY,
        now_ms,
        1,
        record.idle_ms,
        NOW_MS + record.deadline_ms,
        NOW_MS + record.touched_ms,
        NOW_MS + record.ended_ms if record.state else 0,
        record.state,
        kept(timeless(record))["new_record"],
    )


def session(idle_ms: int = 500, deadline_ms: int = 8_000) -> Record:
    return Record.create(now_ms=0, idle_ms=idle_ms, deadline_ms=deadline_ms).write(A, {"a": b"1"}, now_ms=0)[0]


@pytest.mark.parametrize("state", [LIVE, ROTATED, ENDED])
def test_a_record_comes_back(state: int) -> None:
    """Its bytes have no times, its columns have; together they are the record, later by what has passed."""
    record = session() if state == LIVE else session().end(state, 0)
    assert row_of(record).timed(row_of(record).content()) == record
    late = row_of(record, NOW_MS + 100)
    assert late.timed(late.content()) == record.shift(-100)
    assert kept(timeless(record)) == kept(timeless(record.shift(12_345)))


def test_a_row_is_over_when_its_time_has_come() -> None:
    """A live one a tenth after its idle time or at its deadline; an ended one well after its deadline, or its end."""
    assert not row_of(session(), NOW_MS + 549).is_over(KEEP)
    assert row_of(session(), NOW_MS + 550).is_over(KEEP)
    assert row_of(session(deadline_ms=300), NOW_MS + 300).is_over(KEEP)
    for state in (ROTATED, ENDED):
        ended = session().end(state, 0)
        assert not row_of(ended, NOW_MS + 17_999).is_over(KEEP)
        assert row_of(ended, NOW_MS + 18_000).is_over(KEEP)
        late = session(deadline_ms=-1).end(state, 0)
        assert not row_of(late, NOW_MS + 9_999).is_over(KEEP)
        assert row_of(late, NOW_MS + 10_000).is_over(KEEP)


def test_a_row_is_due_when_something_becomes_of_it() -> None:
    """A rotated one at the end of its grace: then it loses its fields."""
    assert due_in_ms(session(), KEEP) == 550
    assert due_in_ms(session(deadline_ms=300), KEEP) == 300
    assert due_in_ms(session().end(ROTATED, 0), KEEP) == 1_000
    assert due_in_ms(session().end(ENDED, 0).shift(-400), KEEP) == 17_600
    assert due_in_ms(session(deadline_ms=-1).end(ENDED, 0), KEEP) == 10_000


def test_a_rotated_session_is_shown_for_its_grace() -> None:
    """Afterwards as one that has ended, since when it was rotated."""
    rotated = session().end(ROTATED, 0)
    assert shown(rotated.shift(-999), KEEP).fields
    assert shown(rotated.shift(-1_000), KEEP) == rotated.shift(-1_000).end(REPLACED, -1_000)
    assert shown(session(), KEEP) == session()


@given(st.dictionaries(st.integers(0, 2**48 - 1), st.integers(1, 2**53), max_size=5), st.randoms())
def test_a_digest_tells_versions_apart(version: dict[int, int], random: object) -> None:
    """It fits SQL's largest integer, knows no order, and changes with the state and each counter."""
    digest = digest_of(LIVE, version)
    assert -(2**63) <= digest < 2**63
    assert digest == digest_of(LIVE, dict(reversed(version.items())))
    others = {digest_of(ENDED, version), *(digest_of(LIVE, {**version, w: c + 1}) for w, c in version.items())}
    assert digest not in others and len(others) == 1 + len(version)


def test_times_have_no_part_in_a_digest() -> None:
    """A touch is no news to a reader."""
    record = wrote(born(a=b"1"), B, a=b"2")
    assert kept(record)["new_digest"] == kept(record.touch(99_999))["new_digest"] == digest_of(LIVE, record.version)


def test_bytes_that_are_no_record_are_an_error() -> None:
    """And not an empty session."""
    with pytest.raises(RecordError):
        row_of(session())._replace(record=b"\x00").content()


def test_what_a_column_says_is_nought_in_the_bytes() -> None:
    """So a touch changes no bytes, and equal contents are equal bytes."""
    record = Record.create(now_ms=5, idle_ms=6, deadline_ms=7, subject="ann").end(ENDED, 8)
    bare = timeless(record)
    assert (bare.idle_ms, bare.deadline_ms, bare.touched_ms, bare.ended_ms) == (0, 0, 0, 0)
    assert bare.same_state(record)


def test_a_bare_end_says_whose_session_ended_and_nothing_else() -> None:
    """No times, no versions, no fields."""
    bare = bare_end(born(a=b"1"))
    assert bare == Record(ENDED, 0, 0, 0, 0, born().subject, {}, (), {})


def test_digests_are_the_same_in_every_release() -> None:
    """Servers compare what others wrote: eight bytes, with a sign."""
    assert digest_of(LIVE, {1: 2}) == -1083959108995280226
    assert digest_of(ENDED, {7: 1}) == -3691736171146834642
