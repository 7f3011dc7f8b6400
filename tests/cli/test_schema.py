from __future__ import annotations

import json
import sqlite3
import subprocess
import sys

import pytest

from sessile.cli import main
from sessile.stores.sql_schema import DIALECTS, schema_sql


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_statements_are_printed(dialect: str, capsys: pytest.CaptureFixture[str]) -> None:
    """For each database its own, whatever else the URL says."""
    assert main(["schema", f"{dialect}://ann:secret@host/name?x=1"]) == 0
    assert capsys.readouterr().out == schema_sql(f"{dialect}://")


def test_they_can_be_piped_into_the_database(capsys: pytest.CaptureFixture[str]) -> None:
    """Complete statements, which do no harm to a table that is there."""
    for _ in range(2):
        assert main(["schema", "sqlite://", "--cluster", "shop"]) == 0
    connection = sqlite3.connect(":memory:")
    connection.executescript(capsys.readouterr().out)
    assert connection.execute("SELECT count(*) FROM sessile_sessions_shop").fetchone() == (0,)
    connection.close()


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One object, with the table's name."""
    assert main(["schema", "postgresql://", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"table": "sessile_sessions", "sql": schema_sql("postgresql://")}


def test_what_is_no_sql_database_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line that says what to write, and not what was written."""
    assert main(["schema", "oracle://ann:secret@host/name"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and "postgresql://" in shown.err and "secret" not in shown.err


def test_no_driver_is_needed() -> None:
    """It runs where only the core is installed."""
    source = "import sys; from sessile.cli import main; main(['schema', 'mysql://']); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout
    assert "CREATE TABLE" in shown
    assert not {"sqlalchemy", "psycopg", "aiomysql", "asyncio"} & set(shown.split())
