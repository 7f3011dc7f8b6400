from __future__ import annotations

import gc
from weakref import WeakValueDictionary

from sessile.backend import Ended
from sessile.record import ENDED
from sessile.visit import Given, Step, Visit
from tests.fakes import KEY, make_record


def test_a_visit_begins_with_nothing_known() -> None:
    """Whatever one request finds out is not known of the next."""
    first, second = Visit((b"sid=x",), is_https=True), Visit((), is_https=False)
    first.is_stale = first.is_created = True
    first.unavailable = "because"
    assert (second.is_stale, second.is_created, second.unavailable) == (False, False, "")
    assert (second.presented, second.visitor, second.drawn, second.pulled, second.packed) == (None,) * 5
    assert second.given is None


def test_a_step_tells_what_it_was_given_or_waits() -> None:
    """A step has a session, and may have neither a change nor anything to do first."""
    step = Step(KEY)
    assert (step.key, step.change, step.make) == (KEY, None, None)
    ended = Ended(KEY, make_record({}).end(ENDED, 0))
    assert Step(KEY, ended).change is ended
    make = Step(KEY, make=lambda: ended).make
    assert make is not None and make() is ended


def test_what_was_given_is_known_as_long_as_a_request_is_under_way() -> None:
    """Requests that hold on to it see what was written last, whoever wrote it; with the last of them it is gone."""
    known: WeakValueDictionary[bytes, Given] = WeakValueDictionary()
    one, other = Visit((), is_https=False), Visit((), is_https=False)
    for visit in (one, other):
        visit.given = known.setdefault(KEY, Given())
    assert one.given is not None and other.given is not None
    assert one.given.record is None
    one.given.record = written = make_record({"a": 1})
    assert other.given.record is written
    del one.given
    assert KEY in known
    del other.given, visit
    gc.collect()
    assert KEY not in known
