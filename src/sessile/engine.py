"""Open and commit, rotate and end: the only thing adapters call.

The engine puts the parts together for one process. Cookies identify the session and the state the browser has seen, the
table holds records, and a backend (None for ``sticky://``) talks to the other holders. `open` is lazy and never waits.
`prepare` asks other holders if the table cannot answer. `commit` applies a handler's changes to the table at once, and returns
the steps that `settle` must take with the backend before the response may leave.

One lock guards the table; it is held for microseconds and never while waiting. No state is bound to an event loop.
"""

from __future__ import annotations

import secrets
import threading
from base64 import b64encode
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Unpack
from weakref import WeakValueDictionary

from sessile import codec
from sessile.backend import Acknowledged, Ended, PullStatus, Whole
from sessile.blocking import run_blocking, running_loop
from sessile.changes import Changes, Verb, carried_over, check_is_live, rebased
from sessile.clock import boot_clock_ms, whole_ms
from sessile.connect import connect
from sessile.cookies import says_https
from sessile.counts import COUNTED
from sessile.credentials import OVERRULED_HTTPS, Credentials
from sessile.delta import Delta
from sessile.errors import (
    SessionConflict,
    SessionEnded,
    SessionLimit,
    SessionRotated,
    SessionTooLarge,
    SessionTooLate,
    SessionUnavailable,
    SettingsError,
)
from sessile.forks import call_after_fork, taken
from sessile.record import ENDED, LIVE, REPLACED, ROTATED, WRITER_BITS, Record, merge
from sessile.session import WROTE_ROTATED, LastingSession, Limits, Opened, Session
from sessile.settings import Settings
from sessile.sweeper import Sweeper
from sessile.table import Table
from sessile.token import HEADS_MAX, Identity, SessionKey, Visitor
from sessile.visit import Given, Step, Visit
from sessile.watchers import Watchers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence

    from sessile.backend import Backend
    from sessile.keywords import Keywords

    Server = str | Sequence[Any] | None

__all__ = ["Engine", "engine_of"]

IDLE_SLACK: Final = 0.1
"""With other holders, an idle session is held longer than it is served, by this part of its idle timeout."""
TOUCH_FRACTION: Final = 10
"""A session is touched when this fraction (a tenth) of its idle timeout has passed since the last touch."""
ASK_S: Final = 5.0
"""How often `until_ended` asks the other holders or the store, if they may not announce the end to this server."""
LOOK_S: Final = 0.01
"""`until_ended` checks this long after a session expires, so that it finds it expired."""
LOST_MAX: Final = 10_000
"""At most this many keys in `Engine._lost`. Beyond it, the engine draws a new writer tag instead."""
BATCH_BYTES: Final = 9
"""Random bytes in the names of what a request appends to lists."""
WRITERS_RENEWED: Final = 256
"""When a session has this many writers and a new one writes to it, it gets a new id and a record with one writer."""
WRITERS_WRITTEN_MAX: Final = 1_024
"""Writers of a session that cannot get a new id. Leaves room below `record.WRITERS_MAX` for parallel writers."""


class Engine:
    """The sessions of one process.

    Args:
        settings: the settings; without it, `keywords` are passed to `Settings.load`.
        backend: the other holders; without it, the backend that the URL names, if any.
        clock_ms: returns whole milliseconds, and never goes back.
        draw: returns this many random bytes.
        sweeps: whether a thread drops expired sessions from memory; if not, the caller must call `sweep`.
        keywords: settings by name.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        backend: Backend | None = None,
        clock_ms: Callable[[], int] = boot_clock_ms,
        draw: Callable[[int], bytes] = secrets.token_bytes,
        sweeps: bool = True,
        **keywords: Unpack[Keywords],
    ) -> None:
        if settings is not None and keywords:
            raise SettingsError(f"give Engine either settings or keywords, not both: {', '.join(sorted(keywords))}")
        self.settings = settings = Settings.load(**keywords) if settings is None else settings
        self.counts: Counter[str] = Counter()
        is_shared = backend is not None or settings.is_cluster or settings.is_store
        self.table = Table(
            sessions_max=settings.sessions_max,
            bytes_max=settings.bytes_max,
            rotation_grace_ms=whole_ms(settings.rotation_grace),
            rotated_keep_ms=whole_ms(settings.rotated_keep) if is_shared else 0,
            tombstone_keep_ms=whole_ms(settings.tombstone_keep),
            idle_slack=IDLE_SLACK if is_shared else 0.0,
        )
        self._limits = Limits(settings.fields_max, settings.value_bytes_max, settings.session_bytes_max)
        self._idle_ms = whole_ms(settings.idle_timeout)
        self._anonymous_ms = whole_ms(settings.anonymous_timeout) or self._idle_ms
        self._absolute_ms = whole_ms(settings.absolute_timeout)
        self.clock_ms = clock_ms
        self._draw = draw
        self.lock = threading.Lock()
        """Held while the table is changed, by the backend's node as well."""
        self.is_draining = False
        """Whether this server is about to stop. Health checks then ask balancers to send new requests elsewhere."""
        self._writer = 0
        self._lost: set[SessionKey] = set()
        """Sessions that may come back without some of the writes that this process made under its present tag."""
        self._given: WeakValueDictionary[SessionKey, Given] = WeakValueDictionary()
        self.backend = connect(self) if backend is None else backend
        self._watchers = Watchers()
        self.table.on_end = self._watchers.ended
        if self.backend is not None:
            self.table.on_expired = self._on_expired
            self.table.on_entered = self._start_sweeper  # peers and stores bring records as well as requests
        self._sweeps = sweeps
        self._sweeper: Sweeper | None = None
        self._is_unswept = False
        """Whether this process inherited sessions at a fork, and has not started a sweeper for them yet."""
        self._credentials = Credentials(settings, self.counts, self.table.state, draw)
        self.doubts_http = settings.secure == "auto"
        """Whether to look for headers of a proxy that ends TLS in front of this server, to warn about it once."""
        call_after_fork(self._after_fork, before=self._before_fork)

    # -- the life of a request ---------------------------------------------------------------------------------------

    def open(
        self, cookie_headers: Iterable[bytes], *, is_https: bool, server: Server = None, is_lasting: bool = False
    ) -> Session:
        """The session of a request. Nothing is looked up before its first touch.

        Args:
            cookie_headers: the values of the request's Cookie headers.
            is_https: whether the request came over HTTPS, as far as the server can tell.
            server: the address the request came in at, alone or with its port; needed only where no secret is set.
            is_lasting: whether the connection stays open, so that each read of the session counts as a use.

        Raises:
            SettingsError: no secret is set, and the server is reachable from outside this machine.
        """
        if self._is_unswept:
            self._is_unswept = False
            self._start_sweeper()
        if self._credentials.keyring is None:
            host = server if server is None or isinstance(server, str) else server[0]
            self._credentials.draw_secret(host, is_alone=self.backend is None)
        make = LastingSession if is_lasting else Session
        return make(self, self._limits, Visit(cookie_headers, is_https=is_https))

    def hear_of_proxy(self, forwarded: bytes) -> None:
        """Warn once if this X-Forwarded-Proto or Forwarded header of a request over http says https."""
        if says_https(forwarded):
            self.doubts_http = False
            self._credentials.warn_once("https", OVERRULED_HTTPS)

    async def prepare(self, session: Session) -> None:
        """Ask the other holders if this server's copy is missing, or older than what the browser has seen.

        Does nothing without a backend. If the holders do not answer, it is the session's first touch that raises.
        """
        visit: Visit = session.visit
        visitor = self._identify(visit)
        if self.backend is None or visitor is None:
            return
        key, seen = visitor.identity.key, visitor.seen
        now_ms = self.clock_ms()
        with self.lock:
            found = self.table.find(key)
            is_over = found is None and key in self.table.ends
        if is_over:
            return
        visit.pulled = held = None if found is None else found[1]
        is_alive = held is not None and held.state == LIVE and held.expires_ms() > now_ms
        is_known = not visitor.is_version_foreign  # a late response may have replaced the version cookie
        is_newest = (
            is_known and is_alive and held is not None and held.covers(seen) and self.backend.is_sure(key, now_ms)
        )
        if is_newest or (held is not None and held.state != LIVE):
            return
        with self.lock:  # from here on, what this process writes to the session is known to this request
            visit.given = self._given.setdefault(key, Given())
            visit.pulled = held = self._held(key)
        pulled = await self.backend.pull(key, held, seen)
        if pulled.record is not None:
            visit.pulled = self._merge_in(key, pulled.record)
        elif pulled.status is PullStatus.STARVED or (
            pulled.status is PullStatus.UNREACHABLE and (not is_alive or not self.backend.is_trusting())
        ):
            visit.unavailable = "too few holders of this session answered within pull_timeout"

    def commit(self, session: Session, *, is_late: bool = False) -> list[Step]:
        """Apply what the handler did to this server's table.

        Args:
            session: the request's session.
            is_late: whether the head of the response has left, so that no version cookie can be sent.

        Returns:
            The steps to pass to `settle` before the response leaves; empty if no other holder need know.

        Raises:
            SessionConflict: the session ended or was rotated meanwhile. Nothing was stored.
            SessionLimit: there is no room for a new session. Nothing was stored.
            EncodeError, SessionTooLarge: a mutable value can no longer be stored. Nothing was stored.
            SessionTooLate: the head has left, and the change needs a new id. Nothing was stored.
        """
        visit: Visit = session.visit
        if not (session.may_have_changed or visit.is_crowded):
            return [] if self.backend is None or is_late else self._unsettled(session)
        changes = session.take()
        if not (changes or visit.is_crowded):
            return [] if self.backend is None or is_late else self._unsettled(session)
        # A second logout of the same session waits, like the first, until the other servers know of the end.
        waited = [] if self.backend is None or session.opened.record is not None else self._unsettled(session)
        if is_late:
            session.is_head_sent = True
            self.counts["late"] += 1
        try:
            with self.lock:
                steps = self._apply(session, visit, changes)
        except SessionLimit as error:
            self._credentials.warn_once("session-limit", f"{error}; until then new sessions are answered 503")
            raise
        except SessionConflict:
            session.discard()
            if not changes:
                return []
            self.counts["conflicts"] += 1
            raise
        return [*waited, *steps] if waited else steps

    async def settle(self, steps: list[Step]) -> None:
        """Take the steps of a commit in order, and wait for acknowledgements as the setting `ack` demands.

        Raises:
            SessionUnavailable: too few holders confirmed in time, and `degraded` is `refuse`.
            SessionConflict: the session was over when the change reached the store, which stored nothing of it.
        """
        assert self.backend is not None, "steps come only from an engine that has a backend"
        for step in steps:
            try:
                change = step.change if step.make is None else step.make()
                pushed = await self.backend.push(step.key, change, self.settings.ack)
                if step.check is not None:
                    step.check()
            except SessionEnded:
                if step.undo is not None:
                    await self.settle([step.undo])
                raise
            if pushed is not Acknowledged.YES:
                self.counts["degraded"] += 1
                if self.settings.degraded == "refuse":
                    raise SessionUnavailable("too few holders confirmed the change within ack_timeout")

    def cookies(self, session: Session) -> list[bytes]:
        """The Set-Cookie values of the response. Call this when its head is about to leave.

        From then on the session refuses every change that would need a new id.
        """
        session.is_head_sent = True
        if not session.accessed:
            return []
        visit: Visit = session.visit
        opened = session.opened
        if opened is _PAST:
            return self._credentials.tell_past(visit.presented, visit.visitor)
        if opened.record is None:
            return self._credentials.revoke(visit.presented) if visit.has_ended else []
        if (visit.is_current or opened.is_read_only) and not session.is_committed:
            return []
        return self._credentials.issue(visit.presented, visit.visitor, opened.record, is_new=visit.is_created)

    def refusal_cookies(self, session: Session) -> list[bytes]:
        """The Set-Cookie values of an error response: if the request's id was rotated, a version that says so."""
        is_past = session.accessed and session.opened is _PAST
        return self._credentials.tell_past(session.visit.presented, session.visit.visitor) if is_past else []

    # -- the life of the process -------------------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether balancers may send requests here: this server has joined the others, and is not about to stop."""
        return not self.is_draining and (self.backend is None or self.backend.is_running)

    @property
    def writer(self) -> int:
        """This process's tag in the versions of what it writes; drawn at its first write, anew after a fork."""
        if not self._writer:
            self._writer = int.from_bytes(self._draw(WRITER_BITS // 8), "big") or 1
        return self._writer

    def _renew_writer(self) -> None:
        self._writer = 0
        self._lost.clear()

    def draw_writer(self) -> None:
        """Write under a new tag: this server starts over, and its writes under the present tag may come back."""
        self._renew_writer()
        self._given.clear()

    def sweep(self) -> bool:
        """Drop some of what has expired. Returns whether there is more to drop at once."""
        with self.lock:
            return self.table.sweep(self.clock_ms())

    def stats(self) -> dict[str, int]:
        """Counters and gauges, by name."""
        return {
            "sessions": self.table.sessions,
            "tombstones": self.table.tombstones,
            "ends": len(self.table.ends),
            "bytes": self.table.held_bytes,
            **{name: self.counts[name] for name in COUNTED},
            "expired": self.table.expired,
        }

    def close(self) -> None:
        """Stop the sweeper. The engine may be used again; it then starts another."""
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is not None:
            sweeper.stop()

    # -- opening -----------------------------------------------------------------------------------------------------

    def load(self, session: Session) -> Opened:
        """The state that the session starts from: the record that is held here, compared with what the browser has seen.

        Raises:
            SessionUnavailable: its holders did not answer, or none has what the browser has seen and the setting `stale`
                is `refuse`.
        """
        visit: Visit = session.visit
        if visit.presented is None and self.backend is not None:  # a synchronous adapter: nothing was asked yet
            run_blocking(self.prepare(session))
        visitor = visit.visitor if visit.presented is not None else self._identify(visit)
        if visitor is None:
            return _NOTHING
        if visit.unavailable:
            self.counts["unavailable"] += 1
            raise SessionUnavailable(visit.unavailable)
        key = visitor.identity.key
        found = self.table.find(key)
        if found is not None:
            visit.packed, record = found
            return self._serve(visit, visitor, key, record, len(found[0]))
        if visit.pulled is not None and key not in self.table.ends:
            return self._serve(visit, visitor, key, visit.pulled, len(visit.pulled.pack()))
        if self.table.ends.is_replaced(key):
            return _NOTHING if visitor.is_past else _PAST
        self.counts["unknown_here"] += 1
        if self.backend is None:
            self._credentials.warn_unknown(visitor, self._writer, differing=self._differing(visitor))
        return _NOTHING

    def _differing(self, visitor: Visitor) -> list[str]:
        """If another engine of this process wrote to the session: the settings in which it differs. Otherwise empty."""
        writers = {stamp.writer for stamp in visitor.seen} - {self._writer}
        for settings, other in list(_shared.items()):
            if other is not self and other._writer in writers:  # noqa: SLF001  # the tag of one that has written
                return self.settings.differing(settings)
        return []

    def _serve(self, visit: Visit, visitor: Visitor, key: SessionKey, record: Record, packed_bytes: int) -> Opened:
        """What the request may see of a record: all of it, its last state read-only, or nothing."""
        now_ms = self.clock_ms()
        idle_ms = record.idle_ms
        unused_ms = now_ms - record.touched_ms
        if record.state != LIVE:
            if self.table.is_in_grace(record, now_ms):
                return Opened(record, key, is_read_only=True)
            return _PAST if record.state in {ROTATED, REPLACED} and not visitor.is_past else _NOTHING
        if unused_ms >= idle_ms or record.deadline_ms <= now_ms:
            return _NOTHING
        if record.has_heads(visitor.seen):
            visit.is_current = True
        else:
            visit.is_crowded = len(record.head_places) > HEADS_MAX
            if not record.covers(visitor.seen):
                # A parallel request may have stored an older copy than this request has pulled.
                if visit.pulled is not None and not record.covers(visit.pulled.heads):
                    record = self._merge_in(key, visit.pulled)
                    visit.packed = self.table.get(key)
                    return self._serve(visit, visitor, key, record, len(record.pack()))
                self._note_stale(visit)
        if unused_ms * TOUCH_FRACTION >= idle_ms:
            record = self._touch(visit, key, record, now_ms)
        return Opened(record, key, packed_bytes, visit.is_stale)

    def _note_stale(self, visit: Visit) -> None:
        """No holder that answered has what the browser has seen: mark the session stale or refuse it, as `stale` demands."""
        visit.is_stale = True
        self.counts["stale"] += 1
        if self.settings.stale == "refuse":
            visit.unavailable = "no holder of this session has what its browser has seen"
            self.counts["unavailable"] += 1
            raise SessionUnavailable(visit.unavailable)

    def draw_key(self, session: Session) -> SessionKey:
        """The key under which the session will be stored, if anything is put into it."""
        visit: Visit = session.visit
        if visit.drawn is None:
            visit.drawn = self._draw_identity()
        return visit.drawn.key

    def draw_batch(self) -> str:
        """Random letters that no other request uses in the names of the items it appends."""
        return b64encode(self._draw(BATCH_BYTES), b"-_").decode()

    def came_too_late(self, call: str) -> None:
        """Count a call that needs a new id after the head of its response. Warn once, because its error may not be shown."""
        self.counts["too_late"] += 1
        self._credentials.warn_once("too-late", _TOO_LATE.format(call))

    def used(self, session: Session) -> None:
        """Keep a session alive that was used over a connection that stays open."""
        record = session.opened.record if session.accessed else None
        if record is None or record.state != LIVE:
            return
        now_ms, visit = self.clock_ms(), session.visit
        unused_ms = now_ms - max(record.touched_ms, visit.touched_ms)
        if unused_ms * TOUCH_FRACTION < record.idle_ms:
            return
        visit.touched_ms = now_ms
        key = session.opened.key
        with self.lock:
            packed = self.table.get(key)
            held = record if packed is None else Record.unpack(packed)
            if held.state != LIVE or held.expires_ms() <= now_ms or self.table.knows_end(key):
                return
            if packed is not None:
                touched = self.table.put(key, held.touch(now_ms), is_touch=True)
                visit.packed = touched if visit.packed is packed else visit.packed
            session.touch(now_ms)
            self.counts["touches"] += 1
        if self.backend is not None:
            self.backend.touched(key, now_ms)

    def reload(self, session: Session) -> Awaitable[None]:
        """Load the newest state into the session: see `Session.reload`."""
        session.open()
        key, now_ms = session.opened.key, self.clock_ms()
        backend = self.backend
        if not key or backend is None or self.table.knows_end(key):
            self._reload_from(session, None)
            return _DONE
        if self.table.state(key) == LIVE and backend.is_sure(key, now_ms):
            self._reload_from(session, None)
            return _DONE
        asking = self._ask_and_reload(session, key)
        if running_loop() is not None:
            return asking
        run_blocking(asking)
        return _DONE

    async def _ask_and_reload(self, session: Session, key: SessionKey) -> None:
        assert self.backend is not None and session.opened.record is not None, "others are asked for what was opened"  # noqa: PT018
        with self.lock:
            held = self._held(key)
        pulled = await self.backend.pull(key, held, session.opened.record.heads)
        if pulled.status in {PullStatus.UNREACHABLE, PullStatus.STARVED} and not self.table.knows_end(key):
            raise SessionUnavailable("too few holders of this session answered within pull_timeout")
        if pulled.status is PullStatus.NONE and not self.table.knows_end(key):
            raise SessionEnded("the session is over: no server has it any more")
        self._reload_from(session, None if pulled.record is None else self._merge_in(key, pulled.record))

    def _reload_from(self, session: Session, told: Record | None) -> None:
        """Load what is held here, or else the pulled record. Raises SessionConflict if the session is over."""
        opened, visit = session.opened, session.visit
        if opened.record is None or opened.is_read_only:
            return
        key, now_ms = opened.key, self.clock_ms()
        with self.lock:
            packed = self.table.get(key)
            if self.table.is_replaced(key):
                raise SessionRotated("the session got a new id meanwhile: this request came with the old one")
            if self.table.knows_end(key):
                raise SessionEnded("the session was ended meanwhile")
            record = told if packed is None else Record.unpack(packed)
            if record is None and self.backend is None:
                raise SessionEnded("the session ran out of time meanwhile")
            record = opened.record if record is None else record
            if not record.covers(opened.record.heads):
                record, packed = merge(record, opened.record), None
            check_is_live(record, now_ms)
            visit.packed = packed
            session.renew(Opened(record, key, len(packed or record.pack()), opened.is_stale))
        self.used(session)

    async def until_ended(self, session: Session) -> None:
        """Return when the session is over. Asks every few seconds for an end that may not be announced to this server."""
        session.open()
        key, record = session.opened.key, session.opened.record
        while key and record is not None:
            with self.lock:
                packed = self.table.get(key)
                is_over = self.table.knows_end(key)
            if is_over or (packed is None and self.backend is None):
                return
            if packed is not None:
                record = Record.unpack(packed)
            is_newest = True
            if self.backend is not None and not self.backend.is_sure(key, self.clock_ms()):
                pulled = await self.backend.pull(key, None if packed is None else record, record.heads)
                if pulled.status is PullStatus.NONE or (pulled.record is not None and pulled.record.state != LIVE):
                    return
                record = record if pulled.record is None else merge(record, pulled.record)
                is_newest = pulled.status in {PullStatus.RECORD, PullStatus.CURRENT}
            left_ms = record.touch(session.visit.touched_ms).expires_ms() - self.clock_ms()
            if left_ms <= 0 and is_newest:
                return
            # Where nobody answers, what is known here does not say when the session ends.
            await self._watchers.wait(key, min(ASK_S, left_ms / 1000 + LOOK_S) if left_ms > 0 else ASK_S)

    def _identify(self, visit: Visit) -> Visitor | None:
        """The visitor that the cookies identify; None without a valid id cookie."""
        if visit.presented is None:
            visit.presented, visit.visitor = self._credentials.read(visit.cookie_headers, is_https=visit.is_https)
        return visit.visitor

    def _touch(self, visit: Visit, key: SessionKey, record: Record, now_ms: int) -> Record:
        record = record.touch(now_ms)
        with self.lock:
            if visit.packed is not None and visit.packed is self.table.get(key):
                visit.packed = self.table.put(key, record, is_touch=True)
            self.counts["touches"] += 1
        if self.backend is not None:
            self.backend.touched(key, now_ms)
        return record

    def _held(self, key: SessionKey) -> Record | None:
        packed = self.table.get(key)
        return None if packed is None else Record.unpack(packed)

    def _merge_in(self, key: SessionKey, record: Record) -> Record:
        """Merge a pulled record with the held one. Hold the result if one was held, or if this server must hold it."""
        with self.lock:
            held = self._held(key)
            record = self.table.judged(key, record, self.clock_ms())
            merged = record if held is None else merge(held, record)
            if held is not None or record.state != LIVE or (self.backend is not None and self.backend.holds(key)):
                self.table.offer(key, merged)  # without room it is served but not held
        return merged

    # -- committing --------------------------------------------------------------------------------------------------

    def _apply(self, session: Session, visit: Visit, changes: Changes) -> list[Step]:
        """Apply the changes, with the lock held, and let the session continue from the result."""
        opened = session.opened
        now_ms = self.clock_ms()
        if opened.is_read_only:
            raise SessionRotated(WROTE_ROTATED)
        if opened.record is None or changes.ends:
            self._check_not_replaced(visit, opened)
            return self._replace(session, changes, now_ms)
        packed = self.table.get(opened.key)
        current = opened.record
        given = visit.given
        is_behind = given is not None and given.record is not None and given.record is not current
        if packed is None or packed is not visit.packed or is_behind or current.expires_ms() <= now_ms:
            current = self._current(visit, opened.key, current, packed, now_ms)
        if changes.verb is not Verb.KEEP:
            return self._rotate(session, changes, current, now_ms)
        return self._write(session, changes, current, now_ms)

    def _check_not_replaced(self, visit: Visit, opened: Opened) -> None:
        """A request that began before the session got a new id must not give the browser yet another one."""
        visitor = visit.visitor
        if opened.record is not None and self.table.is_replaced(opened.key):
            raise SessionRotated("the session got a new id meanwhile: this request ends only the old one")
        if opened.record is not None or visitor is None or visitor.is_past:
            return
        if self.table.is_replaced(visitor.identity.key):  # it was not found when this request began
            raise SessionRotated(WROTE_ROTATED)

    def _current(self, visit: Visit, key: SessionKey, opened: Record, packed: bytes | None, now_ms: int) -> Record:
        """The record as it stands now, with changes that were made since the session was opened."""
        if packed is None:
            if self.backend is None or opened.expires_ms() <= now_ms:
                raise SessionEnded("the session ran out of time while it was in use: what was changed was not stored")
            if key in self.table.ends:
                raise SessionEnded("the session was ended while it was in use: what was changed was not stored")
            if visit.given is None:
                self._renew_writer()  # the dropped copy may have a later write of ours: no stamp is used twice
                return opened
            current = opened
        else:
            current = Record.unpack(packed)
        written = None if visit.given is None else visit.given.record
        if written is not None and not current.covers(written.heads):  # the dropped copy had a later write of ours
            current = merge(current, written)
        if self.backend is not None and not current.covers(opened.heads):  # a parallel request stored another copy
            current = merge(current, opened)
        check_is_live(current, now_ms)
        return current

    def _write(self, session: Session, changes: Changes, current: Record, now_ms: int) -> list[Step]:
        """One write to a live session.

        Too many writers make a record larger than other servers accept. So at `WRITERS_RENEWED` the session goes on under a
        new id, in a record of one writer. It keeps its id if the head of the response has left, or if the browser has seen
        a newer state than this server.
        """
        key = session.opened.key
        if self._lost and key in self._lost:
            self._renew_writer()
        if len(current.version) >= WRITERS_RENEWED and self.writer not in current.version:
            if not (session.is_head_sent or session.opened.is_stale):
                self.counts["renewed"] += 1
                return self._rotate(session, changes, current, now_ms)
            if len(current.version) >= WRITERS_WRITTEN_MAX:
                raise SessionTooLarge(
                    f"{len(current.version)} processes have written to this session, and no more may: rotate or end it"
                )
        values, increments = changes.values, changes.increments
        if increments or current is not session.opened.record:
            values, increments = rebased(current, changes, session.peek)
        above = max([counter for counter, _ in session.visit.visitor.seen], default=0) if session.opened.is_stale else 0
        writer = self._writer or self.writer
        record, stamp = current.write(writer, values, increments, now_ms=now_ms, above=above)
        if self.backend is None:  # `_keep`, inlined for speed
            session.visit.packed = packed = self.table.put(key, record)
            session.rebase(Opened(record, key, len(packed), session.opened.is_stale))
            return []
        self._keep(session, key, record)
        return [Step(key, Delta.of(record, key, current, stamp, names=values, counted=increments))]

    def _replace(self, session: Session, changes: Changes, now_ms: int) -> list[Step]:
        """End the session that was opened, if any, and start another one if there is anything to keep."""
        visit: Visit = session.visit
        opened = session.opened
        steps: list[Step] = []
        record = None
        if changes.values or changes.increments or changes.verb is Verb.LOGIN:
            values = changes.values | {name: codec.encode(amount) for name, amount in changes.increments.items()}
            steps = self._create(session, values, changes.subject, now_ms + self._absolute_ms, now_ms)
            record = session.opened.record
        if opened.record is not None:
            ended = self._end(opened, ENDED if record is None else REPLACED, now_ms)
            if self.backend is not None:
                steps.append(Step(opened.key, Ended(opened.key, ended)))
            visit.has_ended = True
            self.counts["ended"] += 1
        if record is None:
            visit.packed = None
            session.rebase(_NOTHING)
        return steps

    def _rotate(self, session: Session, changes: Changes, current: Record, now_ms: int) -> list[Step]:
        """Continue the session under a new id. The old id may read the last state until the grace is over.

        The old one ends only when the new one is held as `ack` demands, so that no failure in between logs a user out.
        """
        visit: Visit = session.visit
        old = session.opened
        deadline_ms = now_ms + self._absolute_ms if changes.verb is Verb.LOGIN else current.deadline_ms
        carried = carried_over(current, changes, session.peek)
        steps = self._create(session, carried, changes.subject, deadline_ms, now_ms)

        new = session.opened
        rotated_ms: int | None = None

        def check_old() -> None:
            """Another server may have ended the session before it heard of the rotation."""
            if self.table.has_ended(old.key) and not self._is_rotated(old.key, rotated_ms):
                raise SessionEnded("the session was ended while it got a new id: the new id is worth nothing")

        def end_old() -> Ended:
            nonlocal rotated_ms
            with self.lock:
                check_old()
                rotated_ms = self.clock_ms()
                return Ended(old.key, self._end(old, ROTATED, rotated_ms))

        def end_new() -> Ended:
            session.discard()
            session.rebase(_NOTHING)  # no cookie may carry the new id
            visit.has_ended = True
            with self.lock:
                return Ended(new.key, self._end(new, ENDED, self.clock_ms()))

        self.counts["rotated"] += 1
        if self.backend is None:
            self._end(old, ROTATED, now_ms)
            return []
        return [*steps, Step(old.key, make=end_old, check=check_old, undo=Step(new.key, make=end_new))]

    def _is_rotated(self, key: SessionKey, since_ms: int | None) -> bool:
        """Whether the session ended by the rotation made here at `since_ms`: every server keeps that `ROTATED` for a while."""
        state = self.table.state(key)
        if state == ROTATED or since_ms is None:
            return state == ROTATED
        if state is None:  # its tombstone was dropped to make room
            return self.table.is_replaced(key)
        return state == REPLACED and self.clock_ms() - since_ms >= self.table.rotated_keep_ms

    def _create(
        self, session: Session, values: dict[str, bytes], subject: str, deadline_ms: int, now_ms: int
    ) -> list[Step]:
        if session.is_head_sent:
            self.came_too_late("what was put into a session")
            raise SessionTooLate(
                "a session that begins after the head of the response has an id that no cookie can carry"
            )
        visit: Visit = session.visit
        identity = visit.drawn or self._draw_identity()
        visit.drawn = None
        idle_ms = self._idle_ms if subject else self._anonymous_ms
        born = Record.create(now_ms=now_ms, idle_ms=idle_ms, deadline_ms=deadline_ms, subject=subject)
        record, _ = born.write(self.writer, values, now_ms=now_ms)
        old = session.opened
        steps: list[Step] = []
        replaces = None if old.record is None else old.key
        if subject:
            steps = self._keep_user(session, identity.key, record, now_ms, replaces)
        else:
            if replaces is None:
                self.table.check_share()
            self._keep(session, identity.key, record, replaces=replaces)
        visit.visitor = Visitor(identity)
        visit.is_created = True
        self.counts["created"] += 1
        return [] if self.backend is None else [Step(identity.key, Whole(identity.key, record)), *steps]

    def _keep_user(
        self, session: Session, key: SessionKey, record: Record, now_ms: int, replaces: SessionKey | None
    ) -> list[Step]:
        """Hold a user's new session. Without room for it, anonymous ones are ended until there is."""
        steps: list[Step] = []
        candidates = (each for each in self.table.anonymous() if each[0] != replaces)
        while True:
            try:
                self._keep(session, key, record, replaces=replaces)
            except SessionLimit:
                found = next(candidates, None)
                if found is None:
                    raise
                other, ended = found[0], found[1].end(ENDED, now_ms)
                self.table.put(other, ended)
                self.counts["made_way"] += 1
                steps.append(Step(other, Ended(other, ended)))
            else:
                return steps

    def _keep(self, session: Session, key: SessionKey, record: Record, *, replaces: SessionKey | None = None) -> None:
        """Hold the record, as a holder or until the holders have it, and let the session continue from it."""
        visit: Visit = session.visit
        visit.packed = packed = self.table.put(key, record, replaces=replaces)
        if self.backend is not None:
            visit.given = self._given.setdefault(key, Given())
            visit.given.record = record
        self._start_sweeper()
        session.rebase(Opened(record, key, len(packed), session.opened.is_stale))

    def _on_expired(self, key: SessionKey, record: Record) -> None:
        """A copy is dropped. If it has writes of ours that no other holder may have, their stamps must not be used again."""
        if self._writer in record.version and self.backend is not None and not self.backend.is_confirmed(key):
            self._lost.add(key)
            if len(self._lost) > LOST_MAX:
                self._renew_writer()

    def _start_sweeper(self) -> None:
        if self._sweeper is None and self._sweeps:
            self._sweeper = Sweeper(self)

    def _end(self, opened: Opened, state: int, now_ms: int) -> Record:
        """End the session here. If it is not held and there is a backend, hold a tombstone for the other holders."""
        held = self._held(opened.key)
        record = held or opened.record
        assert record is not None, "what is ended was opened"
        ended = record.end(state, now_ms)
        if held is not None:
            self.table.put(opened.key, ended, is_touch=True)
        elif self.backend is not None:
            self.table.offer(opened.key, ended)  # without room, later requests learn of the end from the other holders
        return ended

    def _unsettled(self, session: Session) -> list[Step]:
        """A step for a request that changed nothing: its response waits until the state it shows is acknowledged."""
        assert self.backend is not None, "alone, nothing waits"
        if not session.accessed:
            return []
        key, visitor = session.opened.key, session.visit.visitor
        if not key and visitor is not None:
            key = visitor.identity.key
        return [] if not key or self.backend.is_settled(key) else [Step(key)]

    def _draw_identity(self) -> Identity:
        """A new id. With a backend, preferably one whose first holder is this server."""
        return self._credentials.draw_identity(None if self.backend is None else self.backend.is_first_holder)

    def _before_fork(self) -> Callable[[], None] | None:
        """Take the lock, so that no change to the table is under way at the fork, unless this thread already holds it."""
        return taken(self.lock)

    def _after_fork(self) -> None:
        """Drop what must not be shared with the parent process: its tag, its sweeper, its lock, and its draining."""
        self.lock, self._sweeper = threading.Lock(), None
        self._renew_writer()
        self.is_draining, self._is_unswept = False, bool(len(self.table))


def engine_of(**keywords: Unpack[Keywords]) -> Engine:
    """The engine with these settings in this process, made if there is none: what middlewares use.

    So an app and another one mounted in it, or the middlewares that Litestar makes for each route, share their sessions and
    are one member of a cluster.

    Raises:
        SettingsError: a setting is unknown, malformed or contradicts another.
    """
    settings = Settings.load(**keywords)
    engine = _shared.get(settings)
    if engine is None:
        engine = _shared[settings] = Engine(settings)
    return engine


class _Done:
    """An awaitable that is done; it need not be awaited."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_DONE: Final = _Done()
_NOTHING: Final = Opened()
_TOO_LATE: Final = (
    "{} came after the head of its response, in a stream, a background task or an open WebSocket: no cookie can carry a new id any "
    "more, so nothing was kept. Put something into the session, log in or rotate before the response starts"
)
_PAST: Final = Opened(is_read_only=True)
"""What a request with a rotated id finds after the grace: no fields, and it may not begin a new session."""
_shared: Final[WeakValueDictionary[Settings, Engine]] = WeakValueDictionary()
"""The engines that middlewares made, by their settings."""
