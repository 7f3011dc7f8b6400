"""Questions to a store: those for one session at one time share a trip."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sessile.forks import dropped_by
from sessile.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from sessile.backend import Pulled
    from sessile.record import Heads, Record
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
        """How many found one under way."""
        self._ask = ask
        self._asking: dict[SessionKey, asyncio.Task[Pulled]] = {}

    async def end(self, at_most_s: float) -> None:
        """Let those under way be answered, for a moment: nobody else waits for their connections to come back."""
        if asking := list(self._asking.values()):
            await asyncio.wait(asking, timeout=at_most_s)
            await end_tasks(asking)

    async def pull(self, key: SessionKey, have: Record | None, heads: Heads) -> Pulled:
        """Ask, or share the answer to a question that is under way: it may have been asked before the browser saw more."""
        asking = self._asking.get(key)
        if asking is not None:
            self.shared += 1
            pulled = await asyncio.shield(asking)
            if pulled.record is not None and pulled.record.covers(heads):
                return pulled
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.get_running_loop().create_task(self._ask(key, have))
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(asking)
