"""Whether a server may be used: a small state machine per server, fed with what checks and requests met.

UP serves everybody. DRAINING (it answers 503) keeps the users it has and gets no new ones. DOWN gets nobody: it refused
a connection, or `fall` checks in a row were not answered in time. `rise` answered checks bring it back. Pure: events
go in with `now`, a change of state comes out; time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Change", "Health", "HealthPolicy", "State", "verdict_of"]


class State(Enum):
    """What a server may be used for."""

    UP = "up"
    DRAINING = "draining"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """How often to check, how long to wait, how many in a row count."""

    interval_s: float = 0.25
    timeout_s: float = 0.5
    fall: int = 2
    rise: int = 1


@dataclass(frozen=True, slots=True)
class Change:
    """A server went from one state to another, and why."""

    before: State
    after: State
    reason: str


def verdict_of(status: int) -> State:
    """What an answered check means: 503 drains, another 5xx is a failure, anything else is a server that serves."""
    if status == 503:
        return State.DRAINING
    return State.DOWN if status >= 500 else State.UP


class Health:
    """The judgement on one server. It is believed to be up until something says otherwise."""

    __slots__ = ("_failures", "_policy", "_refused_at", "_successes", "state")

    def __init__(self, policy: HealthPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._successes = 0
        self._refused_at = float("-inf")
        self.state = State.UP

    def check_answered(self, verdict: State, started: float) -> Change | None:
        """A check begun at `started` was answered with UP or DRAINING."""
        if started < self._refused_at:
            return None  # it was under way when a request was refused: older news
        self._failures = 0
        self._successes += 1
        if self.state is State.DOWN and self._successes < self._policy.rise:
            return None
        return self._to(verdict, "health check answered" if verdict is State.UP else "health check answered 503")

    def check_failed(self, reason: str, *, is_refusal: bool = False) -> Change | None:
        """A check was refused, broke or was not answered in time. A refusal counts at once: nobody listens."""
        self._successes = 0
        self._failures += 1
        if is_refusal or self._failures >= self._policy.fall:
            return self._to(State.DOWN, reason)
        return None

    def request_refused(self, now: float) -> Change | None:
        """A connection for a request was refused: down until a check begun later succeeds."""
        self._refused_at = now
        self._successes = 0
        self._failures = self._policy.fall
        return self._to(State.DOWN, "connection refused")

    def _to(self, state: State, reason: str) -> Change | None:
        if state is self.state:
            return None
        change = Change(self.state, state, reason)
        self.state = state
        return change
