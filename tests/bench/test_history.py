"""What `make show NAME=history` asks for, and that it would notice."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.history import harm as harm_module
from bench.history.harm import Harm, Trouble
from bench.history.operations import Operation, Verb
from bench.history.verdict import Verdict
from bench.show import history
from bench.show.history import CHECKS, HARM, OPERATIONS, PROMISES, cookies_of, judge_history
from tests.bench.history.recorded import recorded

GOOD = Verdict(Counter(), [], 9, 9, 9, 9, 0, 0, 0)
MADE = [Operation(number, Verb.READ, status=200) for number in range(OPERATIONS)]


def harmed(kinds: tuple[str, ...] = HARM) -> Harm:
    harm = Harm()
    harm.troubles += [Trouble("s1", kind, 0, 1) for kind in kinds]
    return harm


def holds(made: list[Operation], verdict: Verdict, harm: Harm) -> bool:
    return all(figure.holds is not False for figure in judge_history("all-to-all", made, verdict, harm))


def test_one_finding_of_any_checker_breaks_the_promise() -> None:
    """Each has a promise in words."""
    assert holds(MADE, GOOD, harmed())
    assert set(CHECKS) == set(PROMISES)
    for check in CHECKS:
        assert not holds(MADE, GOOD._replace(findings=Counter({check: 1})), harmed())
    assert not holds(MADE, GOOD._replace(stale=1), harmed())


def test_a_history_with_too_little_in_it_shows_nothing() -> None:
    """Too few requests, too little harm, or nothing that could have been wrong."""
    assert not holds(MADE[1:], GOOD, harmed())
    assert not holds(MADE, GOOD, harmed(HARM[1:]))
    assert not holds(MADE, GOOD, harmed(HARM[:-1]))
    for empty in (
        GOOD._replace(looks=0),
        GOOD._replace(sessions=0),
        GOOD._replace(writes=0),
        GOOD._replace(ends=0),
    ):
        assert not holds(MADE, empty, harmed())


def test_every_session_is_read_with_the_cookies_it_was_last_given() -> None:
    """Those of sessions that ended as well."""
    operations = recorded()
    jars = cookies_of(operations)
    assert len(jars) == 3
    assert all(len(jar) == 2 for jar in jars)
    assert jars[0] == operations[6].cookies
    assert jars[1] == operations[11].cookies


@pytest.mark.parametrize("strategy", history.STRATEGIES)
def test_the_promise_holds_for_a_short_history(monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
    """The whole of it on real processes, smaller: it is shown, and every bounded figure was measured."""
    small = {"USERS": 8, "OPERATIONS": 150, "HARM": ("kill", "pause"), "STRATEGIES": (strategy,), "QUIET_S": 3.0}
    for name, value in small.items():
        monkeypatch.setattr(history, name, value)
    monkeypatch.setattr(harm_module, "AWAY_S", (0.2, 1.5))
    said: list[str] = []
    shown = history.run(said.append)
    assert shown.holds, [figure for figure in shown.figures if figure.holds is False] + shown.notes
    assert sum(figure.holds is not None for figure in shown.figures) == 16
    assert len(said) == 3
