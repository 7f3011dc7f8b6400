"""`make show`: everything that is promised, as named commands that print their figures and a verdict.

One module per promise (`sticky_exact.py` is `make show NAME=sticky-exact`), each with `SUMMARY`, a sentence, and
`run(progress) -> Shown`, which does the work, reports progress by calling `progress(line)`, and judges nothing that it
did not measure in this very run. Two names more where they apply: `PROGRAMS`, a tuple of the programs it needs on the
PATH (installed first where that is allowed), and `MEASURES = True` for one whose figures belong in `make bench`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["CannotShow", "Figure", "Progress", "Shown"]

Progress = Callable[[str], None]


class CannotShow(Exception):
    """Something a promise needs is not on this machine. The message is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number, the bound it is held to and the peer's number beside it."""

    name: str
    value: float
    unit: str = ""
    bound: str = ""
    """What was promised, in words: `<= 450`, `= 0`; empty for a figure that is only shown."""
    holds: bool | None = None
    """Whether the bound is kept; None for a figure that is only shown."""
    peer: str = ""
    peer_value: float | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """The figures of one promise. It holds when every bounded figure does, and there is at least one."""

    name: str
    figures: list[Figure]
    notes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        judged = [figure.holds for figure in self.figures if figure.holds is not None]
        return bool(judged) and all(judged)
