"""Questions to a store: those for one session that come while one is under way share the next trip."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sessile.forks import dropped_by
from sessile.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from sessile.backend import Pulled
    from sessile.record import Record
    from sessile.token import SessionKey

__all__ = ["Questions"]


@dropped_by("Shared", "only the parent waits for the answers to its questions")
class Questions:
    """The questions under way.

    Args:
        ask: one trip for a session, naming the copy that is held.
    """

    def __init__(self, ask: Callable[[SessionKey, Record | None], Coroutine[Any, Any, Pulled]]) -> None:
        self.shared = 0
        """How many waited for one that others wait for as well."""
        self._ask = ask
        self._asking: dict[SessionKey, asyncio.Task[Pulled]] = {}
        self._unsent: set[SessionKey] = set()
        """Questions that have not left yet: whoever comes now may still share them."""
        self._next: dict[SessionKey, asyncio.Task[Pulled]] = {}
        """What is asked when the question under way has been answered."""

    async def end(self, at_most_s: float) -> None:
        """Let those under way be answered, for a moment: nobody else waits for their connections to come back."""
        if asking := [*self._asking.values(), *self._next.values()]:
            await asyncio.wait(asking, timeout=at_most_s)
            await end_tasks(asking)

    async def pull(self, key: SessionKey, have: Record | None) -> Pulled:
        """Ask, or share the next question with all who come while one is under way.

        The answer to the one under way is for those who asked it: the store may have given it before a session ended, and
        whoever comes after that end was answered must not be shown it.
        """
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.get_running_loop().create_task(self._now(key, have))
            self._unsent.add(key)
            return await asyncio.shield(asking)
        if key in self._unsent:
            self.shared += 1
            return await asyncio.shield(asking)
        following = self._next.get(key)
        if following is None:
            following = self._next[key] = asyncio.get_running_loop().create_task(self._after(asking, key, have))
        else:
            self.shared += 1
        return await asyncio.shield(following)

    async def _now(self, key: SessionKey, have: Record | None) -> Pulled:
        self._unsent.discard(key)
        try:
            return await self._ask(key, have)
        finally:
            if self._asking.get(key) is asyncio.current_task():
                del self._asking[key]

    async def _after(self, asking: asyncio.Task[Pulled], key: SessionKey, have: Record | None) -> Pulled:
        try:
            await asyncio.wait((asking,))
        finally:
            following = self._next.pop(key)
        self._asking[key] = following
        return await self._now(key, have)
