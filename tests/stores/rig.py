"""What the conformance suite works with: a place where sessions are kept, open stores over it, and what they tell.

A store's test file says what its place is; nothing here knows of a particular store.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import itertools
import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from sessile.delta import Delta
from sessile.record import Record
from sessile.stores.base import Changed, Channel, ChannelUp, FetchStatus, Pulse, Store
from tests.record_model import A

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sessile.token import SessionKey

__all__ = [
    "GRACE_MS",
    "IDLE_MS",
    "KEEP_MS",
    "LIFE_MS",
    "SLOP_MS",
    "WITHIN_S",
    "Heard",
    "Place",
    "Rig",
    "fresh_key",
    "in_place",
    "new",
    "ran",
    "same",
    "write",
]

WITHIN_S = 20.0
"""How long something that must happen may take to, on a machine that is busy."""
SLOP_MS = 10_000
"""By how much a duration may be off when the machine is busy: it is measured at both ends of a trip."""
IDLE_MS, LIFE_MS = 60_000, 1_000_000
KEEP_MS, GRACE_MS = 600_000, 60_000


class Place(ABC):
    """Somewhere to keep sessions, empty as far as a test can tell, and what a test may do to it behind a store's back."""

    names_lessees = True
    """Whether a store over it can say which servers may serve copies without asking."""

    @abstractmethod
    def store(self, *, tombstone_keep_ms: int = KEEP_MS, rotation_grace_ms: int = GRACE_MS) -> Store:
        """A store over it that is not open yet: another server's, as it were, at each call."""

    async def pass_time(self, ms: int) -> None:
        """Let at least so much time pass on the store's clock; one that cannot be moved is waited for."""
        await asyncio.sleep(ms / 1_000)

    @abstractmethod
    async def plant(self, key: SessionKey, data: bytes) -> None:
        """Put these bytes where the record of the session stands."""


class Rig:
    """What a test works with: a place, one open store over it, and more of them when asked for."""

    def __init__(self, place: Place, stack: contextlib.AsyncExitStack) -> None:
        self.place = place
        self._stack = stack
        self.store: Store

    async def another(self, **keywords: int) -> Store:
        """One more open store over the same place, closed at the end."""
        store = self.place.store(**keywords)
        await store.open()
        self._stack.push_async_callback(store.close)
        return store

    async def held(self, key: SessionKey) -> Record:
        """What the store holds of a session."""
        status, record = await self.store.fetch(key, None)
        assert status is FetchStatus.RECORD and record is not None
        record.check()
        return record

    async def until_gone(self, key: SessionKey) -> None:
        """Wait until the store holds nothing of the session."""
        async with asyncio.timeout(WITHIN_S):
            while (await self.store.fetch(key, None)).status is not FetchStatus.NONE:
                await self.store.expire(1_000)
                await self.place.pass_time(20)


class Heard:
    """What one store tells while it listens."""

    def __init__(self) -> None:
        self.all: list[Channel] = []
        """But for how often it had heard everything."""
        self.pulses = 0
        self._more = asyncio.Event()

    def __call__(self, message: Channel) -> None:
        if isinstance(message, Pulse):
            self.pulses += 1
        else:
            self.all.append(message)
        self._more.set()

    @property
    def changes(self) -> list[Changed]:
        return [message for message in self.all if isinstance(message, Changed)]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds, looking again at each message."""
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                self._more.clear()
                await self._more.wait()

    @contextlib.asynccontextmanager
    async def listening(self, store: Store) -> AsyncIterator[Heard]:
        """Listen from the first `ChannelUp` on until this is left."""
        task = asyncio.create_task(store.listen(self))
        try:
            await self.until(lambda: bool(self.all))
            assert isinstance(self.all[0], ChannelUp) and self.all[0].primary
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def ran(body: Callable[[], Awaitable[None]], within_s: float = 120.0) -> None:
    """Run a test's coroutine, bounded."""

    async def bounded() -> None:
        async with asyncio.timeout(within_s):
            await body()

    asyncio.run(bounded())


def in_place(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A method that is a test: called with a rig in place of its first argument, and whatever else it asks for."""

    @functools.wraps(test)
    def run(self: Any, *args: Any, **keywords: Any) -> None:
        async def body() -> None:
            async with contextlib.AsyncExitStack() as stack:
                rig = Rig(self.place(), stack)
                rig.store = await rig.another()
                await test(self, rig, *args, **keywords)

        ran(body)

    signature = inspect.signature(test)
    others = [parameter for name, parameter in signature.parameters.items() if name != "rig"]
    run.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
    return run


_numbers = itertools.count(1)


def fresh_key() -> SessionKey:
    """A key that no test has used, with bytes of every kind in it, those that mean something to a store included."""
    return os.urandom(6) + next(_numbers).to_bytes(5, "big") + b"\x00{\xff%}"


def new(*, idle_ms: int = IDLE_MS, life_ms: int = LIFE_MS, subject: str = "", **values: bytes) -> Record:
    """A session just born, its times as durations, its fields written by A."""
    record = Record.create(now_ms=0, idle_ms=idle_ms, deadline_ms=life_ms, subject=subject)
    return record.write(A, values, now_ms=0)[0] if values else record


def write(
    record: Record, key: SessionKey, writer: int, increments: dict[str, int] | None = None, **values: bytes
) -> tuple[Record, Delta]:
    """The record after one write, and the write on its way."""
    after, stamp = record.write(writer, values, increments, now_ms=0)
    return after, Delta.of(after, key, record, stamp, names=values, counted=increments or ())


def same(one: Record | None, other: Record | None) -> bool:
    """Whether both say the same of the session, its version and heads included."""
    if one is None or other is None:
        return one is other
    return one.same_state(other) and one.heads == other.heads and one.idle_ms == other.idle_ms
