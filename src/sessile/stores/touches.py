"""Sessions that were used: their store is told soon, of many together, and of each until it has taken it.

A session that is only read is pushed by nobody. Were its use not told, the store would let it run out of time.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.stores.base import Store
    from sessile.token import SessionKey

__all__ = ["Touches"]

TOLD_AT_ONCE: Final = 1_000
"""So many go with one call, so that it is done in time however many wait."""
WAITING_MAX: Final = 200_000
"""So many wait for a store that is away; of more, the oldest are forgotten."""


class Touches:
    """When each session was last used, of those that the store was not told of.

    Args:
        store: what is told.
        clock_ms: this server's clock.
    """

    def __init__(self, store: Store, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self._clock_ms = clock_ms
        self._waiting: dict[SessionKey, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def note(self, key: SessionKey, touched_ms: int) -> None:
        """It was used at this moment of this server's clock."""
        self._waiting.pop(key, None)
        self._waiting[key] = touched_ms
        if len(self._waiting) > WAITING_MAX:
            del self._waiting[next(iter(self._waiting))]

    async def tell(self) -> None:
        """Tell the store of all. Raises StoreError: what it was not told of still waits."""
        while self._waiting:
            some = dict(islice(self._waiting.items(), TOLD_AT_ONCE))
            now_ms = self._clock_ms()
            await self._store.touch({key: max(now_ms - touched_ms, 0) for key, touched_ms in some.items()})
            for key, touched_ms in some.items():
                if self._waiting.get(key) == touched_ms:  # it was not used once more meanwhile
                    del self._waiting[key]
