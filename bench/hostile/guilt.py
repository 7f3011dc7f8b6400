"""A proven misdeed, with all that is needed to commit it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Guilt"]

SHOWN_BYTES_MAX: Final = 4_000


@dataclass(frozen=True, slots=True)
class Guilt:
    """What was done, in which case, and the exact bytes and pieces that brought it about."""

    kind: str
    case: str
    why: str
    raw: bytes = b""
    pieces: tuple[int, ...] = ()
    """Where the bytes were cut when they were sent; nothing for one piece."""

    def __str__(self) -> str:
        raw = self.raw
        shown = repr(raw) if len(raw) <= SHOWN_BYTES_MAX else f"{raw[:2_000]!r} + ... + {raw[-1_000:]!r}"
        cuts = f" cut at {', '.join(map(str, self.pieces))}" if self.pieces else ""
        return f"{self.kind}: {self.case}: {self.why}\n  sent{cuts}: {shown}"
