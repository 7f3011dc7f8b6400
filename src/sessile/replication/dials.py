"""When which address is dialled: one dial at a time, later after each failure, at once where a member was just lost.

It knows addresses only; who is wanted is said by the membership. Pure: time and chance are arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from random import Random

__all__ = ["BACKOFF_MAX_MS", "BACKOFF_MIN_MS", "Dials"]

BACKOFF_MIN_MS: Final = 100
BACKOFF_MAX_MS: Final = 2_000


class _Dial:
    """How it went at one address."""

    __slots__ = ("failures", "is_refused", "is_under_way", "next_ms")

    def __init__(self) -> None:
        self.next_ms = 0
        self.failures = 0
        self.is_under_way = False
        self.is_refused = False


class Dials:
    """All addresses that were ever dialled and are still somebody's.

    Args:
        rng: spreads what would otherwise come all at once.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._dials: dict[str, _Dial] = {}

    def is_untried(self, address: str) -> bool:
        """Whether no dial has failed here since it was last good for something."""
        dial = self._dials.get(address)
        return dial is None or dial.failures == 0

    def is_refused(self, address: str) -> bool:
        """Whether nobody listened here the last time."""
        dial = self._dials.get(address)
        return dial is not None and dial.is_refused

    def start(self, wanted: Iterable[str], now_ms: int) -> tuple[str, ...]:
        """Those of the wanted addresses that are to be dialled now; each is under way until it succeeded or failed."""
        started = []
        for address in wanted:
            dial = self._of(address)
            if not dial.is_under_way and dial.next_ms <= now_ms:
                dial.is_under_way = True
                started.append(address)
        return tuple(started)

    def next_ms(self, wanted: Iterable[str], never_ms: int) -> int:
        """When the next of these is due, of those that are not under way."""
        dials = (self._of(address) for address in wanted)
        return min((dial.next_ms for dial in dials if not dial.is_under_way), default=never_ms)

    def succeeded(self, address: str) -> None:
        """Somebody greeted. How often it failed before is remembered: a link that breaks at once was worth nothing."""
        dial = self._of(address)
        dial.is_under_way = dial.is_refused = False

    def failed(self, address: str, now_ms: int, *, is_refused: bool = False) -> None:
        """No link came of it, or none that is of any use."""
        dial = self._of(address)
        dial.is_under_way = False
        dial.is_refused = is_refused
        self._put_off(dial, now_ms)

    def lost(self, address: str, now_ms: int, *, is_brief: bool, patience_ms: int = 0) -> None:
        """A link to this address is gone; one that was brief counts as a failure. `patience_ms`: dial no earlier."""
        dial = self._of(address)
        if is_brief:
            self._put_off(dial, now_ms)
        else:
            dial.failures = 0
            dial.next_ms = now_ms
        dial.next_ms = max(dial.next_ms, now_ms + patience_ms)

    def keep(self, addresses: Collection[str]) -> None:
        """Forget how it went at all other addresses, once nothing is under way there."""
        self._dials = {at: dial for at, dial in self._dials.items() if at in addresses or dial.is_under_way}

    def _of(self, address: str) -> _Dial:
        dial = self._dials.get(address)
        if dial is None:
            dial = self._dials[address] = _Dial()
        return dial

    def _put_off(self, dial: _Dial, now_ms: int) -> None:
        dial.failures += 1
        longest_ms = min(BACKOFF_MIN_MS << min(dial.failures - 1, 16), BACKOFF_MAX_MS)
        dial.next_ms = now_ms + longest_ms - int(self._rng.random() * longest_ms / 2)
