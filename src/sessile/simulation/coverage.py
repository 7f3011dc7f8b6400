"""What runs have reached: which message arrived under which fault, and which states and outcomes came up.

Counts of many runs add up; `table` shows what came up too seldom to have been tested.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, get_args

from sessile.replication.messages import Message
from sessile.simulation.options import FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MESSAGES", "Coverage"]

_ARRAY: Final = 0x90
"""The first byte of a short msgpack array, without its length."""
MESSAGES: Final[dict[int, str]] = {kind.__struct_config__.tag: kind.__name__ for kind in get_args(Message)}
"""Tag → name of each type of message."""
NO_FAULT: Final = "no fault"


class Coverage:
    """Counts of one run, or of many."""

    __slots__ = ("counts", "frames")

    def __init__(self) -> None:
        self.frames: Counter[tuple[int, int]] = Counter()
        """(tag of a message, bits of the faults at work when it arrived) → how often."""
        self.counts: Counter[str] = Counter()
        """Everything else, by name."""

    def came(self, frames: Iterable[bytes], faults: int) -> None:
        """Frames, without their prefixes, arrive while these faults are at work."""
        for frame in frames:
            if frame[0] & 0xF0 == _ARRAY and len(frame) > 1:
                self.frames[frame[1], faults] += 1

    def add(self, other: Coverage) -> None:
        """Add up."""
        self.frames.update(other.frames)
        self.counts.update(other.counts)

    def cells(self) -> dict[tuple[str, str], int]:
        """(message, fault) → how often the one arrived while the other was at work."""
        cells = {(message, fault): 0 for message in MESSAGES.values() for fault in (*FAULTS, NO_FAULT)}
        for (tag, mask), count in self.frames.items():
            message = MESSAGES.get(tag, "?")
            active = [fault for place, fault in enumerate(FAULTS) if mask >> place & 1] or [NO_FAULT]
            for fault in active:
                cells[message, fault] = cells.get((message, fault), 0) + count
        return cells

    def table(self) -> str:
        """Messages by faults, as text."""
        cells = self.cells()
        columns = (*FAULTS, NO_FAULT)
        lines = [" " * 16 + "".join(f"{name:>12}" for name in columns)]
        lines += [
            f"{message:<16}" + "".join(f"{cells[message, name]:>12}" for name in columns)
            for message in MESSAGES.values()
        ]
        return "\n".join(lines)
