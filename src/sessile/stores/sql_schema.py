"""The one table in which an SQL database keeps sessions, as each dialect writes it. Text only: no driver is needed.

A row is one session. Its `record` is the packed record without its times: those stand in columns of their own, in
milliseconds on the database's clock, so that a touch need not read the record and a new row need not know the time.
`due_ms` is when the row is to be looked at by whoever removes what is over: never later than the moment something
becomes of it. Nothing that a request does to a live session moves it on, so its index is left alone.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from sessile.errors import SettingsError

__all__ = ["DEFAULT_CLUSTER", "DIALECTS", "dialect_of", "schema_sql", "schema_statements", "table_name"]

DIALECTS: Final = ("sqlite", "postgresql", "mysql")
DEFAULT_CLUSTER: Final = "sessile"
TABLE: Final = "sessile_sessions"
_PLAIN: Final = re.compile(r"[a-z0-9_]{1,32}")
_KEPT_CHARS: Final = 24

_COLUMNS: Final = """\
    session_key {key} NOT NULL PRIMARY KEY,
    revision BIGINT NOT NULL,
    digest BIGINT NOT NULL,
    idle_ms BIGINT NOT NULL,
    deadline_ms BIGINT NOT NULL,
    touched_ms BIGINT NOT NULL,
    ended_ms BIGINT NOT NULL,
    due_ms BIGINT NOT NULL,
    state SMALLINT NOT NULL,
    record {bytes} NOT NULL"""

_SERVER_INDEX: Final = "CREATE INDEX IF NOT EXISTS {table}_due ON {table} (due_ms)"

_DDL: Final[dict[str, tuple[str, ...]]] = {
    "sqlite": (
        "CREATE TABLE IF NOT EXISTS {table} (\n" + _COLUMNS.format(key="BLOB", bytes="BLOB") + "\n)",
        _SERVER_INDEX,
    ),
    # Room on each page for the next state of its rows: then a write touches no index.
    "postgresql": (
        "CREATE TABLE IF NOT EXISTS {table} (\n"
        + _COLUMNS.format(key="BYTEA", bytes="BYTEA")
        + "\n) WITH (fillfactor = 80)",
        _SERVER_INDEX,
    ),
    "mysql": (
        "CREATE TABLE IF NOT EXISTS {table} (\n"
        + _COLUMNS.format(key="BINARY(16)", bytes="LONGBLOB")
        + ",\n    INDEX {table}_due (due_ms)\n) ENGINE = InnoDB",
    ),
}


def dialect_of(url: str) -> str:
    """`sqlite`, `postgresql` or `mysql`, by the URL's scheme.

    Raises:
        SettingsError: it is none of them.
    """
    scheme = url.partition("://")[0].lower()
    if scheme not in DIALECTS or "://" not in url:
        raise SettingsError(
            "url names no SQL database: write sqlite:///file, postgresql://host/name or mysql://host/name"
        )
    return scheme


def table_name(cluster: str = DEFAULT_CLUSTER) -> str:
    """Each cluster has a table of its own: `sessile_sessions`, and for one with a name that with the name behind it."""
    if cluster == DEFAULT_CLUSTER:
        return TABLE
    if _PLAIN.fullmatch(cluster):
        return f"{TABLE}_{cluster}"
    readable = re.sub(r"[^a-z0-9]+", "_", cluster.lower())[:_KEPT_CHARS].strip("_")
    return f"{TABLE}_{readable}_{blake2b(cluster.encode(), digest_size=4).hexdigest()}"


def schema_statements(dialect: str, table: str) -> tuple[str, ...]:
    """What creates the table where it is missing, one statement each."""
    return tuple(statement.format(table=table) for statement in _DDL[dialect])


def schema_sql(url: str, cluster: str = DEFAULT_CLUSTER) -> str:
    """What creates the table where it is missing, to be given to the database's own command line.

    Raises:
        SettingsError: the URL names no SQL database.
    """
    statements = schema_statements(dialect_of(url), table_name(cluster))
    return "".join(f"{statement};\n" for statement in statements)
