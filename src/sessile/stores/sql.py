"""Sessions in an SQL database: SQLite, PostgreSQL, MySQL or MariaDB, one row each, through SQLAlchemy Core.

A change is read, merged here by the rules of `delta.apply` and `record.merge`, and written back if the row's revision
is still the one that was read; if not, it is done again. What this process read or wrote lately is remembered with its
revision, so that the usual change, to a session that was opened a moment ago, is one statement, as is everything else:
whatever is remembered wrongly, the revision shows.

The database tells nobody of changes, so every open asks. How durable an acknowledged change is, the database says
(`synchronous_commit` and `synchronous_standby_names`, `innodb_flush_log_at_trx_commit`): `ack` changes nothing about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import time
from collections import Counter
from secrets import SystemRandom
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.util import greenlet_spawn

from sessile.delta import Outcome, apply
from sessile.errors import RecordError, StarvedError, StoredRecordError, StoreError, StoreSetupError
from sessile.forks import call_after_fork, keep_forever, notice_fork
from sessile.record import LIVE, REPLACED, Record, merge
from sessile.stores.base import Absence, Fetched, FetchStatus, Pushed
from sessile.stores.patience import Starved, within
from sessile.stores.sql_engine import target_of
from sessile.stores.sql_errors import is_clash, is_duplicate, is_missing_table, is_setup, reason
from sessile.stores.sql_rows import Keep, Row, bare_end, digest_of, due_in_ms, kept, shown, timeless
from sessile.stores.sql_schema import DEFAULT_CLUSTER, schema_statements, table_name
from sessile.stores.sql_statements import FOREVER_MS, TOUCHES_MAX, Statements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from sqlalchemy import Engine, Executable

    from sessile.delta import Delta
    from sessile.record import Version
    from sessile.stores.base import Channel
    from sessile.stores.sql_engine import Connections
    from sessile.token import SessionKey

__all__ = ["SqlStore"]

LATELY_MAX: Final = 1024
"""So many sessions are remembered with their revision."""
LATELY_BYTES_MAX: Final = 4096
"""A larger one is not: to read it again is not what takes the time."""
TRIES_MAX: Final = 50
"""So often a change is merged anew because somebody else was faster."""
REPEATS_MAX: Final = 3
"""So often a statement is said again because its connection was dead, or the database put it off."""
WAIT_MAX_S: Final = 0.05
LETTING_GO_S: Final = 0.5
"""So long a driver may take to let go of what it was told to give up; then it is told again."""
_REVISION_BITS: Final = 63
_RACED: Final = {"23505", "42P07", "42710"}
"""What PostgreSQL says when two create the same: its key, the table, or its type is there already."""
_RANDOM: Final = SystemRandom()


class SqlStore:
    """A store in an SQL database.

    Args:
        url: `sqlite:///file`, `postgresql://…` or `mysql://…`.
        cluster: the cluster's name; each has a table of its own.
        timeout_s: how long any call may take.
        tombstone_keep_ms: how long an ended session is remembered beyond its own deadline.
        rotation_grace_ms: how long a rotated session may be looked at.
        create: whether `open` creates a missing table; without it, only in SQLite.

    Raises:
        SettingsError: the URL is malformed, or a driver is not installed.
    """

    has_channel = False

    def __init__(
        self,
        url: str,
        *,
        cluster: str = "sessile",
        timeout_s: float = 2.0,
        tombstone_keep_ms: int,
        rotation_grace_ms: int,
        create: bool | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """`misdirected`: rows for another session than the one that was asked for."""
        self._target = target_of(url)
        self._cluster = cluster
        self._table = table_name(cluster)
        self._creates = self._target.dialect == "sqlite" if create is None else create
        self._timeout_s = timeout_s
        self._keep = Keep(tombstone_keep_ms, rotation_grace_ms)
        self._say = Statements(self._target.dialect, self._table)
        self._lately: dict[SessionKey, tuple[int, Record]] = {}
        self._connections: Connections | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writing: asyncio.Lock | contextlib.nullcontext[None] = contextlib.nullcontext()
        self._answered_s = 0.0
        call_after_fork(self._after_fork)

    @property
    def where(self) -> str:
        return self._target.where

    @property
    def is_single(self) -> bool:
        return self._target.is_single

    # -- life --------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """See that the database answers and has the table, or create it. An open store may be opened again."""
        notice_fork()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._forget()
        is_new = self._connections is None
        if is_new:
            self._connections, self._loop = self._target.make(self._timeout_s), loop
            if self._target.dialect == "sqlite":  # it has one writer at a time: they need not fight for it
                self._writing = asyncio.Lock()
        try:
            if self._creates and not await self._has_table():
                await self._create()
            async with self._bounded():
                await self._read(self._say.check)
                for statement in self._say.tries if is_new else ():
                    await self._change(statement, {})
        except StoreError:
            if is_new:
                await self.close()
            raise

    async def close(self) -> None:
        connections, self._connections = self._connections, None
        self._lately.clear()
        if connections is not None and self._loop is asyncio.get_running_loop():
            with contextlib.suppress(TimeoutError, SQLAlchemyError, OSError):
                async with asyncio.timeout(self._timeout_s):
                    await connections.engine.dispose()

    def _after_fork(self) -> None:
        """Leave the connections to the parent (`Inheritance` drops them); a child opens its own."""
        keep_forever(self._connections)
        self._writing = contextlib.nullcontext()
        self._forget()

    def _forget(self) -> None:
        """Connections of a loop that has gone are of no use."""
        self._connections = self._loop = None
        self._lately = {}

    async def _has_table(self) -> bool:
        async with self._bounded():
            try:
                await self._read(self._say.check)
            except DBAPIError as error:
                if not is_missing_table(error):
                    raise
                return False
            return True

    async def _create(self) -> None:
        """Create the table, others perhaps doing the same."""
        for statement in schema_statements(self._target.dialect, self._table):
            for _ in range(REPEATS_MAX):
                with contextlib.suppress(_Raced):
                    async with self._bounded():
                        await self._create_by(statement)
                    break

    async def _create_by(self, statement: str) -> None:
        def say(engine: Engine) -> None:
            with engine.connect() as connection:
                connection.exec_driver_sql(statement)

        try:
            async with self._writing:
                await greenlet_spawn(say, self._engine())
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) in _RACED:  # IF NOT EXISTS, but by a hair
                raise _Raced from None
            raise

    # -- what a store does -------------------------------------------------------------------------------------------

    async def fetch(self, key: SessionKey, have: Version | None) -> Fetched:
        async with self._bounded():
            row = await self._row(key, None if have is None else digest_of(LIVE, have))
            if row is None or row.is_over(self._keep):
                return Fetched(FetchStatus.NONE)
            if row.record is None:
                return Fetched(FetchStatus.CURRENT)
            content = row.content()
            self._remember(key, row.revision, content, len(row.record))
            if have is not None and content.state == LIVE and _covers(have, content.version):
                return Fetched(FetchStatus.CURRENT)
            return Fetched(FetchStatus.RECORD, shown(row.timed(content), self._keep))

    async def apply(self, delta: Delta, ack: str) -> Pushed:
        del ack
        key = delta.key
        async with self._bounded():
            lately = self._lately.get(key)
            if lately is not None:
                outcome, after = apply(lately[1], delta)
                is_usual = outcome is Outcome.APPLIED and after is not None and _is_alone(after, delta)
                if is_usual and after and await self._put(key, lately[0], after, self._say.write):
                    return Pushed(outcome)
            for tried in range(TRIES_MAX):
                row = await self._row(key)
                if row is None or row.is_over(self._keep):
                    return Pushed(Outcome.NEED)
                content = row.content()
                outcome, after = apply(content, delta)
                if outcome is Outcome.NEED or after is None:
                    return Pushed(Outcome.NEED)
                if outcome is Outcome.KNOWN or await self._put(key, row.revision, after, self._say.write):
                    if _is_alone(after, delta):
                        return Pushed(outcome)
                    return Pushed(outcome, shown(row.timed(after), self._keep).touch(0))
                await self._wait(tried)
        raise self._too_busy()

    async def merge(self, key: SessionKey, record: Record, ack: str, *, is_awaited: bool = False) -> Pushed:
        del ack, is_awaited  # no server serves a copy without asking, so an end needs no confirmations
        async with self._bounded():
            lately = self._lately.get(key)
            if lately is not None:
                pushed = await self._merge_into(key, *lately, record, is_timed=False)
                if pushed is not None:
                    return pushed
            is_born = lately is None and record.state == LIVE
            for tried in range(TRIES_MAX):
                row = None if is_born and not tried else await self._row(key)
                if row is None:
                    if await self._insert(key, record):
                        return Pushed(Outcome.APPLIED)
                    continue
                held = row.timed(row.content())
                if _adds_nothing(held, record):
                    return Pushed(Outcome.KNOWN, _rest(shown(held, self._keep), record))
                pushed = await self._merge_into(key, row.revision, held, record)
                if pushed is not None:
                    return pushed
                await self._wait(tried)
        raise self._too_busy()

    async def touch(self, touches: Mapping[SessionKey, int]) -> None:
        """One statement for each hundred or so, in the order of keys: then nobody waits for each other."""
        some = sorted(touches.items())
        for at in range(0, len(some), TOUCHES_MAX):
            async with self._bounded():
                await self._change(*self._say.touch(dict(some[at : at + TOUCHES_MAX])))

    async def absence(self, key: SessionKey | None) -> Absence:
        """A database drops no row before its time."""
        del key
        return Absence()

    async def listen(self, told: Callable[[Channel], None], is_used: Callable[[], bool] | None = None) -> None:
        """Tells nothing, until cancelled: an SQL database has no channel here."""
        del told, is_used
        await asyncio.Event().wait()

    async def expire(self, at_most: int) -> int:
        """Also takes the fields from what was rotated, and puts off what was used since it was looked at."""
        async with self._bounded():
            for found in await self._read(self._say.rotated(at_most)):
                await self._strip(Row(*found))
            await self._change(self._say.put_off(at_most), {})
            return await self._change(self._say.remove(at_most), {})

    # -- the parts of it ---------------------------------------------------------------------------------------------

    async def _row(self, key: SessionKey, have: int | None = None) -> Row | None:
        found = await self._read(self._say.fetch, {"key": key, "have": have})
        return Row(*found[0]) if found else None

    async def _put(self, key: SessionKey, revision: int, record: Record, statement: Executable, **more: Any) -> bool:
        """Write a content that was made on this revision; whether it was still the row's."""
        content = timeless(record)
        new = _RANDOM.getrandbits(_REVISION_BITS)
        values = kept(content)
        if not record.travels(len(values["new_record"])):
            if record.state == LIVE:
                raise RecordError("parallel writes of servers add up to a record larger than any server accepts")
            content = bare_end(content)  # an end is never refused; this one has no grace
            values = kept(content)
        self._lately.pop(key, None)
        if not await self._change(
            statement, {**values, "key": key, "known_revision": revision, "new_revision": new, **more}
        ):
            return False
        self._remember(key, new, content, len(values["new_record"]))
        return True

    async def _insert(self, key: SessionKey, record: Record) -> bool:
        """Make the row; whether there was none."""
        content = timeless(record)
        new = _RANDOM.getrandbits(_REVISION_BITS)
        values = kept(content)
        given = {**values, **self._durations(record), "key": key, "new_revision": new}
        if not await self._change(self._say.insert, given):
            return False
        self._remember(key, new, content, len(values["new_record"]))
        return True

    async def _merge_into(
        self, key: SessionKey, revision: int, held: Record, record: Record, *, is_timed: bool = True
    ) -> Pushed | None:
        """Merge a record into what stands in the row at this revision; None where that is gone.

        Args:
            key: the session.
            revision: the row's.
            held: what it holds.
            record: what is merged into it.
            is_timed: whether `held` has its times. The statement does without, but a pusher could not be told of it.
        """
        merged = merge(held, record)
        rest = _rest(shown(merged, self._keep), record)
        if rest is not None and not is_timed:
            return None
        more = self._durations(record)
        if merged.state != LIVE:
            more |= {"kept_for": self._keep.beyond_ms, "grace": self._keep.rotation_grace_ms}
            if record.state == LIVE:
                more["ended_in"] = -FOREVER_MS
        statement = self._say.join if merged.state == LIVE else self._say.end
        if not await self._put(key, revision, merged, statement, **more):
            return None
        is_new = (merged.version, merged.state) != (held.version, held.state)
        return Pushed(Outcome.APPLIED if is_new else Outcome.KNOWN, rest)

    async def _strip(self, row: Row) -> None:
        """The grace of a rotated session is over. What cannot be read stays as it is, and goes when its time has come."""
        try:
            ended = row.content().end(REPLACED, 0)
        except RecordError:
            ended = None
        values = (
            {"new_state": REPLACED, "new_digest": 0, "new_record": row.record}
            if ended is None
            else kept(timeless(ended))
        )
        new = _RANDOM.getrandbits(_REVISION_BITS)
        given = {"key": row.session_key, "known_revision": row.revision, "new_revision": new}
        await self._change(self._say.strip, {**values, **given, "kept_for": self._keep.beyond_ms})

    def _durations(self, record: Record) -> dict[str, Any]:
        return {
            "idle": record.idle_ms,
            "deadline_in": record.deadline_ms,
            "touched_in": record.touched_ms,
            "ended_in": record.ended_ms,
            "due_in": due_in_ms(record, self._keep),
        }

    def _remember(self, key: SessionKey, revision: int, content: Record, size: int) -> None:
        if size > LATELY_BYTES_MAX:
            self._lately.pop(key, None)
            return
        if len(self._lately) >= LATELY_MAX:
            self._lately = {}  # simpler than to pick one, and as good: those in use are back at once
        self._lately[key] = (revision, content)

    # -- talking to the database -------------------------------------------------------------------------------------

    async def _read(self, statement: Executable, values: dict[str, Any] | None = None) -> list[Any]:
        found: list[Any] = await self._ask(statement, values or {})
        return found

    async def _change(self, statement: Executable, values: dict[str, Any]) -> int:
        """Returns how many rows it changed."""
        async with self._writing:
            try:
                return int(await self._ask(statement, values))
            except DBAPIError as error:
                if is_duplicate(error):
                    return 0
                raise

    async def _ask(self, statement: Executable, values: dict[str, Any]) -> Any:
        """Say it, and again where its connection was dead or the database put it off: every statement may be repeated."""
        for said in range(REPEATS_MAX):
            engine = self._engine()
            try:
                answer = await greenlet_spawn(_say, engine, statement, values)
            except _Misdirected:
                self.counts["misdirected"] += 1
            except DBAPIError as error:
                is_last = said == REPEATS_MAX - 1
                if is_last or not (error.connection_invalidated or is_clash(error)):
                    raise
                if is_clash(error):
                    await self._wait(said)
            else:
                self._answered_s = time.monotonic()
                return answer
        raise StoreError(f"{self.where} answers another question")

    def _engine(self) -> Engine:
        notice_fork()
        if self._connections is None:
            raise StoreError(f"{self.where} is not open")
        return self._connections.engine.sync_engine

    @contextlib.asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        """What goes wrong in here is a StoreError, within the timeout."""
        began_s = time.monotonic()
        try:
            # psycopg, told to give up, first asks the server to do so too: the second time it does not wait for that.
            async with within(self._timeout_s, insist_s=LETTING_GO_S):
                yield
        except Starved:
            raise StarvedError(f"{self.where} was not heard: this process had too little time") from None
        except TimeoutError:
            if self._connections is not None and self._answered_s < began_s:  # it is silent, and not only busy
                self._connections.distrust()
            raise StoreError(f"{self.where} did not answer within {self._timeout_s:g} s") from None
        except DBAPIError as error:
            if is_missing_table(error):
                named = "" if self._cluster == DEFAULT_CLUSTER else f" --cluster {shlex.quote(self._cluster)}"
                raise StoreSetupError(
                    f"{self.where} has no table {self._table}, or not this version's: "
                    f"`sessile schema {self._target.dialect}://{named}` prints it"
                ) from None
            kind = StoreSetupError if is_setup(error) else StoreError
            raise kind(f"{self.where}: {reason(error, self._target.secrets)}") from None
        except RecordError as error:
            raise StoredRecordError(f"{self.where}: {reason(error, self._target.secrets)}") from None
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"{self.where}: {reason(error, self._target.secrets)}") from None

    async def _wait(self, tried: int) -> None:
        """Somebody else was faster: let them finish, each for a time of its own."""
        await asyncio.sleep(_RANDOM.random() * min(WAIT_MAX_S, 0.001 * 2**tried))

    def _too_busy(self) -> StoreError:
        return StoreError(f"{self.where}: too many change one session at once")


class _Misdirected(Exception):
    """The answer is for another session than the question: another process uses the same connection."""


class _Raced(Exception):
    """Somebody else has just created it."""


def _say(engine: Engine, statement: Executable, values: dict[str, Any]) -> Any:
    """All rows, or how many were changed; on whatever connection is free, and only for as long as it takes."""
    with engine.connect() as connection:
        result = connection.execute(statement, values)
        if result.returns_rows:
            rows = result.all()
            if "key" in values and any(row.session_key != values["key"] for row in rows):
                connection.invalidate()
                raise _Misdirected
            return rows
        assert result.rowcount >= 0, "a driver that does not count rows cannot compare and set"
        return result.rowcount


def _is_alone(record: Record, delta: Delta) -> bool:
    """Whether the record is what its writer made of it, and nothing else."""
    return record.state == LIVE and record.has_heads((delta.stamp,))


def _covers(have: Version, version: Version) -> bool:
    return all(have.get(writer, 0) >= counter for writer, counter in version.items())


def _rest(merged: Record, known: Record) -> Record | None:
    """What a pusher that knows this much must be told: all, where there is more."""
    return merged if (merged.version, merged.state) != (known.version, known.state) else None


def _adds_nothing(held: Record, record: Record) -> bool:
    """Whether a merge would leave everything as it is, times included."""
    merged = merge(held, record)
    return merged.same_state(held) and (merged.idle_ms, merged.deadline_ms, merged.touched_ms) == (
        held.idle_ms,
        held.deadline_ms,
        held.touched_ms,
    )
