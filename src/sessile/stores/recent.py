"""What was pushed to a store lately: a primary that fails may take it with it, and its successor is given it again.

Bounded in time and in bytes, whichever comes first; the oldest goes. Ends are in it too: they must not be undone.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from sessile.table import ENTRY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessile.token import SessionKey

__all__ = ["Recent"]


class Recent:
    """Packed records by key, with the moment when each was pushed last.

    Args:
        window_ms: for so long one is kept.
        bytes_max: and in so many bytes all of them, `ENTRY_BYTES` for each included.
    """

    def __init__(self, *, window_ms: int, bytes_max: float) -> None:
        self.held_bytes = 0
        self.forgotten = 0
        """How many had to go before their time."""
        self._window_ms = window_ms
        self._bytes_max = bytes_max
        self._pushed: OrderedDict[SessionKey, tuple[int, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pushed)

    def __iter__(self) -> Iterator[SessionKey]:
        return iter(list(self._pushed))

    def get(self, key: SessionKey, now_ms: int) -> bytes | None:
        """What was pushed of a session, if that is no longer ago than the window."""
        pushed_ms, packed = self._pushed.get(key, (0, None))
        return packed if now_ms - pushed_ms <= self._window_ms else None

    def note(self, key: SessionKey, packed: bytes, now_ms: int) -> None:
        """This is pushed now."""
        self._drop(key)
        self._pushed[key] = (now_ms, packed)
        self.held_bytes += ENTRY_BYTES + len(packed)
        while self._pushed:
            oldest, (pushed_ms, _) = next(iter(self._pushed.items()))
            is_over = now_ms - pushed_ms > self._window_ms
            if not is_over and self.held_bytes <= self._bytes_max:
                return
            self.forgotten += not is_over
            self._drop(oldest)

    def _drop(self, key: SessionKey) -> None:
        pushed = self._pushed.pop(key, None)
        if pushed is not None:
            self.held_bytes -= ENTRY_BYTES + len(pushed[1])
