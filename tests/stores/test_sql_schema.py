from __future__ import annotations

import sqlite3

import pytest

from sessile.errors import SettingsError
from sessile.stores.sql_schema import DIALECTS, dialect_of, schema_sql, schema_statements, table_name

NAMES = ["sessile", "shop", "Shop", "sh op", "sh-op", "x" * 64, "y" * 64, "'; DROP TABLE users; --", "~!@#$%^&*()"]


def test_each_cluster_has_a_table_of_its_own() -> None:
    """Names that differ in anything lead to tables that do, each a plain identifier that every database takes."""
    tables = [table_name(name) for name in NAMES]
    assert tables[:2] == ["sessile_sessions", "sessile_sessions_shop"]
    assert len(set(tables)) == len(NAMES)
    assert all(len(f"{table}_due") <= 63 and table.isascii() and table.replace("_", "").isalnum() for table in tables)
    assert all(table == table.lower() for table in tables)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_schema_is_the_statements(dialect: str) -> None:
    """What is printed is what a server would say itself, and may be said again."""
    statements = schema_statements(dialect, "sessile_sessions_shop")
    assert schema_sql(f"{dialect}://host/name", "shop") == "".join(f"{statement};\n" for statement in statements)
    assert all("IF NOT EXISTS" in statement for statement in statements)


def test_a_strange_cluster_does_no_harm() -> None:
    """Whatever a cluster is called, its statements are well-formed."""
    connection = sqlite3.connect(":memory:")
    for name in NAMES:
        connection.executescript(schema_sql("sqlite://", name))
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    assert found == {table_name(name) for name in NAMES}


@pytest.mark.parametrize("url", ["", "sqlite", "redis://secret@host", "postgres://secret@host", "mysql:secret"])
def test_what_is_no_sql_database_is_refused(url: str) -> None:
    """The message says what to write and repeats nothing of the URL."""
    with pytest.raises(SettingsError, match="write sqlite:///file") as refused:
        dialect_of(url)
    assert "secret" not in str(refused.value)


def test_the_scheme_is_read_as_schemes_are() -> None:
    """In either case."""
    assert dialect_of("PostgreSQL://h/n") == "postgresql"
