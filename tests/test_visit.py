from __future__ import annotations

from sessile.backend import Ended
from sessile.record import ENDED
from sessile.visit import Step, Visit


def test_a_visit_begins_with_nothing_known() -> None:
    """Whatever one request finds out is not known of the next."""
    first, second = Visit((b"sid=x",), is_https=True), Visit((), is_https=False)
    first.is_stale = first.is_created = True
    first.unavailable = "because"
    assert (second.is_stale, second.is_created, second.unavailable) == (False, False, "")
    assert (second.presented, second.visitor, second.drawn, second.pulled, second.packed) == (None,) * 5


def test_a_step_may_have_nothing_to_do_afterwards() -> None:
    """Most of what others are told has no consequence here."""
    step = Step(Ended(b"k" * 16, ENDED))
    assert step.then is None
    assert step.change == Ended(b"k" * 16, ENDED)
