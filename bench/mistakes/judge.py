"""Whether what was seen of a mistake is what a person must be told. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.mistakes import Outcome

if TYPE_CHECKING:
    from bench.mistakes import Seen, Wanted

__all__ = ["faults_of"]

TRACEBACK: Final = "Traceback (most recent call last)"


def faults_of(seen: Seen, wanted: Wanted) -> list[str]:
    """What is not as it must be, one sentence each; empty where all is."""
    faults = list(seen.faults)
    faults += _of_outcome(seen, wanted.outcome)
    if any(TRACEBACK in line for line in seen.lines):
        faults.append("a traceback in the log")
    if len(seen.lines) > wanted.lines_max:
        faults.append(f"{len(seen.lines)} lines, more than {wanted.lines_max}")
    if wanted.setting and not any(_tells(line, wanted) for line in seen.lines):
        faults.append("no line names the setting and the remedy")
    for place, word in enumerate(wanted.never, start=1):
        if any(word in line for line in seen.lines):
            faults.append(f"a line holds what none may, number {place}")
    return faults


def _tells(line: str, wanted: Wanted) -> bool:
    """Whether a line says what to set and what to do."""
    return any(word in line for word in wanted.setting) and any(word in line for word in wanted.remedy or ("",))


def _of_outcome(seen: Seen, outcome: Outcome) -> list[str]:
    """What the processes did."""
    if outcome is Outcome.STOPS:
        if seen.status is None:
            return ["it did not stop"]
        return ["it ended with status 0"] if seen.status == 0 else []
    if seen.status is not None:
        return [f"it ended with status {seen.status}"]
    allowed = {503} if outcome is Outcome.REFUSES else {200}
    others = sorted(set(seen.answers) - allowed)
    if others:
        return [f"{sum(seen.answers.count(one) for one in others)} of {len(seen.answers)} answers were {others}"]
    return [] if seen.answers or outcome is Outcome.WARNS else ["no request was made"]
