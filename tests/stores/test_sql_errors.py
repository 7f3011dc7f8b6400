from __future__ import annotations

import sqlite3

import psycopg
import pytest
from asyncmy import errors as mysql
from sqlalchemy.exc import DBAPIError, OperationalError

from sessile.errors import RecordError
from sessile.stores.sql_errors import is_clash, is_duplicate, is_missing_table, is_read_only, reason


def told(original: BaseException) -> DBAPIError:
    return OperationalError("SELECT secret", {"a": "secret"}, original, hide_parameters=True)


@pytest.mark.parametrize(
    ("judge", "original"),
    [
        (is_missing_table, psycopg.errors.UndefinedTable("x")),
        (is_missing_table, psycopg.errors.UndefinedColumn("x")),
        (is_missing_table, mysql.ProgrammingError(1146, "x")),
        (is_missing_table, sqlite3.OperationalError("no such table: sessile_sessions")),
        (is_read_only, psycopg.errors.ReadOnlySqlTransaction("x")),
        (is_read_only, mysql.OperationalError(1290, "x")),
        (is_clash, psycopg.errors.DeadlockDetected("x")),
        (is_clash, psycopg.errors.SerializationFailure("x")),
        (is_clash, mysql.OperationalError(1213, "x")),
        (is_duplicate, mysql.IntegrityError(1062, "x")),
    ],
)
def test_what_databases_say_is_understood(judge: object, original: Exception) -> None:
    """Each in its own way, and no two of these are the same."""
    judges = (is_missing_table, is_read_only, is_clash, is_duplicate)
    assert [it for it in judges if it(told(original))] == [judge]


def test_what_mysql_s_numbers_mean() -> None:
    """These and no others."""
    meant = {
        1054: is_missing_table,
        1062: is_duplicate,
        1146: is_missing_table,
        1205: is_clash,
        1213: is_clash,
        1290: is_read_only,
        1792: is_read_only,
        1836: is_read_only,
    }
    judges = (is_missing_table, is_read_only, is_clash, is_duplicate)
    found = {
        number: judge
        for number in range(1_000, 2_000)
        for judge in judges
        if judge(told(mysql.OperationalError(number, "x")))
    }
    assert found == meant


def test_what_is_none_of_these_is_none() -> None:
    """A driver that gives neither state nor number."""
    plain = told(sqlite3.OperationalError("database is locked"))
    assert not any(judge(plain) for judge in (is_missing_table, is_read_only, is_clash, is_duplicate))
    assert not is_clash(TimeoutError())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (told(sqlite3.OperationalError("database or disk is full")), "database or disk is full"),
        (told(mysql.OperationalError(1290, "read-only\nand more")), "read-only"),
        (told(psycopg.OperationalError("a: no;\tb  no\nIs the server running?")), "a: no; b no"),
        (told(psycopg.OperationalError("password hunter2 is wrong, hunter2")), "password *** is wrong, ***"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (RecordError("these bytes are no record"), "a row holds no record of a session: these bytes are no record"),
        (OSError(), "OSError"),
        (OSError(7), "7"),
        (told(psycopg.OperationalError("x" * 999)), "x" * 200),
    ],
)
def test_a_reason_is_one_line(error: Exception, said: str) -> None:
    """Without password, statement or value."""
    assert reason(error, ["hunter2"]) == said
