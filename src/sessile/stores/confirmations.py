"""Ends that wait until every server that may serve a copy has confirmed them.

A server serves a copy without asking only under a lease, and a lease counts for a bounded time (`leases.py`). So an end waits
for its *lessees*, the servers that may hold leases when it is made, and for no longer than a lease counts.
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
    """The confirmations of one end so far."""

    __slots__ = ("_more", "heard")

    def __init__(self) -> None:
        self.heard: set[bytes] = set()
        self._more = asyncio.Event()

    def add(self, by: bytes) -> None:
        self.heard.add(by)
        self._more.set()

    async def wait(self, lessees: Iterable[bytes] | None, at_most_s: float) -> bool:
        """Wait until all these servers have confirmed the end, or this much time has passed.

        Args:
            lessees: the servers that may hold leases; None if they are not known.
            at_most_s: after this time no lease from before the end counts.

        Returns:
            Whether all of them have confirmed it.
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
    """The ends of this server that wait for confirmations, by session."""

    def __init__(self) -> None:
        self._expected: dict[SessionKey, list[Expected]] = {}

    def __len__(self) -> int:
        return len(self._expected)

    @contextlib.contextmanager
    def expecting(self, key: SessionKey) -> Iterator[Expected]:
        """Collect the confirmations of this session's end. To be entered before the end is sent: they may precede its answer."""
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
        """A server has confirmed the end of this session."""
        for expected in self._expected.get(key, ()):
            expected.add(by)
