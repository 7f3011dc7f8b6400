"""What a database's errors mean to a store, whichever driver raised them, and how they are said in one line.

The drivers agree on nothing: PostgreSQL has five-letter states, MySQL numbers, SQLite names and prose. A reason never
holds a password, a statement or a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import DBAPIError

from sessile.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["is_clash", "is_duplicate", "is_missing_table", "is_read_only", "is_setup", "reason"]

_MISSING: Final = {"42P01", "42703", 1146, 1054}
"""The table, or a column of it."""
_READ_ONLY: Final = {"25006", 1290, 1792, 1836}
_CLASHES: Final = {"40001", "40P01", 1205, 1213}
"""Transactions that got into each other's way: one of them is to be repeated."""
_DUPLICATES: Final = {1062}
_SETUPS: Final = {
    *("28P01", "28000", "3D000", "3F000", "42501"),
    *(1044, 1045, 1049, 1130, 1142, 1143, 1227, 1251, 1698),
}
"""User, password, database, rights: what stays so until somebody changes it."""
_SETUP_TEXTS: Final = (
    # PostgreSQL, whose refusals of a connection have no code.
    *(
        "authentication failed",
        "does not exist",
        "no pg_hba.conf entry",
        "no password supplied",
        "not permitted to log in",
    ),
    *(
        "permission denied",
        "does not support SSL",
        "certificate",
        "invalid response",
        "invalid sslmode",
        "expected authentication",
    ),
    # SQLite.
    *("unable to open database file", "attempt to write a readonly database", "file is not a database", "malformed"),
)
REASON_CHARS: Final = 200


def _code(error: BaseException) -> object:
    """The database's own name for what went wrong; None where it has none."""
    if not isinstance(error, DBAPIError) or error.orig is None:
        return None
    if error.orig.args and isinstance(error.orig.args[0], int):  # MySQL's states say less than its numbers
        return error.orig.args[0]
    return getattr(error.orig, "sqlstate", None)


def is_missing_table(error: DBAPIError) -> bool:
    """Whether there is no such table, or not with these columns."""
    return _code(error) in _MISSING or str(error.orig).startswith(("no such table", "no such column"))


def is_setup(error: DBAPIError) -> bool:
    """Whether waiting changes nothing about it."""
    code = _code(error)
    return (
        is_missing_table(error)
        or code in _SETUPS
        or (code is None and any(text in str(error.orig) for text in _SETUP_TEXTS))
    )


def is_read_only(error: BaseException) -> bool:
    """Whether the server takes no changes any more: it was demoted, and another one is to be looked for."""
    return _code(error) in _READ_ONLY


def is_clash(error: BaseException) -> bool:
    """Whether the same may be said again at once."""
    return _code(error) in _CLASHES


def is_duplicate(error: BaseException) -> bool:
    """Whether there is such a row already, where a database cannot be asked to keep silent about it."""
    return _code(error) in _DUPLICATES


def reason(error: BaseException, secrets: Iterable[str]) -> str:
    """Why it does not work, for people, in one line, without any of these secrets."""
    if isinstance(error, RecordError):
        return f"a row holds no record of a session: {error}"
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    numbered = len(cause.args) > 1 and isinstance(cause.args[0], int)
    said = str(cause.args[1] if numbered else cause)
    line = " ".join(said.partition("\n")[0].split()) or type(cause).__name__
    for secret in secrets:
        line = line.replace(secret, "***")
    return line[:REASON_CHARS]
