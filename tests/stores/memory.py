"""A store in memory that follows the rules, tells its channel, and fails as it is told: what tests stand on."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING

from sessile.delta import Delta, Outcome, apply
from sessile.errors import StoreError
from sessile.record import LIVE, Record, merge
from sessile.stores.base import Absence, Changed, ChannelDown, ChannelUp, Confirmed, Fetched, FetchStatus, Pulse, Pushed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sessile.record import Version
    from sessile.stores.base import Channel
    from sessile.token import SessionKey
    from tests.fakes import FakeClock

__all__ = ["MemoryStore"]


BEAT_S = 0.01


class MemoryStore:
    """Records by key, on a clock of its own."""

    where = "memory"
    is_single = True

    def __init__(self, clock: FakeClock, *, has_channel: bool = True) -> None:
        self.clock = clock
        self.has_channel = has_channel
        self.records: dict[SessionKey, Record] = {}
        self.calls: list[str] = []
        self.primary = "one"
        self.fails = ""
        """Why every call fails; empty while all is well."""
        self.failure: type[StoreError] = StoreError
        self.is_acknowledging = True
        self.gate: asyncio.Event | None = None
        """What every call waits for, when set."""
        self.listeners: dict[Callable[[Channel], None], bytes] = {}
        """What tells each server, and what the server is called."""
        self.counts: Counter[str] = Counter()
        self.is_beating = True
        """Whether servers hear that they hear everything."""
        self.deaf: set[Callable[[Channel], None]] = set()
        """Those that are told nothing, and do not know."""
        self.may_forget_ends = False
        self.mark = b"first"
        self._names = itertools.count()

    async def open(self) -> None:
        await self._called("open")

    async def close(self) -> None:
        self.calls.append("close")

    async def fetch(self, key: SessionKey, have: Version | None) -> Fetched:
        await self._called("fetch")
        record = self.records.get(key)
        if record is None or self._due_ms(record) <= self.clock():
            return Fetched(FetchStatus.NONE)
        if have == record.version and record.state == LIVE:
            return Fetched(FetchStatus.CURRENT)
        return Fetched(FetchStatus.RECORD, record.shift(-self.clock()))

    async def apply(self, delta: Delta, ack: str) -> Pushed:
        del ack
        await self._called("apply")
        outcome, record = apply(self.records.get(delta.key), delta, self.clock())
        if outcome is Outcome.NEED or record is None:
            return Pushed(Outcome.NEED)
        return self._keep(delta.key, record, outcome, is_all=record.heads == (delta.stamp,))

    async def merge(self, key: SessionKey, record: Record, ack: str, *, is_awaited: bool = False) -> Pushed:
        del ack
        await self._called("merge")
        given = record.shift(self.clock())
        held = self.records.get(key)
        merged = given if held is None else merge(held, given)
        pushed = self._keep(key, merged, Outcome.APPLIED, is_all=merged.same_state(given))
        if not is_awaited:
            return pushed
        for told, name in self.listeners.items():
            if told not in self.deaf:
                self.tell(Confirmed(key, name))
        return pushed._replace(lessees=tuple(self.listeners.values()))

    async def absence(self, key: SessionKey | None) -> Absence:
        del key
        await self._called("absence")
        return Absence(self.may_forget_ends, self.mark)

    async def touch(self, touches: Mapping[SessionKey, int]) -> None:
        await self._called("touch")
        for key, ago_ms in touches.items():
            if key in self.records:
                self.records[key] = self.records[key].touch(self.clock() - ago_ms)

    async def listen(self, told: Callable[[Channel], None], is_used: Callable[[], bool] | None = None) -> None:
        self.listeners[told] = b"%d" % next(self._names)
        told(ChannelUp(self.primary))
        try:
            while True:
                if self.is_beating and told not in self.deaf and (is_used is None or is_used()):
                    told(Pulse(0))
                await asyncio.sleep(BEAT_S)
        finally:
            del self.listeners[told]

    async def expire(self, at_most: int) -> int:
        await self._called("expire")
        now_ms = self.clock()
        gone = [key for key, record in self.records.items() if self._due_ms(record) <= now_ms][:at_most]
        for key in gone:
            del self.records[key]
        return len(gone)

    # -- what tests do to it -------------------------------------------------------------------------------------------

    def tell(self, event: Channel) -> None:
        for told in list(self.listeners):
            if told not in self.deaf:
                told(event)

    def beat(self) -> None:
        """Every server hears that it has heard everything so far."""
        self.tell(Pulse(0))

    def cut(self) -> None:
        """The channel is lost."""
        self.tell(ChannelDown())

    def fail_over(self, records: dict[SessionKey, Record]) -> None:
        """Another primary, with what it happens to have."""
        self.records = records
        self.primary += "'"
        self.tell(ChannelDown())
        self.tell(ChannelUp(self.primary))

    def trips(self) -> int:
        """So many calls since this was last asked."""
        count = len(self.calls)
        self.calls.clear()
        return count

    async def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        if self.fails:
            raise self.failure(self.fails)

    def _due_ms(self, record: Record) -> int:
        """When it goes by itself: an end not before its session's deadline."""
        if record.state != LIVE:
            return record.deadline_ms
        return min(record.touched_ms + record.idle_ms * 11 // 10, record.deadline_ms)

    def _keep(self, key: SessionKey, record: Record, outcome: Outcome, *, is_all: bool) -> Pushed:
        self.records[key] = record
        if outcome is Outcome.APPLIED:
            self.tell(Changed(key, record.heads, record.state))
        rest = None if is_all and record.state == LIVE else record.shift(-self.clock())
        return Pushed(outcome, rest, self.is_acknowledging)
