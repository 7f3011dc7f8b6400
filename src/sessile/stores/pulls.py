"""Questions to a store, and what its answers mean: a copy is current, outdated, ended, or must be restored to the store.

An end that is known here overrules the store, and is sent to it again: a failover or a loss of data may have cost the store the
end. `Epoch` decides whether a session that is missing from the store, but of which a live copy is held, has ended.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Final

from sessile.backend import Pulled, PullStatus
from sessile.errors import StoreError
from sessile.record import LIVE, Record
from sessile.stores.base import FetchStatus
from sessile.stores.questions import Questions

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable
    from typing import Protocol, TypeVar

    from sessile.record import Heads
    from sessile.settings import Settings
    from sessile.stores.base import Fetched, Store
    from sessile.stores.epoch import Epoch
    from sessile.stores.leases import Copies, Leases, Watch
    from sessile.stores.outage import Outage
    from sessile.token import SessionKey

    T = TypeVar("T")

    class Way(Protocol):
        """The part of `Shared` that questions use."""

        store: Store
        counts: Counter[str]
        leases: Leases
        outage: Outage
        epoch: Epoch

        async def attempt(self, call: Callable[[], Awaitable[T]]) -> T: ...
        def failed(self, error: StoreError) -> PullStatus: ...
        def is_settled(self, key: SessionKey) -> bool: ...
        def bring_soon(self, key: SessionKey) -> None: ...
        def end_again(self, key: SessionKey) -> None: ...
        def reconcile_soon(self) -> None: ...


__all__ = ["Pulls"]

_UNANSWERED: Final = {PullStatus.UNREACHABLE, PullStatus.STARVED}
ASKED_MAX: Final = 2
"""How often a question is asked at most, if the channel announces the session's end before the answer comes."""


class Pulls:
    """The questions of one server.

    Args:
        way: the connection to the store.
        copies: the copies held here.
        settings: the engine's settings.
    """

    def __init__(self, way: Way, copies: Copies, settings: Settings) -> None:
        self._way = way
        self._copies = copies
        self._settings = settings
        self._questions = Questions(self._fetch)

    async def end(self, at_most_s: float) -> None:
        """Wait until the questions under way have been answered, at most for this time, and then ask nothing more."""
        await self._questions.end(at_most_s)

    async def pull(self, key: SessionKey, have: Record | None, heads: Heads) -> Pulled:
        """Ask, and while the answer is older than what the browser has seen, ask again: the change may be on its way."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.pull_timeout
        outage = self._way.outage
        for times in count():
            pulled = await self.once(key, have)
            left_s = outage.worth_s()
            record = have if pulled.status is PullStatus.UNREACHABLE else pulled.record
            if record is not None and (record.state != LIVE or record.covers(heads)):
                break
            if pulled.status in {PullStatus.CURRENT, PullStatus.RECORD}:
                left_s = max(left_s, until - loop.time())
            if left_s <= 0 or pulled.status is PullStatus.STARVED or (pulled.status is PullStatus.NONE and not heads):
                break
            await outage.pause(times, left_s)
        return pulled

    async def once(self, key: SessionKey, have: Record | None) -> Pulled:
        """Ask once, unless the store is away. A session whose end is known here is over even then."""
        pulled = Pulled(PullStatus.UNREACHABLE)
        if not self._way.outage:
            pulled = await self._questions.pull(key, have)
        return self.without_store(key, have, pulled.status) if pulled.status in _UNANSWERED else pulled

    def without_store(self, key: SessionKey, have: Record | None, why: PullStatus) -> Pulled:
        """The result for a session if the store did not answer: its end if it is known here, otherwise `why`."""
        if not self._is_over(key):
            return Pulled(why)
        return Pulled(PullStatus.NONE) if have is None else self._over(key, have)

    def _is_over(self, key: SessionKey) -> bool:
        """Whether the end of the session is known, even if the copy that is held is live."""
        with self._copies.lock:
            return self._copies.table.knows_end(key)

    def _over(self, key: SessionKey, have: Record) -> Pulled:
        """The end of the session as a record: the tombstone if one is held, even one of a rotation in its grace."""
        packed = self._copies.table.get(key)
        held = have if packed is None else Record.unpack(packed)
        if held.state == LIVE:
            held = self._copies.table.over(key, have, self._copies.clock_ms())
        return Pulled(PullStatus.RECORD, held)

    async def _fetch(self, key: SessionKey, have: Record | None) -> Pulled:
        """Ask for what the copy lacks. If the copy has expired, ask for the whole record, which may have been touched."""
        way = self._way
        is_alive = have is not None and have.state == LIVE and have.expires_ms() > self._copies.clock_ms()
        version = have.version if is_alive and have is not None else None
        for _ in range(ASKED_MAX):
            watch = way.leases.watch(key)
            way.counts["trips"] += 1
            try:
                fetched = await way.attempt(lambda: way.store.fetch(key, version))
            except StoreError as error:
                return Pulled(way.failed(error))
            finally:
                way.leases.unwatch(key, watch)
            if not watch.is_over or (fetched.record is not None and fetched.record.state != LIVE):
                break
        if fetched.status is FetchStatus.NONE:
            way.leases.drop(key)
            return await self._absent(key, have if is_alive else None)
        return self._present(key, have, fetched, watch)

    def _present(self, key: SessionKey, have: Record | None, fetched: Fetched, watch: Watch) -> Pulled:
        """The result if the store has the session, or its end."""
        record = have if fetched.record is None else fetched.record.shift(self._copies.clock_ms())
        assert record is not None, "the store compares with what it was given"
        if record.state == LIVE and self._is_over(key):
            return self._contradicted(key, record)
        self._way.leases.judge(key, watch, record)
        if fetched.status is FetchStatus.CURRENT:
            return Pulled(PullStatus.CURRENT, record)
        return Pulled(PullStatus.RECORD, record)

    async def _absent(self, key: SessionKey, alive: Record | None) -> Pulled:
        """The result if the store has nothing. A live copy is restored to the store, unless the session may have ended."""
        way = self._way
        if self._is_over(key):
            if alive is None:
                return Pulled(PullStatus.NONE)
            return self._contradicted(key, alive)
        if alive is None:
            return Pulled(PullStatus.NONE)
        if way.is_settled(key):  # otherwise the session is still on its way to the store
            try:
                absence = await way.attempt(lambda: way.store.absence(key))
            except StoreError as error:
                return Pulled(way.failed(error))
            if way.epoch.is_end(absence):
                way.counts["gone"] += 1
                return self._over(key, alive)
            if way.epoch.is_other(absence.mark):
                way.reconcile_soon()
        way.counts["restored"] += 1
        way.bring_soon(key)
        return Pulled(PullStatus.CURRENT, alive)

    def _contradicted(self, key: SessionKey, record: Record) -> Pulled:
        """The store does not know of an end that is known here: send the end again."""
        self._way.leases.drop(key)
        self._way.end_again(key)
        return self._over(key, record)
