"""In which state a server is, from what was observed of it, and which actions make sense there.

Pure. What was asked for plays no part: a server that was told to drain is draining when it answers so, one that was
stopped by somebody else's SIGSTOP is paused, one that was killed from outside is dead.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["ACTIONS", "Observed", "Phase", "State", "objection", "state_of"]


class State(StrEnum):
    """What the demo contract calls the states of a server."""

    STARTING = "starting"
    READY = "ready"
    SUSPECT = "suspect"
    PAUSED = "paused"
    DRAINING = "draining"
    DEAD = "dead"


class Phase(StrEnum):
    """What a server says of itself; all but READY answer 503 to a health check."""

    JOINING = "joining"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Observed:
    """What was last seen of one server's process."""

    is_alive: bool
    is_stopped: bool = False
    """Whether the kernel has it stopped (SIGSTOP)."""
    phase: Phase | None = None
    """What it said last; None while it has not answered since it was started."""
    missed: int = 0
    """How many questions in a row it has left unanswered since."""


def state_of(seen: Observed) -> State:
    """The one state that these observations make."""
    if not seen.is_alive:
        return State.DEAD
    if seen.is_stopped:
        return State.PAUSED
    if seen.phase is None or (seen.phase is Phase.JOINING and not seen.missed):
        return State.STARTING
    if seen.missed:
        return State.SUSPECT
    return State.DRAINING if seen.phase is Phase.DRAINING else State.READY


ALIVE: Final = frozenset(State) - {State.DEAD}

ACTIONS: Final[dict[str, frozenset[State]]] = {
    "kill": ALIVE,
    "pause": ALIVE - {State.PAUSED},
    "resume": frozenset({State.PAUSED, State.DRAINING}),
    "restart": frozenset(State) - {State.STARTING},
    "drain": frozenset({State.READY, State.SUSPECT}),
}
"""The states in which each action makes sense."""

_REMEDIES: Final = {
    State.DEAD: "restart it first",
    State.PAUSED: "resume it first",
    State.STARTING: "wait until it is ready",
    State.READY: "there is nothing to resume",
}


def objection(name: str, action: str, state: State) -> str | None:
    """Why this action makes no sense for the server now, as a sentence; None when it does."""
    if state in ACTIONS[action]:
        return None
    if (action, state) in {("kill", State.DEAD), ("pause", State.PAUSED), ("drain", State.DRAINING)}:
        return f"{name} is {state} already"
    return f"{name} is {state}; {_REMEDIES.get(state, 'wait a moment')}"
