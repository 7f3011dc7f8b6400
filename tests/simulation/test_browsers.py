"""Jars keep what arrived last; tabs do what their options allow."""

from __future__ import annotations

from sessile.simulation.browsers import Jar, Tab
from sessile.simulation.options import BEHAVIOURS, Options
from sessile.simulation.serving import Verb


def test_a_jar_keeps_the_last_and_forgets_what_is_removed() -> None:
    """As a browser does for cookies of one path."""
    jar = Jar(1)
    assert jar.header == b""
    jar.keep([b"sid=a; Path=/", b"sid_v=1"])
    jar.keep([b"sid_v=2"])
    assert jar.header == b"sid=a; sid_v=2"
    jar.keep([b"sid=; Max-Age=0", b"sid_v=; max-age=0"])
    assert jar.header == b""


def verbs(*behaviours: str) -> set[Verb]:
    tab = Tab(1, Jar(1), Options(behaviours=behaviours), seed=3)
    return {op.verb for _ in range(300) for work in [tab.work()] for op in (*work.ops, *work.late_ops)}


def test_handlers_do_only_what_is_switched_on() -> None:
    """Without behaviours fields are set, and nothing else; with all, everything is done."""
    assert verbs() == {Verb.SET}
    assert verbs(*BEHAVIOURS) == set(Verb)


def test_late_writes_never_change_the_id() -> None:
    """No cookie could tell of it."""
    tab = Tab(1, Jar(1), Options(behaviours=BEHAVIOURS), seed=3)
    late = {op.verb for _ in range(500) for op in tab.work().late_ops}
    assert late and not late & {Verb.LOGIN, Verb.ROTATE}


def test_bursts_are_several_at_once() -> None:
    """Only where they are switched on."""
    assert {Tab(1, Jar(1), Options(behaviours=()), seed=1).burst() for _ in range(50)} == {1}
    tab = Tab(1, Jar(1), Options(behaviours=("bursts",)), seed=1)
    assert max(tab.burst() for _ in range(100)) > 1


def test_readers_read_once_they_have_a_session() -> None:
    """Nearly always; whoever has none writes as often as anybody."""
    tab = Tab(1, Jar(1), Options(reads=95), seed=1)
    without = sum(tab.work().is_repeatable for _ in range(300))
    tab.jar.keep([b"sid=a"])
    assert without < 150 and sum(tab.work().is_repeatable for _ in range(300)) > 250
