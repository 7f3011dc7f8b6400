"""Changes on their way to a store: for each session one after the other, and those that wait go together.

So a session that eight requests change at once costs two trips and not eight, and no change overtakes one that it builds on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from sessile.forks import dropped_by
from sessile.record import Record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sessile.backend import Change
    from sessile.token import SessionKey

    Send = Callable[[SessionKey, list[Change], str], Awaitable["Arrived"]]

__all__ = ["Arrived", "Lines", "each"]

Arrived = bool | Record | None
"""Whether changes were confirmed; or the record of a session that was over when they came, which kept none of them.

None: nobody can tell whether they have come.
"""

_STRENGTH: Final = {"none": 0, "one": 1, "all": 2}
AT_ONCE: Final = 8
"""So many sessions are brought to, or compared with, a store at once that is back: the servers are no herd."""


@dropped_by("Lines", "Lines holds every one of them")
class _Line:
    """One session's changes that wait, and who waits for them."""

    __slots__ = ("ack", "arrival", "changes")

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.ack = "none"
        self.arrival: asyncio.Future[Arrived] = asyncio.get_running_loop().create_future()


@dropped_by("Shared", "only the parent sends the changes that are on their way")
class Lines:
    """The lines of all sessions.

    Args:
        send: brings changes of one session to the store, and says what became of them; must not raise.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: dict[SessionKey, _Line] = {}
        self._moving: dict[SessionKey, asyncio.Task[None]] = {}
        self._sent: dict[SessionKey, asyncio.Future[Arrived]] = {}
        """What tells of the arrival of what is on its way."""

    def __len__(self) -> int:
        return len(self._moving)

    def __contains__(self, key: object) -> bool:
        return key in self._moving

    def add(self, key: SessionKey, change: Change | None, ack: str) -> asyncio.Future[Arrived]:
        """Send a change when its turn has come; without one, whatever is known of the session.

        Returns:
            What tells whether all changes to the session, up to this one, are confirmed.
        """
        line = self._waiting.get(key)
        if line is None:
            line = self._waiting[key] = _Line()
        if change is not None:
            line.changes.append(change)
        line.ack = max(line.ack, ack, key=_STRENGTH.__getitem__)
        if key not in self._moving:
            self._moving[key] = asyncio.get_running_loop().create_task(self._move(key))
        return line.arrival

    def is_waiting(self, key: SessionKey) -> bool:
        """Whether more changes of this session wait behind the one that is on its way."""
        return key in self._waiting

    def last(self, key: SessionKey) -> asyncio.Future[Arrived] | None:
        """What tells whether all that there is of a session by now is confirmed; None where nothing is on its way."""
        line = self._waiting.get(key)
        return self._sent.get(key) if line is None else line.arrival

    async def idle(self) -> None:
        """Wait until nothing is on its way."""
        while self._moving:
            await asyncio.wait(list(self._moving.values()))

    async def _move(self, key: SessionKey) -> None:
        try:
            while (line := self._waiting.pop(key, None)) is not None:
                self._sent[key] = line.arrival
                arrived: Arrived = False
                try:
                    arrived = await self._send(key, line.changes, line.ack)
                finally:
                    if not line.arrival.done():
                        line.arrival.set_result(arrived)
        finally:
            del self._moving[key]
            self._sent.pop(key, None)


async def each(keys: list[SessionKey], do: Callable[[SessionKey], Awaitable[None]]) -> None:
    """Do this for each session, a few at a time."""
    coming = iter(keys)

    async def some() -> None:
        for key in coming:
            await do(key)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
