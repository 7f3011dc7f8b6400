"""The backend for a store that all servers share: cache, leases, queue of changes, outages.

The table is a cache. A copy is served without a trip to the store only under a live *lease*: the store's channel has
announced no newer change since the copy was known to be current, and beats show that the channel is received. Without a
channel, every request asks the store. Changes of one session go to the store one after the other. Those made during a trip
wait and go together, as the table has merged them already. An end is answered when every server that may hold a lease has
confirmed it, or that server's lease has run out.

While the store is away no request waits for it: sessions are opened from held copies, and changes are queued, one entry for
each session. An end stays queued however long the outage lasts. One probe finds out when the store is back. Then everything
in the queue is pushed once, ends first, and every held copy is compared with the store. So a store that came back empty, or
without its last seconds, gets what the servers still know, ends included.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from itertools import count
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sessile.backend import Acknowledged, Ended, Pulled, PullStatus
from sessile.blocking import running_loop
from sessile.changes import check_is_live
from sessile.clock import whole_ms
from sessile.delta import Delta, Outcome
from sessile.errors import (
    SessionUnavailable,
    SettingsError,
    StarvedError,
    StoredRecordError,
    StoreError,
    StoreSetupError,
)
from sessile.record import ENDED, LIVE, Record, merge
from sessile.service import Service
from sessile.shown import counted
from sessile.stores.confirmations import Confirmations
from sessile.stores.epoch import Epoch
from sessile.stores.leases import LEASE_MS, Leases
from sessile.stores.lines import Lines, each
from sessile.stores.lost import Lost
from sessile.stores.outage import PATIENCE_S, Outage, probe_in_s
from sessile.stores.patience import STRETCH_MAX
from sessile.stores.pulls import Pulls
from sessile.stores.recent import Recent
from sessile.stores.remedies import away, refused, restarted
from sessile.stores.touches import Touches
from sessile.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Protocol

    from sessile.backend import Change
    from sessile.record import Heads
    from sessile.settings import Settings
    from sessile.stores.base import Pushed, Store
    from sessile.stores.confirmations import Expected
    from sessile.stores.leases import Copies
    from sessile.stores.lines import Arrived
    from sessile.token import SessionKey

    class Owner(Copies, Protocol):
        """The part of the engine that this module uses."""

        settings: Settings


__all__ = ["Shared"]

_LOG: Final = logging.getLogger("sessile.store")
_RANDOM: Final = SystemRandom()
T = TypeVar("T")
RECENT_SHARE: Final = 0.25
"""Recently pushed records are kept for a failover in at most this part of `bytes_max`."""
HEARD_S: Final = (LEASE_MS + 5) / 1000
"""An end waits at most this long for confirmations: by then no lease from before the end counts, rounding included."""
ROTATED_HEARD_S: Final = 0.1
"""The same for a rotation: a server that has not heard of it shows no more than the grace would allow."""
TRIPS_MAX: Final = 4
"""A calling thread waits for at most this many trips: for an end, those of the change before it and its own."""
TOUCH_S: Final = 0.25
EXPIRE_S: Final = 10.0
EXPIRED_AT_ONCE: Final = 500
AT_ONCE_SHARE: Final = 0.25
"""A call that fails within this part of `store_timeout` is tried again: there is time for it."""


class Shared(Service):
    """The store, as a `Backend` of the engine.

    Args:
        owner: the engine.
        store: the store that keeps the sessions.
    """

    def __init__(self, owner: Owner, store: Store) -> None:
        super().__init__()
        self.store = store
        self.counts: Counter[str] = Counter()
        self._owner = owner
        self._settings = owner.settings
        self._lost = Lost(self._has_ended)
        """Sessions with changes that the store may not have; they are kept when the service is restarted in this process."""
        self._reset()

    def _reset(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines = Lines(self._send)
        self._confirmations = Confirmations()
        self.leases = Leases(
            self._owner,
            self._confirmations,
            lasts_ms=whole_ms(self._settings.absolute_timeout),
            failed_over=self._failed_over,
            contradicted=self.end_again,
        )
        self._recent = Recent(
            window_ms=round(self._settings.failover_window * 1000), bytes_max=self._settings.bytes_max * RECENT_SHARE
        )
        self._touches = Touches(self.store, self._owner.clock_ms)
        self.outage = Outage()
        self.epoch = Epoch()
        self._pulls = Pulls(self, self._owner, self._settings)
        self._reconciling: asyncio.Event | None = None
        """Not None while a pass compares copies; set if another pass is to follow."""
        self._is_bringing = False
        """Whether changes that this starved process could not send are being sent again."""

    # -- life --------------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Connect. If the store is away, the server starts all the same; if the URL or the store must be changed, it does not.

        Raises:
            SettingsError: the store refuses, and waiting would not help.
        """
        self._owner.table.may_evict = self._may_evict
        try:
            await self.store.open()
            self.epoch.mark = (await self.store.absence(None)).mark
        except StoreSetupError as error:
            await self.store.close()
            raise SettingsError(refused(str(error), self._settings.called("url"), self._settings.url)) from None
        except StoreError as error:
            self.failed(error)
        if self.store.has_channel:
            self._run(self.store.listen(self.leases.told, self.leases.is_used))
        self._run(self._tell_touches())
        self._run(self._expire())
        if len(self._lost):  # the service was stopped and is started again
            self._run(self._bring_lost())

    async def end(self) -> None:
        """Wait at most `ack_timeout` for changes under way to arrive, and close."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.ack_timeout):
                await self._lines.idle()
                await self._bring_lost()
                await self._bring_touches()
        if len(self._lost):
            _LOG.warning(
                "%s: stopping; changes to %s never reached the store",
                self.store.where,
                counted(len(self._lost), "session"),
            )
        await end_tasks(self._tasks)
        await self._pulls.end(self._settings.ack_timeout)
        await self.store.close()
        self._reset()

    def abandon(self) -> None:
        self._reset()

    def forget(self) -> None:
        """In a forked child: leave unsent changes to the parent."""
        self._lost = Lost(self._has_ended)
        self._reset()

    def _run(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("%s: a task failed", self.store.where, exc_info=task.exception())

    # -- calls that never wait ---------------------------------------------------------------------------------------

    def holds(self, key: SessionKey) -> bool:
        del key
        return self._settings.cache != "off"

    def is_sure(self, key: SessionKey, now_ms: int) -> bool:
        return self.leases.is_sure(key, now_ms) and self._settings.cache == "leased"

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
        """Whether the table may drop a copy: not while only this server has a change."""
        if not self.is_settled(key):
            return False
        self.leases.drop(key)
        return True

    def _has_ended(self, key: SessionKey) -> bool:
        """Whether the end of the session is known and still matters."""
        with self._owner.lock:
            return self._owner.table.knows_end(key)

    def touched(self, key: SessionKey, touched_ms: int) -> None:
        loop = self.loop
        if loop is None or running_loop() is loop:
            self._touches.note(key, touched_ms)
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(self._touches.note, key, touched_ms)

    # -- questions ---------------------------------------------------------------------------------------------------

    async def pull(self, key: SessionKey, have: Record | None, heads: Heads) -> Pulled:
        bound_s = self._trips_s() + self._settings.pull_timeout + PATIENCE_S
        answer = await self.ask(lambda: self._pulls.pull(key, have, heads), bound_s)
        why = PullStatus.UNREACHABLE if self.outage else PullStatus.STARVED
        return answer or self._pulls.without_store(key, have, why)

    # -- changes -----------------------------------------------------------------------------------------------------

    async def push(self, key: SessionKey, change: Change | None, ack: str) -> Acknowledged:
        """Push a change, as every backend does. This server may not have heard of a logout yet, so the store decides.

        Raises:
            SessionUnavailable: the store did not answer, though it is not away; so it is unknown whether an end has arrived.
            SessionConflict: the session was over when the change reached the store, which did not store it.
        """
        is_end = isinstance(change, Ended) or self._has_ended(key)
        bound_s = self._trips_s() + HEARD_S if is_end else self._settings.ack_timeout
        answer = await self.ask(lambda: self._push(key, change, ack, is_end=is_end), bound_s)
        if answer is None and is_end and not self.outage:
            raise _uncertain()
        return answer or Acknowledged.NO

    def _trips_s(self) -> float:
        """How long `TRIPS_MAX` trips may take if this process is short of processor time."""
        return TRIPS_MAX * STRETCH_MAX * self._settings.store_timeout

    async def _push(self, key: SessionKey, change: Change | None, ack: str, *, is_end: bool) -> Acknowledged:
        """Push on the loop. An end always waits for its trip, which is bounded, whatever `ack` and `ack_timeout` are."""
        arriving = self._lines.last(key) if change is None else None
        if change is None and arriving is None and key not in self._lost:
            return Acknowledged.YES
        whole = self._whole(key, []) if change is None and is_end else None
        if whole is not None:  # sent again, to be confirmed for this request as for the one that ended the session
            change, arriving = Ended(key, whole), None
        elif change is None and arriving is None:
            return Acknowledged.NO
        arriving = arriving or self._lines.add(key, change, ack)
        if ack == "none" and not is_end:
            return Acknowledged.YES
        try:
            async with asyncio.timeout(None if is_end else self._settings.ack_timeout):
                arrived = await asyncio.shield(arriving)
        except TimeoutError:
            self.counts["ack_timeouts"] += 1
            return Acknowledged.NO
        if arrived is None and is_end:
            raise _uncertain()
        if isinstance(arrived, Record) and not _is_moot(change, arrived):
            self.counts["refused"] += 1
            check_is_live(arrived, self._owner.clock_ms())
        return Acknowledged.YES if arrived else Acknowledged.NO

    async def _send(self, key: SessionKey, changes: list[Change], ack: str) -> Arrived:
        """Send these changes to the store, in one trip if it has what they build on. Returns their outcome.

        If one of them is an end, this waits until every server that may serve a copy has confirmed it.
        """
        with self._confirmations.expecting(key) as expected:
            ended = max((change.record.state for change in changes if isinstance(change, Ended)), default=LIVE)
            pushed = await self._deliver(key, changes, ack, is_awaited=ended != LIVE)
            if isinstance(pushed, StarvedError):
                return None
            if pushed is None:
                return False
            if ended != LIVE:
                await self._heard(expected, pushed, ended)
        over = pushed.rest if pushed.rest is not None and pushed.rest.state != LIVE else None
        if over is None and ended == LIVE and changes and self._has_ended(key):
            over = self._whole(key, [])  # the end became known here, and was sent instead of the changes
        if over is not None and not all(_is_moot(change, over) for change in changes):
            return over
        return pushed.is_acknowledged

    async def _heard(self, expected: Expected, pushed: Pushed, ended: int) -> None:
        at_most_s = HEARD_S if ended >= ENDED else ROTATED_HEARD_S
        if not await expected.wait(pushed.lessees, at_most_s):
            self.counts["unconfirmed_ends"] += 1

    async def _deliver(
        self, key: SessionKey, changes: list[Change], ack: str, *, is_awaited: bool
    ) -> Pushed | StarvedError | None:
        """Send these changes. Returns the store's answer; None if the store is away or nothing is left to send."""
        whole = self._whole(key, changes)
        if whole is None and not all(isinstance(change, Delta) for change in changes):
            self._lost.discard(key)
            return None
        if whole is not None:
            self._remember(key, whole)
        if self.outage:
            self._lose(key)
            return None
        watch = self.leases.watch(key)
        try:
            pushed = await self.attempt(lambda: self._push_once(key, changes, whole, ack, is_awaited=is_awaited))
        except StoreError as error:
            self._lose(key)
            self.failed(error)
            return error if isinstance(error, StarvedError) else None
        finally:
            self.leases.unwatch(key, watch)
        if pushed is None:  # the session has expired meanwhile
            self._lost.discard(key)
            return None
        self._lost.discard(key)
        record = whole
        if pushed.rest is not None:
            record = self._merge_in(key, pushed.rest.shift(self._owner.clock_ms()))
        self.leases.judge(key, watch, record)
        if self._settings.cache == "off" and not self._lines.is_waiting(key):
            with self._owner.lock:
                if not self._owner.table.has_ended(key):
                    self._owner.table.drop(key)
        self.counts["unacknowledged"] += not pushed.is_acknowledged
        return pushed

    async def _push_once(
        self, key: SessionKey, changes: list[Change], whole: Record | None, ack: str, *, is_awaited: bool
    ) -> Pushed | None:
        """Make one trip, and a second one if the store lacks the base of a single change. None if there is nothing to send."""
        only = changes[0] if len(changes) == 1 else None
        if isinstance(only, Delta) and key not in self._lost:
            self.counts["trips"] += 1
            pushed = await self.store.apply(only, ack)
            if pushed.outcome is not Outcome.NEED:
                return pushed
            self.counts["needed"] += 1
            whole = self._whole(key, changes) or whole
        if whole is None:
            return None
        self.counts["trips"] += 1
        return await self.store.merge(key, whole.shift(-self._owner.clock_ms()), ack, is_awaited=is_awaited)

    def _whole(self, key: SessionKey, changes: list[Change]) -> Record | None:
        """The session's record as it is known here, with these changes; its tombstone if its end is known."""
        now_ms = self._owner.clock_ms()
        with self._owner.lock:
            table = self._owner.table
            packed, remembered = table.get(key), table.remembered(key, now_ms)
        record = remembered if packed is None else Record.unpack(packed)
        if record is not None and record.state == LIVE and remembered is not None:
            record = table.over(key, record, now_ms)
        for change in changes:
            if isinstance(change, Delta):
                continue
            if record is None or isinstance(change, Ended) or not record.covers(change.record.heads):
                record = change.record if record is None else merge(record, change.record)
        return record

    def _merge_in(self, key: SessionKey, record: Record) -> Record:
        """Merge a record of the store into the copy held here."""
        with self._owner.lock:
            packed = self._owner.table.get(key)
            record = self._owner.table.judged(key, record, self._owner.clock_ms())
            merged = record if packed is None else merge(Record.unpack(packed), record)
            if packed is not None or merged.state != LIVE:
                self._owner.table.offer(key, merged)
        return merged

    # -- outage and failover -----------------------------------------------------------------------------------------

    def _failed_over(self) -> None:
        self.counts["failovers"] += 1
        self.outage.unsettle()
        _LOG.warning(restarted(self.store.where, is_single=self.store.is_single))
        self._run(self._reconcile())

    async def attempt(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call, and again if it fails at once: another primary may have taken over. Repeating a call does no harm."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            return await call()
        except (StoredRecordError, StarvedError):
            raise
        except StoreError:
            if self.outage or loop.time() - began > AT_ONCE_SHARE * self._settings.store_timeout:
                raise
            await self.store.open()
            return await call()

    def failed(self, error: StoreError) -> PullStatus:
        """React to a failed call. It usually means that the store is away: then no request waits for it until a probe succeeds.

        A malformed record of one session does not begin an outage, nor does a lack of processor time in this process.
        """
        if isinstance(error, StarvedError):
            self._starved(error)
            return PullStatus.STARVED
        self._went_away(error)
        return PullStatus.UNREACHABLE

    def _starved(self, error: StarvedError) -> None:
        """Repeat what failed for lack of processor time: unsent changes, and a comparison that is under way."""
        if not self.counts["starved"]:
            _LOG.warning("%s", error)
        self.counts["starved"] += 1
        if self._reconciling is not None:
            self._reconciling.set()
        if self._lost and not self._is_bringing:
            self._is_bringing = True
            self._run(self._bring_later())

    async def _bring_later(self) -> None:
        """Send the unsent changes, unless the store is away: then they are sent when it is back."""
        try:
            for times in count():
                await asyncio.sleep(probe_in_s(times))
                starved = self.counts["starved"]
                if self.outage:
                    break
                await self._bring_lost()
                if self.counts["starved"] == starved:
                    break
        finally:
            self._is_bringing = False

    def _went_away(self, error: StoreError) -> None:
        if isinstance(error, StoredRecordError):
            if not self.counts["malformed"]:
                _LOG.error("%s; end that session, or remove what is stored of it", error)
            self.counts["malformed"] += 1
            return
        self.counts["store_errors"] += 1
        if not self.outage:
            self.outage.begin(str(error))
            self.counts["outages"] += 1
            self.leases.drop_all()
            _LOG.warning(away(str(error), self._settings.called("url"), self._settings.outage))
            self._run(self._return())

    async def _return(self) -> None:
        """Probe until the store is back, and send it what it lacks."""
        for times in count():
            await asyncio.sleep(probe_in_s(times))
            try:
                await self.store.open()
                await self._probe()
            except StoreError as error:
                self.outage.reason = str(error)
                continue
            break
        self.outage.end()
        _LOG.warning("%s is back; %s to be sent to it", self.store.where, counted(len(self._lost), "session"))
        await self._bring_lost()
        await self._reconcile()

    async def _probe(self) -> None:
        """Send one of the waiting changes, or else a read. Raises StoreError while the store does not accept it."""
        key = next(iter(self._lost), None)
        whole = None if key is None else self._whole(key, [])
        if key is None or whole is None:
            await self.store.fetch(_RANDOM.randbytes(16), None)
        else:
            with contextlib.suppress(StoredRecordError):  # the store itself answers
                await self.store.merge(key, whole.shift(-self._owner.clock_ms()), "none")

    def _lose(self, key: SessionKey) -> None:
        """Note that the store may lack a change that is known here."""
        self.leases.drop(key)
        self._lost.add(key, is_end=self._has_ended(key))

    def bring_soon(self, key: SessionKey) -> None:
        """Send the session to the store, which lacks a change, without waiting for it."""
        self._lose(key)
        self._run(self._bring(key))

    def end_again(self, key: SessionKey) -> None:
        """The store has a live session whose end is known here: send the end again, unless it is on its way."""
        if self.is_settled(key):
            self.counts["ended_again"] += 1
            self.bring_soon(key)

    async def _bring(self, key: SessionKey) -> None:
        """Push the whole record of a session, if the store may lack a change to it."""
        if not self.outage and key in self._lost:
            await self._lines.add(key, None, "none")

    async def _bring_lost(self) -> None:
        await each(list(self._lost), self._bring)

    def reconcile_soon(self) -> None:
        """The store has lost its data: compare every copy with it."""
        self._run(self._reconcile())

    async def _reconcile(self) -> None:
        """Compare every copy with the store, and push again what was pushed lately and is not held any more.

        One pass at a time; a call during a pass makes another pass follow.
        """
        if self._reconciling is not None:
            self._reconciling.set()
            return
        again = self._reconciling = asyncio.Event()
        try:
            again.set()
            while again.is_set() and not self.outage:
                again.clear()
                await self._compare_all()
        finally:
            self._reconciling = None

    async def _compare_all(self) -> None:
        try:
            mark = (await self.store.absence(None)).mark
        except StoreError as error:
            self.failed(error)
            return
        await each(list(self._recent), self._bring_again)
        await each(list(dict.fromkeys([*self._owner.table.ended(), *self._owner.table])), self._compare)
        if not self.outage:
            self.epoch.mark = mark
            self.counts["reconciled"] += 1

    async def _bring_again(self, key: SessionKey) -> None:
        """Push what was pushed within `failover_window`, if no copy of it is held any more."""
        now_ms = self._owner.clock_ms()
        packed = self._recent.get(key, now_ms)
        if packed is None or self.outage or self._owner.table.get(key) is not None:
            return
        self.counts["trips"] += 1
        try:
            await self.store.merge(key, Record.unpack(packed).shift(-now_ms), "none")
        except StoreError as error:
            self.failed(error)

    async def _compare(self, key: SessionKey) -> None:
        packed = self._owner.table.get(key)
        if packed is None or self.outage or key in self.leases:
            return
        held = Record.unpack(packed)
        if key in self._lost or held.state != LIVE:
            self._lose(key)
            await self._bring(key)
            return
        pulled = await self._pulls.once(key, held)
        if pulled.record is not None:
            self._merge_in(key, pulled.record)
        if pulled.status is PullStatus.RECORD and pulled.record is not None and not pulled.record.covers(held.heads):
            self._lose(key)
            await self._bring(key)

    def _remember(self, key: SessionKey, record: Record) -> None:
        """Keep a pushed record for a while: if the store's primary fails, the change may be lost there."""
        packed = self._owner.table.get(key)
        self._recent.note(key, record.pack() if packed is None else packed, self._owner.clock_ms())

    # -- in the background -------------------------------------------------------------------------------------------

    async def _tell_touches(self) -> None:
        while True:
            await asyncio.sleep(TOUCH_S)
            await self._bring_touches()

    async def _bring_touches(self) -> None:
        if not self.outage:
            try:
                await self._touches.tell()
            except StoreError as error:
                self.failed(error)

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_S * (0.5 + _RANDOM.random()))
            with contextlib.suppress(StoreError):
                count = EXPIRED_AT_ONCE
                while not self.outage and count >= EXPIRED_AT_ONCE:
                    count = await self.store.expire(EXPIRED_AT_ONCE)
            self.leases.thin_out()

    # -- status -----------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """The store as this server sees it; plain values."""
        also = {"forgotten": self._recent.forgotten, "given_up": self._lost.given_up}
        return {
            "state": "stopped" if not self.is_running else "away" if self.outage else "ready",
            "store": self.store.where,
            "is_single": self.store.is_single,
            "reason": self.outage.reason,
            "channel": ("up" if self.leases.is_up else "down") if self.store.has_channel else "none",
            "leased": len(self.leases),
            "pushes": len(self._lines),
            "queued": len(self._lost),
            "queued_ends": self._lost.ends,
            "counts": dict(sorted((self.counts + self.store.counts + Counter(also)).items())),
        }


def _uncertain() -> SessionUnavailable:
    return SessionUnavailable(
        "nobody can tell whether the end of the session has come to the store; it is brought again"
    )


def _is_moot(change: Change | None, found: Record) -> bool:
    """Whether a change need not be stored because the session was over: it is an end that `found` includes."""
    if isinstance(change, Ended):
        return change.record.state >= ENDED or change.record.state >= found.state
    return change is None
