"""Every kind of bad answer is found in a recorded history, and a good one is not accused."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from bench.history.harm import Harm, Trouble
from bench.history.operations import Operation, Verb
from tests.bench.history import recorded

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.history.verdict import Verdict

HISTORY = recorded.recorded()
QUIET_MS = 1_000
"""The last looks at every session come this much later."""
SET, COUNT, INCREMENT, READ, INCREMENT_2, COUNT_2, LOGIN, INCREMENT_3, SET_2, LOOK_BACK = range(10)
READ_2, LOGOUT, REPLAY, BEGIN, READ_3 = range(10, 15)
NOTHING: dict[str, Any] = {
    "key": "",
    "subject": "",
    "stale": False,
    "read_only": False,
    "version": {},
    "heads": "",
    "stamps": {},
    "fields": {},
}


def judged(change: Callable[[list[Operation]], object], last: list[Operation] | None = None) -> Verdict:
    """What is found when the history is changed so."""
    operations = copy.deepcopy(HISTORY)
    change(operations)
    return recorded.judged(operations, last)


def told(operation: Operation, when: str = "before") -> dict[str, Any]:
    """How the session is said to have stood."""
    assert operation.told is not None
    stood: dict[str, Any] = operation.told[when]
    return stood


def unanswered(operations: list[Operation], at: int) -> None:
    """Nobody got the answer."""
    operations[at].status, operations[at].told, operations[at].given = 0, None, {}


def test_a_good_history_has_no_findings() -> None:
    """Whatever a correct server answers is accepted; everything was looked at."""
    verdict = recorded.judged(HISTORY, [HISTORY[READ_3]])
    assert not verdict.findings, verdict.told
    assert (verdict.sessions, verdict.writes, verdict.ends, verdict.stale) == (3, 9, 2, 0)
    assert verdict.looks > 20
    assert [HISTORY[at].verb for at in (LOGIN, LOGOUT)] == [Verb.LOGIN, Verb.LOGOUT]
    assert told(HISTORY[LOOK_BACK])["read_only"]


@pytest.mark.parametrize("at", [COUNT, READ, INCREMENT_2, COUNT_2, INCREMENT_3, READ_2, READ_3])
def test_an_operation_without_an_answer_may_have_happened(at: int) -> None:
    """Whoever comes next sees what came of it."""
    verdict = judged(lambda all_: unanswered(all_, at))
    assert not verdict.findings, verdict.told
    assert (verdict.unanswered, verdict.happened) == ((0, 0) if HISTORY[at].verb is Verb.READ else (1, 1))


def test_or_it_may_not_have_happened() -> None:
    """It is waited for by nobody."""
    never = Operation(99, Verb.INCREMENT, "hits", "v", HISTORY[INCREMENT_2].cookies, 55, 1_000)
    verdict = judged(lambda all_: all_.insert(INCREMENT_2, never))
    assert not verdict.findings, verdict.told
    assert (verdict.unanswered, verdict.happened) == (1, 0)


def test_a_logout_without_an_answer_may_have_ended_the_session() -> None:
    """So it need not be found, and may still be there."""
    assert not judged(lambda all_: unanswered(all_, LOGOUT)).findings

    def still_there(all_: list[Operation]) -> None:
        unanswered(all_, LOGOUT)
        all_[REPLAY].told = all_[READ_2].told

    assert not judged(still_there).findings


def lose_an_increment(all_: list[Operation]) -> None:
    """The answer that follows counts one less."""
    told(all_[READ_2])["fields"]["hits"] -= 1


def lose_a_count(all_: list[Operation]) -> None:
    """Two requests counted, and the second found what the first had found."""
    told(all_[COUNT_2], "after")["fields"]["visits"] = 1


def go_back(all_: list[Operation]) -> None:
    """A read is shown what the session was two writes ago."""
    all_[READ_2].told = {"server": "s2", "before": copy.deepcopy(told(all_[LOGIN], "after"))}


def hide_the_cookie(all_: list[Operation]) -> None:
    """An answer shows more than its browser has seen, and no cookie tells it."""
    all_[SET_2].given = {}


def show_another_value(all_: list[Operation]) -> None:
    """Nobody ever set this."""
    told(all_[READ])["fields"]["mine"] = "v99"


def keep_the_ended(all_: list[Operation]) -> None:
    """The cookies of before the logout open the session."""
    all_[REPLAY].told = all_[READ_2].told


def look_back_for_ever(all_: list[Operation]) -> None:
    """What was logged out is shown as if it had been renewed."""
    all_[REPLAY].told = {"server": "s1", "before": {**told(all_[READ_2]), "read_only": True}}


def write_to_the_renewed(all_: list[Operation]) -> None:
    """The look back shows what came after the login."""
    told(all_[LOOK_BACK])["fields"]["user"] = "v7"


def lose_the_session(all_: list[Operation]) -> None:
    """A session that nobody ended is not there."""
    all_[READ].told = {"server": "s1", "before": NOTHING}


def mix_up_sessions(all_: list[Operation]) -> None:
    """Somebody is shown what belongs to another id."""
    all_[READ].told = all_[READ_3].told


def refuse_for_nothing(all_: list[Operation]) -> None:
    """409, and nobody ended or renewed the session."""
    all_[READ].status = 409


def refuse_and_store(all_: list[Operation]) -> None:
    """409, and the change is there."""
    all_[SET_2].status, all_[SET_2].told = 409, None


def execute_twice(all_: list[Operation]) -> None:
    """An increment's trace turns up under a later stamp."""
    stood = told(all_[READ])
    stood["fields"]["hits"] += 1
    counter, _, writer = stood["heads"].partition("@")
    stood["heads"] = stood["stamps"]["op-2"] = f"{int(counter) + 1}@{writer}"
    stood["version"][writer] += 1


def leave_no_trace(all_: list[Operation]) -> None:
    """The change was acknowledged, and is not in the answer."""
    stood = told(all_[SET_2], "after")
    stood.update(told(all_[INCREMENT_3], "after"))


def fail(all_: list[Operation]) -> None:
    """The application broke."""
    all_[READ].status = 500


@pytest.mark.parametrize(
    ("plant", "checker"),
    [
        (lose_an_increment, "increments"),
        (lose_an_increment, "reads"),
        (lose_a_count, "reads"),
        (go_back, "reads"),
        (hide_the_cookie, "reads"),
        (show_another_value, "reads"),
        (keep_the_ended, "ends"),
        (look_back_for_ever, "ends"),
        (write_to_the_renewed, "reads"),
        (lose_the_session, "presence"),
        (mix_up_sessions, "presence"),
        (refuse_for_nothing, "presence"),
        (refuse_and_store, "writes"),
        (execute_twice, "writes"),
        (leave_no_trace, "writes"),
        (fail, "answers"),
    ],
)
def test_a_bad_answer_is_found(plant: Callable[[list[Operation]], None], checker: str) -> None:
    """By the checker whose promise it breaks; it is told in words as well."""
    verdict = judged(plant)
    assert verdict.findings[checker], verdict.told
    assert any(line.startswith(checker) for line in verdict.told)


def test_what_was_acknowledged_long_before_is_not_missing() -> None:
    """Though the cookies that a look came with do not tell of it; a change that nobody acknowledged may come late."""
    old = copy.deepcopy(HISTORY[READ])
    old.sent_ms, old.answered_ms = 9_000, 9_005
    verdict = recorded.judged([*HISTORY[:LOGIN], old])
    assert set(verdict.findings) == {"losses"}, verdict.told
    assert verdict.findings["losses"] == 2
    open_ = copy.deepcopy(HISTORY[:LOGIN])
    for at in (INCREMENT_2, COUNT_2):
        open_[at].status = 0
    assert not recorded.judged([*open_, old]).findings


def test_in_the_end_every_server_shows_everything() -> None:
    """A read with cookies of before may show less meanwhile, and not when all is quiet."""
    late = copy.deepcopy(HISTORY[READ])
    late.sent_ms, late.answered_ms = late.sent_ms + QUIET_MS, late.answered_ms + QUIET_MS
    assert not recorded.judged([*HISTORY[:LOGIN], late]).findings
    assert recorded.judged(HISTORY[:LOGIN], [late]).findings["quiet"]


def test_stale_answers_are_counted() -> None:
    """They may be older than their cookies, since they say so."""

    def plant(all_: list[Operation]) -> None:
        go_back(all_)
        told(all_[READ_2])["stale"] = True
        all_[READ_2].given = all_[LOGIN].given  # what it shows, its cookie tells

    verdict = judged(plant)
    assert (verdict.stale, verdict.findings["reads"]) == (1, 0)


@pytest.mark.parametrize("kind", ["pause", "kill"])
def test_trouble_with_a_server_excuses_no_ended_session(kind: str) -> None:
    """It was stopped, or started anew, while the session was ended elsewhere: it may not open it all the same."""
    operations = copy.deepcopy(HISTORY)
    keep_the_ended(operations)
    harm = Harm()
    harm.troubles.append(Trouble("s1", kind, 0))
    assert recorded.judged(operations, harm=harm).findings["ends"]
