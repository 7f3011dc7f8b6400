"""Who has heard of the end of a session: its answer waits until every server that may serve a copy has.

A server serves a copy without asking only under a lease, and a lease counts for a bounded time (`leases.py`). So an end waits
for the servers that may hold leases at that moment, and for none of them longer than that.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from sessile.forks import dropped_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sessile.token import SessionKey

__all__ = ["Confirmations", "Expected"]


@dropped_by("Shared", "a child waits for no end that its parent made")
class Expected:
    """What was heard of one end so far."""

    __slots__ = ("_more", "heard")

    def __init__(self) -> None:
        self.heard: set[bytes] = set()
        self._more = asyncio.Event()

    def add(self, by: bytes) -> None:
        self.heard.add(by)
        self._more.set()

    async def wait(self, lessees: Iterable[bytes] | None, at_most_s: float) -> bool:
        """Until all these have heard of it, or so much time has passed.

        Args:
            lessees: the servers that may hold leases; None where nobody can tell.
            at_most_s: after so much time no lease counts that was given before the end.

        Returns:
            Whether all have heard of it.
        """
        if lessees is None:
            await asyncio.sleep(at_most_s)
            return False
        missing = set(lessees)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                while not missing <= self.heard:
                    self._more.clear()
                    await self._more.wait()
        return missing <= self.heard


class Confirmations:
    """The ends that wait to be heard of."""

    def __init__(self) -> None:
        self._expected: dict[SessionKey, list[Expected]] = {}

    def __len__(self) -> int:
        return len(self._expected)

    @contextlib.contextmanager
    def expecting(self, key: SessionKey) -> Iterator[Expected]:
        """Listen to what comes of the end of this session. Begins before the end is sent: word may come before its answer."""
        expected = Expected()
        self._expected.setdefault(key, []).append(expected)
        try:
            yield expected
        finally:
            others = self._expected[key]
            others.remove(expected)
            if not others:
                del self._expected[key]

    def told(self, key: SessionKey, by: bytes) -> None:
        """A server has heard of the end of this session."""
        for expected in self._expected.get(key, ()):
            expected.add(by)
