"""Mistakes that people make when they set up servers, each made on real processes, and what they are told then.

One entry of `table.MISTAKES` is one mistake: a name, how it is made (`play`), and what a person must be told (`Wanted`). The plays
stand in files by theme; `processes` runs servers, `judge` compares. A new mistake is a function and an entry.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Mistake", "Outcome", "Seen", "Wanted"]


class Outcome(enum.Enum):
    """What becomes of a server with this mistake."""

    WORKS = "is no mistake: every request is answered"
    WARNS = "goes on, and says so"
    STOPS = "stops, and says why"
    REFUSES = "answers 503, and says why"


@dataclass
class Seen:
    """What was seen of the processes."""

    done: str
    """What was done, for the table."""
    lines: list[str] = field(default_factory=list)
    """The lines of the logs that are more than the server's own reports of its life."""
    status: int | None = None
    """The exit status of the process that should notice; None while it ran on."""
    answers: list[int] = field(default_factory=list)
    """The status of each answer to a request; 0 where there was none."""
    faults: list[str] = field(default_factory=list)
    """What else is not as it should be, found by the play itself."""


@dataclass(frozen=True)
class Wanted:
    """What must come of a mistake."""

    outcome: Outcome
    setting: tuple[str, ...] = ()
    """Any of these, in a line that a person reads: what to set."""
    remedy: tuple[str, ...] = ()
    """Any of these, in the same line: what to do."""
    lines_max: int = 4
    """Lines at the most, whatever number of requests there were."""
    never: tuple[str, ...] = ()
    """What no line may hold, such as parts of a password."""


@dataclass(frozen=True)
class Mistake:
    """One entry of the table."""

    issue: str
    """A letter and a number, the place of the mistake in the list that the table was made from."""
    name: str
    play: Callable[[Path], Seen]
    """Makes the mistake on real processes, in a folder of its own."""
    wanted: Wanted
    programs: tuple[str, ...] = ()
