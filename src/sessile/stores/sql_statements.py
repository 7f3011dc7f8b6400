"""The statements by which a store reads and changes its table, for one dialect; each is one trip and commits by itself.

Times go in as durations and are put on the database's clock by the statement that stores them, so no statement needs
another one to tell it the time. A change names the `revision` it was made on and draws a new one: a row that somebody else
has changed, or removed and made anew, is not hit. A touch leaves the revision alone, as it leaves what readers compare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from sessile.record import ENDED, LIVE, ROTATED, TIME_MAX_MS
from sessile.stores.sql_rows import IDLE_SLACK

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FOREVER_MS", "TOUCHES_MAX", "Statements"]

FOREVER_MS: Final = TIME_MAX_MS
"""A duration that bounds nothing."""
TOUCHES_MAX: Final = 128
"""So many sessions are touched by one statement."""
_TOUCH_SIZES: Final = (1, 8, 32, TOUCHES_MAX)

_NOW: Final = {
    # The start of the statement, so that an index on times may be used.
    "postgresql": "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)",
    # In UTC, where no hour comes twice.
    "mysql": "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)",
    "sqlite": "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)",
}


class Statements:
    """Everything that is ever said to one table.

    Args:
        dialect: `sqlite`, `postgresql` or `mysql`.
        table: the table's name.
    """

    def __init__(self, dialect: str, table: str) -> None:
        self._dialect = dialect
        self._now: sa.ColumnElement[int] = sa.literal_column(_NOW[dialect], sa.BigInteger)
        self._least: Any = sa.func.min if dialect == "sqlite" else sa.func.least
        self._greatest: Any = sa.func.max if dialect == "sqlite" else sa.func.greatest
        numbers = ("revision", "digest", "idle_ms", "deadline_ms", "touched_ms", "ended_ms", "due_ms", "state")
        self._table = sa.table(
            table,
            sa.column("session_key", sa.LargeBinary),
            *(sa.column(name, sa.BigInteger) for name in numbers),
            sa.column("record", sa.LargeBinary),
        )
        column = self._table.c
        self._expiry = self._least(
            column.touched_ms + column.idle_ms + column.idle_ms // IDLE_SLACK, column.deadline_ms
        )
        self._is_held = sa.or_(column.state != LIVE, self._expiry > self._now)
        self._is_it = column.session_key == _given("key", sa.LargeBinary)
        self.check = sa.select(self._table).limit(0)
        """Fails where the table is missing, or another than this version's."""
        nothing = sa.literal(1) == 0
        self.tries: tuple[sa.Executable, ...] = (
            sa.insert(self._table)
            .from_select(list(column), sa.select(self._table).where(nothing))
            .execution_options(preserve_rowcount=True),
            sa.update(self._table).where(nothing).values(state=LIVE),
            sa.delete(self._table).where(nothing),
        )
        """They change nothing, and fail where a right is missing or nothing can be written."""
        self.fetch = self._fetch()
        self.insert = self._insert()
        self.write = self._write()
        self.join = self._join()
        self.end = self._end()
        self.strip = self._strip()
        self._touches = {size: self._touch(size) for size in _TOUCH_SIZES}

    def _fetch(self) -> sa.Executable:
        """A `Row`, its record left out where the reader holds a live one with this `have` for a digest."""
        column = self._table.c
        record = sa.case((column.digest == _given("have"), sa.null()), else_=column.record)
        return sa.select(*self._times(), record).where(self._is_it)

    def _times(self) -> tuple[sa.ColumnElement[int], ...]:
        column = self._table.c
        return (
            column.session_key,
            self._now.label("now_ms"),
            column.revision,
            column.idle_ms,
            column.deadline_ms,
            column.touched_ms,
            column.ended_ms,
            column.state,
        )

    def _insert(self) -> sa.Insert:
        """A row, if there is none of its key."""
        make: Any = {"postgresql": postgresql_insert, "sqlite": sqlite_insert}.get(self._dialect, sa.insert)
        statement = make(self._table).execution_options(preserve_rowcount=True)
        statement = statement.values(
            session_key=_given("key", sa.LargeBinary),
            revision=_given("new_revision"),
            idle_ms=_given("idle"),
            deadline_ms=self._in("deadline_in"),
            touched_ms=self._in("touched_in"),
            ended_ms=sa.case((_given("new_state") == LIVE, 0), else_=self._in("ended_in")),
            due_ms=self._in("due_in"),
            **_content(),
        )
        if self._dialect == "mysql":  # a duplicate is an error there: IGNORE would hide others with it
            return statement  # type: ignore[no-any-return]
        return statement.on_conflict_do_nothing(index_elements=["session_key"])  # type: ignore[no-any-return]

    def _changed(self, **more: Any) -> sa.Update:
        """A new content, made on a known revision."""
        return (
            sa.update(self._table)
            .where(self._is_it, self._table.c.revision == _given("known_revision"))
            .values(revision=_given("new_revision"), **_content(), **more)
        )

    def _write(self) -> sa.Update:
        """A write, which is a touch: only to what is still held."""
        return self._changed(touched_ms=self._greatest(self._table.c.touched_ms, self._now)).where(self._is_held)

    def _join(self) -> sa.Update:
        """Merged with a whole record, and alive."""
        return self._changed(
            **self._limits(),
            due_ms=self._least(self._table.c.due_ms, self._in("due_in")),
        )

    def _end(self) -> sa.Update:
        """A record that was merged and is over. It is kept as rotated for its grace, as ended until after its deadline."""
        limits, ended = self._limits(), self._greatest(self._table.c.ended_ms, self._in("ended_in"))
        forgotten = self._greatest(limits["deadline_ms"], ended) + _given("kept_for")
        due = sa.case((_given("new_state") == ROTATED, ended + _given("grace")), else_=forgotten)
        return self._changed(**limits, ended_ms=ended, due_ms=due)

    def _limits(self) -> dict[str, Any]:
        column = self._table.c
        return {
            "idle_ms": self._least(column.idle_ms, _given("idle")),
            "deadline_ms": self._least(column.deadline_ms, self._in("deadline_in")),
            "touched_ms": self._greatest(column.touched_ms, self._in("touched_in")),
        }

    def _strip(self) -> sa.Update:
        """A rotated session whose grace is over."""
        column = self._table.c
        return self._changed(due_ms=self._greatest(column.deadline_ms, column.ended_ms) + _given("kept_for"))

    def touch(self, ago_ms: Mapping[bytes, int]) -> tuple[sa.Update, dict[str, Any]]:
        """These sessions were used so long ago: one statement of a few sizes, whatever their number, and its values."""
        size = next(size for size in _TOUCH_SIZES if size >= len(ago_ms))
        padded = [*ago_ms.items()]
        padded += padded[-1:] * (size - len(padded))
        values: dict[str, Any] = {}
        for at, (key, ago) in enumerate(padded):
            values[f"key_{at}"], values[f"ago_{at}"] = key, ago
        return self._touches[size], values

    def _touch(self, size: int) -> sa.Update:
        column = self._table.c
        keys = [_given(f"key_{at}", sa.LargeBinary) for at in range(size)]
        whens = [(column.session_key == key, self._now - _given(f"ago_{at}")) for at, key in enumerate(keys)]
        return (
            sa.update(self._table)
            .where(column.session_key.in_(keys), column.state == LIVE, self._expiry > self._now)
            .values(touched_ms=self._greatest(column.touched_ms, sa.case(*whens)))
        )

    # -- what is over ------------------------------------------------------------------------------------------------

    def rotated(self, at_most: int) -> sa.Executable:
        """Among the first that are due, the rotated sessions whose grace is over: keys, and what stands there."""
        column = self._table.c
        first = self._first(at_most).subquery("picked")
        return sa.select(*self._times(), column.record).where(
            column.session_key.in_(sa.select(first.c.session_key)), column.state == ROTATED, column.due_ms <= self._now
        )

    def put_off(self, at_most: int) -> sa.Update:
        """Among the first that are due, those that were used meanwhile get another turn."""
        column = self._table.c
        is_used = sa.and_(column.due_ms <= self._now, column.state == LIVE, self._expiry > self._now)
        return sa.update(self._table).where(self._is_among_first(at_most), is_used).values(due_ms=self._expiry)

    def remove(self, at_most: int) -> sa.Delete:
        """Among the first that are due, sessions, and ends of sessions, whose time has come."""
        column = self._table.c
        is_over = sa.and_(
            column.due_ms <= self._now,
            sa.or_(column.state >= ENDED, sa.and_(column.state == LIVE, self._expiry <= self._now)),
        )
        return sa.delete(self._table).where(self._is_among_first(at_most), is_over)

    def _first(self, at_most: int) -> sa.Select[Any]:
        """Of whatever kind, so that no more rows than that are looked at, however many are due."""
        column = self._table.c
        return sa.select(column.session_key).where(column.due_ms <= self._now).order_by(column.due_ms).limit(at_most)

    def _is_among_first(self, at_most: int) -> sa.ColumnElement[bool]:
        """On PostgreSQL without those that another server is just working on."""
        first: Any = self._first(at_most)
        if self._dialect == "postgresql":
            picked = first.with_for_update(skip_locked=True).cte("picked")
        else:
            picked = first.subquery("picked")
        return self._table.c.session_key.in_(sa.select(picked.c.session_key))

    def _in(self, name: str) -> sa.ColumnElement[int]:
        """So many milliseconds from now."""
        return self._now + _given(name)


def _given(name: str, kind: Any = sa.BigInteger) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=kind)


def _content() -> dict[str, Any]:
    """The columns of `sql_rows.kept`."""
    return {
        "state": _given("new_state"),
        "digest": _given("new_digest"),
        "record": _given("new_record", sa.LargeBinary),
    }
