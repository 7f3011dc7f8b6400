"""How the engine's coroutines run without an event loop.

`await` on a `Pull`, a `Push` or a `Sleep` hands that very object to whoever drives the coroutine, who sends the answer back in.
`SimBackend` is the engine's view of its process's node: what waits becomes a question, what does not is asked at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessile.replication.events import ChangePushed, PullAsked, SessionTouched
from sessile.replication.holding import Holding

if TYPE_CHECKING:
    from collections.abc import Generator

    from sessile.backend import Acknowledged, Change, Pulled
    from sessile.record import Heads, Record
    from sessile.replication.events import Input
    from sessile.simulation.process import Process
    from sessile.token import SessionKey

__all__ = ["InProcess", "Pull", "Push", "SimBackend", "Sleep"]


class _Awaited:
    """Hands itself to the driver of the coroutine."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self)


class Sleep(_Awaited):
    """Nothing happens in this request for so long."""

    __slots__ = ("delay_ms",)

    def __init__(self, delay_ms: int) -> None:
        self.delay_ms = delay_ms


class Pull(_Awaited):
    """The engine asks for the newest state of a session."""

    __slots__ = ("__weakref__", "heads", "key")

    def __init__(self, key: SessionKey, heads: Heads) -> None:
        self.key = key
        self.heads = heads

    def as_input(self, ticket: int) -> Input:
        """The question as the node gets it."""
        return PullAsked(ticket, self.key, self.heads)


class Push(_Awaited):
    """The engine tells of a change, or waits for those it told of."""

    __slots__ = ("ack", "change", "key")

    def __init__(self, key: SessionKey, change: Change | None, ack: str) -> None:
        self.key = key
        self.change = change
        self.ack = ack

    def as_input(self, ticket: int) -> Input:
        """The question as the node gets it."""
        return ChangePushed(ticket, self.key, self.change, self.ack)


class InProcess(Holding):
    """A backend without a life of its own: it is there as long as its node. How it is asked, who derives from it says."""

    __slots__ = ()
    is_running = True

    async def start(self) -> None:
        """It runs already."""

    def start_in_thread(self) -> None:
        """It has no thread."""

    async def stop(self) -> None:
        """It ends with its node."""

    def status(self) -> dict[str, Any]:
        return {}


class SimBackend(InProcess):
    """The other holders, as far as this process's node knows them."""

    __slots__ = ("_process",)

    def __init__(self, process: Process) -> None:
        self._process = process

    def touched(self, key: SessionKey, touched_ms: int) -> None:
        self._process.tell(SessionTouched(key, touched_ms))

    async def pull(self, key: SessionKey, have: Record | None, heads: Heads) -> Pulled:
        del have  # the node looks into the same table
        pulled: Pulled = await Pull(key, heads)
        return pulled

    async def push(self, key: SessionKey, change: Change | None, ack: str) -> Acknowledged:
        acknowledged: Acknowledged = await Push(key, change, ack)
        return acknowledged
