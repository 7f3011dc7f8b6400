"""Whether a parser takes longer than its input grows: the time for three times as much over the time for as much.

A case is a place in a message and a piece that is repeated there: a generated sweep of single characters, pairs and words
over every place of every parser that a client or a server reaches. What takes linear time takes three times as long at most,
what takes quadratic time nine times; an expression that tries every way to divide its input does not come back, so an alarm
ends it. CPU time is measured, the shortest of several, and the alarm counts CPU time too, so that others on the machine do
not matter. What they still do to caches and clocks does not last: a parser is slow if it is found slow every time.
"""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

from bench.hostile.parsers import PLACES, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

__all__ = ["GROWTH_MAX", "Case", "Slow", "Sweep", "all_cases", "growth", "plain_cases", "sweep"]

STEP: Final = 3
"""Between one size and the next."""
GROWTH_MAX: Final = 4.0
"""Linear is 3, quadratic 9, and less where the shortest input takes as long to begin with as to read."""
SUSPECT: Final = 3.5
"""What grows by more is timed again, more often."""
FEW, MANY = 3, 15
"""How often each input is timed: to find suspects, and to judge them."""
LONG_S: Final = 0.02
"""What takes longer is timed few times also to be judged: little disturbs it."""
JUDGED: Final = 3
"""How often a suspect is judged until it counts as slow."""
ALARM_S: Final = 0.5
LETTERS: Final = [bytes([each]) for each in b' \t,;=:_"-aA0/?&%.[]@#\x00\xff']
WORDS: Final = [
    b"a,", b" ,", b", ,", b"close,", b"a=b; ", b"affinity=", b"affinity=x;", b"affinity=;a;;", b"; affinity=x", b"room=1&", b"&room=",
    b"_a:", b":_", b"1;", b"0;a", b"http://", b"127.0.0.1, ", b"[::1]", b"chunked, ", b"\r\n", b"\n", b"\r", b"a: b\r\n",
    b"a_b: c\r\n", b"1\r\nx\r\n", b"sessile=", b"; sessile_v=a", b"keep-alive, ",
]  # fmt: skip
ENDS: Final = (b"", b'"', b"\x00", b":", b"_")
"""What follows the repeated piece: a failure at the end is what makes an expression go back."""


@dataclass(frozen=True, slots=True)
class Case:
    """A piece, repeated at a place."""

    place: Place
    piece: bytes
    end: bytes

    def __str__(self) -> str:
        return f"{self.place.name}: {self.piece!r} repeated, then {self.end!r}"

    def text(self, size: int) -> bytes:
        return self.place.before + self.piece * max(1, size // len(self.piece)) + self.end + self.place.after


@dataclass(frozen=True, slots=True)
class Slow:
    """A case that takes more than linear time."""

    case: Case
    growth: float

    def __str__(self) -> str:
        return f"{self.case}: {STEP} times as much takes {self.growth:.1f} times as long"


@dataclass(slots=True)
class Sweep:
    """What a sweep found."""

    cases: int
    slow: list[Slow]
    worst: float
    """The most that any case grew."""
    longest_s: float


class _TooLong(Exception):
    """The alarm rang."""


def plain_cases() -> list[Case]:
    """Every place with every single character and every word, with and without a failure at the end."""
    return [Case(*each) for each in product(PLACES, [*LETTERS, *WORDS], ENDS[:2])]


def all_cases() -> list[Case]:
    """Every place with these, every pair of characters, and every end."""
    pieces = [*LETTERS, *(first + second for first, second in product(LETTERS, LETTERS) if first != second), *WORDS]
    return [Case(*each) for each in product(PLACES, pieces, ENDS)]


def sweep(cases: Iterable[Case]) -> Sweep:
    """Try all of these."""
    found = Sweep(0, [], 0.0, 0.0)
    for case in cases:
        found.cases += 1
        ratio, longest = growth(case, FEW)
        for _ in range(JUDGED):
            if not SUSPECT < ratio < float("inf"):
                break
            again, longest = growth(case, MANY if longest < LONG_S else FEW)
            ratio = min(ratio, again)
        found.longest_s = max(found.longest_s, longest)
        found.worst = max(found.worst, ratio)
        if ratio > GROWTH_MAX:
            found.slow.append(Slow(case, ratio))
    return found


def growth(case: Case, times: int) -> tuple[float, float]:
    """Time for `STEP` times as much over time for as much, and the longest time; infinite where the alarm rang.

    The input grows twice and the smaller growth counts: a parser may take another way beyond some size, once.
    """
    sizes = [case.place.size, case.place.size * STEP, case.place.size * STEP**2]
    with _alarm():
        try:
            # Taken in turn: what slows the machine for a while slows all three.
            rounds = [[_seconds(case, size) for size in sizes] for _ in range(times)]
        except _TooLong:
            return float("inf"), ALARM_S
    short, middle, long = map(min, zip(*rounds, strict=True))
    return min(middle / short, long / middle), long


def _seconds(case: Case, size: int) -> float:
    text = case.text(size)
    read = case.place.reader()
    signal.setitimer(signal.ITIMER_VIRTUAL, ALARM_S)
    try:
        began = time.thread_time()
        with contextlib.suppress(*case.place.refusals):
            read(text)
        return time.thread_time() - began
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise _TooLong

    before = signal.signal(signal.SIGVTALRM, ring)
    try:
        yield
    finally:
        signal.signal(signal.SIGVTALRM, before)
