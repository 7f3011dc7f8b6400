"""A store that all servers share, as the engine's other holder: cache, lease, queue and outage.

The table is a cache. A copy in it is served without a trip only under a live *lease*: the store's channel has told of every
change since the copy was known to be current. Without the channel every open asks. Changes of one session go to the store one
after the other; those that come meanwhile wait and go together, since the table holds them merged already.

While the store is away nobody waits for it: opens go on from held copies, and what changes is queued, one entry for each
session. One probe finds out when it is back. Then everything queued is pushed once, and every copy that is held is compared
with what the store has, so a store that came back empty, or without its last seconds, gets what the servers still know.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, OrderedDict
from itertools import count
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sessile.backend import Acknowledged, Ended, Pulled, PullStatus
from sessile.changes import check_is_live
from sessile.delta import Delta, Outcome
from sessile.errors import SessionLimit, SessionTooLarge, StoredRecordError, StoreError
from sessile.record import ENDED, LIVE, Record, merge
from sessile.service import Service, running_loop
from sessile.stores.base import FetchStatus, Pushed
from sessile.stores.leases import Leases
from sessile.stores.lines import Lines, each
from sessile.stores.outage import PATIENCE_S, Outage, probe_in_s
from sessile.stores.questions import Questions
from sessile.stores.recent import Recent
from sessile.stores.touches import Touches
from sessile.tasks import end_tasks

if TYPE_CHECKING:
    import threading
    from collections.abc import Awaitable, Callable
    from typing import Protocol

    from sessile.backend import Change
    from sessile.record import Heads
    from sessile.settings import Settings
    from sessile.stores.base import Store
    from sessile.stores.lines import Arrived
    from sessile.table import Table
    from sessile.token import SessionKey

    class Owner(Protocol):
        """The engine, as far as its store needs it."""

        settings: Settings
        table: Table
        lock: threading.Lock
        """Held by whoever works on the table."""
        clock_ms: Callable[[], int]


__all__ = ["Shared"]

_LOG: Final = logging.getLogger("sessile.store")
_RANDOM: Final = SystemRandom()
T = TypeVar("T")
RECENT_SHARE: Final = 0.25
"""What was pushed lately is kept for a failover in so much of `bytes_max`."""
LOST_MAX: Final = 200_000
"""So many sessions may wait for a store that is away; of more, the oldest are given up, and counted."""
ECHO_S: Final = 0.1
"""An end waits so long for the channel to tell of it: then it has told the other servers as well."""
TOUCH_S: Final = 0.25
EXPIRE_S: Final = 10.0
EXPIRED_AT_ONCE: Final = 500
AT_ONCE_SHARE: Final = 0.25
"""A call that failed within so much of `store_timeout` failed at once: there is time to try again."""


class Shared(Service):
    """The store, as a `Backend` of the engine.

    Args:
        owner: the engine.
        store: what keeps the sessions.
    """

    def __init__(self, owner: Owner, store: Store) -> None:
        super().__init__()
        self.store = store
        self.counts: Counter[str] = Counter()
        self._owner = owner
        self._settings = owner.settings
        self._reset()

    def _reset(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines = Lines(self._send)
        self._lost: OrderedDict[SessionKey, None] = OrderedDict()
        """Sessions with changes that the store may not have."""
        self._leases = Leases(self._owner.table, self._failed_over)
        self._recent = Recent(
            window_ms=round(self._settings.failover_window * 1000), bytes_max=self._settings.bytes_max * RECENT_SHARE
        )
        self._questions = Questions(self._fetch)
        self._touches = Touches(self.store, self._owner.clock_ms)
        self._outage = Outage()

    # -- life --------------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Connect. A store that is away is no reason not to serve."""
        self._owner.table.may_evict = self._may_evict
        try:
            await self.store.open()
        except StoreError as error:
            self._went_away(error)
        if self.store.has_channel:
            self._run(self.store.listen(self._leases.told))
        self._run(self._tell_touches())
        self._run(self._expire())

    async def end(self) -> None:
        """Let what is on its way arrive, for a moment, and close."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.ack_timeout):
                await self._lines.idle()
                await self._bring_lost()
                await self._bring_touches()
        await end_tasks(self._tasks)
        await self.store.close()
        self._reset()

    def abandon(self) -> None:
        self._reset()

    forget = abandon

    def _run(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("%s: a task failed", self.store.where, exc_info=task.exception())

    # -- what does not wait ------------------------------------------------------------------------------------------

    def holds(self, key: SessionKey) -> bool:
        del key
        return self._settings.cache != "off"

    def is_sure(self, key: SessionKey, now_ms: int) -> bool:
        del now_ms
        return key in self._leases and self._settings.cache == "leased"

    def is_trusting(self) -> bool:
        return self._settings.outage == "serve"

    def is_first_holder(self, key: SessionKey) -> bool:
        del key
        return True

    def is_settled(self, key: SessionKey) -> bool:
        return key not in self._lines and key not in self._lost

    def is_confirmed(self, key: SessionKey) -> bool:
        return self.is_settled(key)

    def _may_evict(self, key: SessionKey) -> bool:
        """Whether the table may let go of a copy: what only this server has, it must not."""
        if not self.is_settled(key):
            return False
        self._leases.drop(key)
        return True

    def touched(self, key: SessionKey, touched_ms: int) -> None:
        loop = self.loop
        if loop is None or running_loop() is loop:
            self._touches.note(key, touched_ms)
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(self._touches.note, key, touched_ms)

    # -- questions ---------------------------------------------------------------------------------------------------

    async def pull(self, key: SessionKey, have: Record | None, heads: Heads) -> Pulled:
        bound_s = self._settings.store_timeout + self._settings.pull_timeout + PATIENCE_S
        answer = await self.ask(lambda: self._pull(key, have, heads), bound_s)
        return answer or Pulled(PullStatus.UNREACHABLE)

    async def _pull(self, key: SessionKey, have: Record | None, heads: Heads) -> Pulled:
        """Ask, and where that will not do, ask again: what the browser has seen may be about to come to the store."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.pull_timeout
        for times in count():
            pulled = await self._pull_now(key, have, heads)
            left_s = self._outage.worth_s()
            record = have if pulled.status is PullStatus.UNREACHABLE else pulled.record
            if record is not None and (record.state != LIVE or record.covers(heads)):
                break
            if pulled.status in {PullStatus.CURRENT, PullStatus.RECORD}:
                left_s = max(left_s, until - loop.time())
            if left_s <= 0 or (pulled.status is PullStatus.NONE and not heads):
                break
            await self._outage.pause(times, left_s)
        return pulled

    async def _pull_now(self, key: SessionKey, have: Record | None, heads: Heads) -> Pulled:
        if not self._outage:
            return await self._questions.pull(key, have, heads)
        if have is not None and self._leases.is_over(key):
            return Pulled(PullStatus.RECORD, have.end(ENDED, self._owner.clock_ms()))
        return Pulled(PullStatus.UNREACHABLE)

    async def _fetch(self, key: SessionKey, have: Record | None) -> Pulled:
        """One trip. A copy that is out of time by what is known here is asked for as a whole: it may have been touched."""
        now_ms = self._owner.clock_ms()
        is_alive = have is not None and have.state == LIVE and have.expires_ms() > now_ms
        watch = self._leases.watch(key)
        self.counts["trips"] += 1
        try:
            version = have.version if is_alive and have is not None else None
            fetched = await self._try(lambda: self.store.fetch(key, version))
        except StoreError as error:
            self._went_away(error)
            return Pulled(PullStatus.UNREACHABLE)
        finally:
            self._leases.unwatch(key, watch)
        match fetched.status:
            case FetchStatus.CURRENT:
                self._leases.judge(key, watch, have)
                return Pulled(PullStatus.CURRENT, have)
            case FetchStatus.NONE:
                if is_alive and have is not None and self._leases.is_over(key):  # it is over, and forgotten by now
                    return Pulled(PullStatus.RECORD, have.end(ENDED, now_ms))
                if is_alive:  # the store lost it
                    self.counts["restored"] += 1
                    self._lose(key)
                    self._run(self._bring(key))
                    return Pulled(PullStatus.CURRENT, have)
                return Pulled(PullStatus.NONE)
            case FetchStatus.RECORD:
                assert fetched.record is not None, "it comes with RECORD"
                record = fetched.record.shift(self._owner.clock_ms())
                self._leases.judge(key, watch, record)
                return Pulled(PullStatus.RECORD, record)

    # -- changes -----------------------------------------------------------------------------------------------------

    async def push(self, key: SessionKey, change: Change | None, ack: str) -> Acknowledged:
        """As every backend does. Other servers' logouts and logins may be news to this one: the store has the last word.

        Raises:
            SessionConflict: the session was over when the change came to the store, which did not keep it.
        """
        answer = await self.ask(lambda: self._push(key, change, ack), self._settings.ack_timeout)
        return answer or Acknowledged.NO

    async def _push(self, key: SessionKey, change: Change | None, ack: str) -> Acknowledged:
        arriving = self._lines.last(key) if change is None else None
        if change is None and arriving is None:
            return Acknowledged.NO if key in self._lost else Acknowledged.YES
        echo = self._leases.echo(key) if isinstance(change, Ended) else None
        arriving = arriving or self._lines.add(key, change, ack)
        if ack == "none":
            return Acknowledged.YES
        try:
            async with asyncio.timeout(self._settings.ack_timeout):
                arrived = await asyncio.shield(arriving)
        except TimeoutError:
            self.counts["ack_timeouts"] += 1
            return Acknowledged.NO
        if isinstance(arrived, Record) and not _is_moot(change, arrived):
            self.counts["refused"] += 1
            check_is_live(arrived, self._owner.clock_ms())
        if echo is not None and arrived:
            await asyncio.wait((echo,), timeout=ECHO_S)
        return Acknowledged.YES if arrived else Acknowledged.NO

    async def _send(self, key: SessionKey, changes: list[Change], ack: str) -> Arrived:
        """Bring these to the store, in one trip where it has what they build on; what became of them there."""
        whole = self._whole(key, changes)
        if whole is None:  # it ran out of time meanwhile
            self._lost.pop(key, None)
            return False
        self._remember(key, whole)
        if self._outage:
            self._lose(key)
            return False
        watch = self._leases.watch(key)
        try:
            pushed = await self._try(lambda: self._push_once(key, changes, whole, ack))
        except StoreError as error:
            self._lose(key)
            self._went_away(error)
            return False
        finally:
            self._leases.unwatch(key, watch)
        self._lost.pop(key, None)
        record: Record | None = whole
        if pushed.rest is not None:
            record = self._merge_in(key, pushed.rest.shift(self._owner.clock_ms()))
        self._leases.judge(key, watch, record)
        if self._settings.cache == "off" and key not in self._lost:
            with self._owner.lock:
                self._owner.table.drop(key)
        self.counts["unacknowledged"] += not pushed.is_acknowledged
        over = pushed.rest if pushed.rest is not None and pushed.rest.state != LIVE else None
        if over is not None and not all(_is_moot(change, over) for change in changes):
            return over
        return pushed.is_acknowledged

    async def _push_once(self, key: SessionKey, changes: list[Change], whole: Record, ack: str) -> Pushed:
        self.counts["trips"] += 1
        only = changes[0] if len(changes) == 1 else None
        if isinstance(only, Delta) and key not in self._lost:
            pushed = await self.store.apply(only, ack)
            if pushed.outcome is not Outcome.NEED:
                return pushed
            self.counts["trips"] += 1
            self.counts["needed"] += 1
            whole = self._whole(key, changes) or whole
        return await self.store.merge(key, whole.shift(-self._owner.clock_ms()), ack)

    def _whole(self, key: SessionKey, changes: list[Change]) -> Record | None:
        """All that is known of a session here, these changes included."""
        packed = self._owner.table.get(key)
        record = None if packed is None else Record.unpack(packed)
        for change in changes:
            if isinstance(change, Delta):
                continue
            if record is None or isinstance(change, Ended) or not record.covers(change.record.heads):
                record = change.record if record is None else merge(record, change.record)
        return record

    def _merge_in(self, key: SessionKey, record: Record) -> Record:
        """Take over what the store has beyond what is held here."""
        with self._owner.lock:
            packed = self._owner.table.get(key)
            record = self._owner.table.judged(key, record, self._owner.clock_ms())
            merged = record if packed is None else merge(Record.unpack(packed), record)
            if packed is not None or merged.state != LIVE:
                with contextlib.suppress(SessionLimit, SessionTooLarge):
                    self._owner.table.put(key, merged)
        return merged

    # -- outage and failover -----------------------------------------------------------------------------------------

    def _failed_over(self) -> None:
        self.counts["failovers"] += 1
        self._outage.unsettle()
        _LOG.warning("%s: another primary answers", self.store.where)
        self._run(self._reconcile())

    async def _try(self, call: Callable[[], Awaitable[T]]) -> T:
        """Once more, should it fail at once: another primary may have taken over, and no call does harm twice."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            return await call()
        except StoredRecordError:
            raise
        except StoreError:
            if self._outage or loop.time() - began > AT_ONCE_SHARE * self._settings.store_timeout:
                raise
            await self.store.open()
            return await call()

    def _went_away(self, error: StoreError) -> None:
        """Nobody waits for the store until the probe has reached it. One session's record that is none is no reason for that."""
        if isinstance(error, StoredRecordError):
            if not self.counts["malformed"]:
                _LOG.error("%s; end that session, or remove what is stored of it", error)
            self.counts["malformed"] += 1
            return
        self.counts["store_errors"] += 1
        if not self._outage:
            self._outage.begin(str(error))
            self.counts["outages"] += 1
            self._leases.drop_all()
            _LOG.warning("%s is away: %s", self.store.where, error)
            self._run(self._return())

    async def _return(self) -> None:
        """Probe until the store is back, and bring it what it lacks."""
        for times in count():
            await asyncio.sleep(probe_in_s(times))
            try:
                await self.store.open()
                await self._probe()
            except StoreError as error:
                self._outage.reason = str(error)
                continue
            break
        self._outage.end()
        _LOG.warning("%s is back; %d sessions wait for it", self.store.where, len(self._lost))
        await self._bring_lost()
        await self._reconcile()

    async def _probe(self) -> None:
        """A write, if one waits; raises StoreError while the store does not take it."""
        key = next(iter(self._lost), None)
        whole = None if key is None else self._whole(key, [])
        if key is None or whole is None:
            await self.store.fetch(_RANDOM.randbytes(16), None)
        else:
            with contextlib.suppress(StoredRecordError):  # the store is well
                await self.store.merge(key, whole.shift(-self._owner.clock_ms()), "none")

    def _lose(self, key: SessionKey) -> None:
        """The store may not have all that is known here."""
        self._leases.drop(key)
        self._lost[key] = None
        if len(self._lost) > LOST_MAX:
            self.counts["given_up"] += 1
            self._lost.popitem(last=False)

    async def _bring(self, key: SessionKey) -> None:
        """Push all that is known of a session, as one change."""
        if not self._outage and key in self._lost:
            await self._lines.add(key, None, "none")

    async def _bring_lost(self) -> None:
        await each(list(self._lost), self._bring)

    async def _reconcile(self) -> None:
        """Compare every copy with the store, and what was pushed lately though no copy is held any more."""
        await each(list(self._recent), self._bring_again)
        await each(list(self._owner.table), self._compare)
        self.counts["reconciled"] += not self._outage

    async def _bring_again(self, key: SessionKey) -> None:
        """Push what was pushed within `failover_window`, if no copy of it is held any more."""
        now_ms = self._owner.clock_ms()
        packed = self._recent.get(key, now_ms)
        if packed is None or self._outage or self._owner.table.get(key) is not None:
            return
        self.counts["trips"] += 1
        try:
            await self.store.merge(key, Record.unpack(packed).shift(-now_ms), "none")
        except StoreError as error:
            self._went_away(error)

    async def _compare(self, key: SessionKey) -> None:
        packed = self._owner.table.get(key)
        if packed is None or self._outage or key in self._leases:
            return
        held = Record.unpack(packed)
        if key in self._lost or held.state != LIVE:
            self._lose(key)
            await self._bring(key)
            return
        pulled = await self._pull_now(key, held, ())
        if pulled.record is not None:
            self._merge_in(key, pulled.record)
        if pulled.status is PullStatus.RECORD and pulled.record is not None and not pulled.record.covers(held.heads):
            self._lose(key)
            await self._bring(key)

    def _remember(self, key: SessionKey, record: Record) -> None:
        """What a primary that fails may take with it."""
        packed = self._owner.table.get(key)
        self._recent.note(key, record.pack() if packed is None else packed, self._owner.clock_ms())

    # -- in the background -------------------------------------------------------------------------------------------

    async def _tell_touches(self) -> None:
        while True:
            await asyncio.sleep(TOUCH_S)
            await self._bring_touches()

    async def _bring_touches(self) -> None:
        if not self._outage:
            try:
                await self._touches.tell()
            except StoreError as error:
                self._went_away(error)

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_S * (0.5 + _RANDOM.random()))
            with contextlib.suppress(StoreError):
                count = EXPIRED_AT_ONCE
                while not self._outage and count >= EXPIRED_AT_ONCE:
                    count = await self.store.expire(EXPIRED_AT_ONCE)

    # -- what can be looked at ---------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """The store as this server sees it; plain values."""
        return {
            "state": "stopped" if not self.is_running else "away" if self._outage else "ready",
            "store": self.store.where,
            "is_single": self.store.is_single,
            "reason": self._outage.reason,
            "channel": "up" if self._leases.is_up else "down",
            "leased": len(self._leases),
            "pushes": len(self._lines),
            "queued": len(self._lost),
            "counts": dict(sorted((self.counts + Counter(forgotten=self._recent.forgotten)).items())),
        }


def _is_moot(change: Change | None, found: Record) -> bool:
    """Whether nothing is lost of this where the session was over already: only an end that the other one includes."""
    if isinstance(change, Ended):
        return change.record.state >= found.state
    return change is None
