from __future__ import annotations

import asyncio
import time
from importlib import util
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from sessile.errors import SettingsError
from sessile.stores import sql_engine
from sessile.stores.sql_engine import Hosts, target_of
from tests.stores.rig import ran

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.stores.postgres import Postgres


@pytest.mark.parametrize(
    ("url", "where", "is_single"),
    [
        ("sqlite:///a%20b.db", "sqlite:///a b.db", True),
        ("sqlite:////var/lib/a.db?synchronous=normal", "sqlite:////var/lib/a.db", True),
        ("postgresql://ann:secret@h/name", "postgresql://h/name", True),
        ("postgresql://ann:secret@h1:1,h2:2/name?sslmode=require", "postgresql://h1:1,h2:2/name", False),
        ("postgresql://ann:secret@h1,h2:5433/name", "postgresql://h1,h2:5433/name", False),
        ("postgresql:///name?host=/run/postgresql", "postgresql:///run/postgresql/name", True),
        ("postgresql://[::1]:5432/name", "postgresql://[::1]:5432/name", True),
        ("postgresql://", "postgresql:///", True),
        ("mysql://ann:secret@h:3307/name", "mysql://h:3307/name", True),
        ("mysql://ann:secret@h/name?ssl=true", "mysql://h/name", True),
    ],
)
def test_where_it_is(url: str, where: str, is_single: bool) -> None:  # noqa: FBT001  # a column of the table
    """For people: hosts and database, never a user or password; and whether all depends on one host."""
    target = target_of(url)
    assert (target.where, target.is_single) == (where, is_single)
    assert target.secrets == (("secret",) if "secret" in url else ())


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite://secret/x.db", "names no file"),
        ("sqlite:///x.db?synchronous=off", "write full or normal"),
        ("sqlite:///x.db?synchronos=full", "did you mean synchronous?"),
        ("postgresql://ann:secret@h/name?sslmod=require", "did you mean sslmode?"),
        ("postgresql://ann:sec%ret@h/name", "is malformed"),
        ("postgresql://ann:secret@h1:1,h2:2,h3/name?port=1,2", "more ports than hosts"),
        ("mysql://ann:secret@h", "is malformed"),
        ("mysql://ann:secret@h1,h2/name", "with one host"),
        ("mysql://ann:secret@h:port/name", "is malformed"),
        ("mysql://ann:secret@h/name?ssl_cert=x", "did you mean ssl_ca?"),
        ("redis://ann:secret@h", "names no SQL database"),
    ],
)
def test_what_is_malformed_is_refused(url: str, told: str) -> None:
    """At once, in one line that says what to write and does not show what was written."""
    with pytest.raises(SettingsError, match=told.replace("?", r"\?")) as refused:
        target_of(url)
    assert "secret" not in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "missing", "told"),
    [
        ("sqlite:///x.db", {"sqlalchemy", "aiosqlite"}, "sqlalchemy and aiosqlite, which are .*sessile.sql."),
        ("postgresql://h/n", {"psycopg"}, "psycopg, which is .*sessile.postgresql."),
        ("mysql://h/n", {"asyncmy"}, "asyncmy, which is .*sessile.mysql."),
    ],
)
def test_what_is_not_installed_is_named(
    url: str, missing: set[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that installs it."""
    find: Callable[[str], Any] = util.find_spec
    monkeypatch.setattr(sql_engine, "find_spec", lambda name: None if name in missing else find(name))
    with pytest.raises(SettingsError, match=told):
        target_of(url)


@pytest.mark.parametrize(("given", "value"), [("", 2), ("?synchronous=full", 2), ("?synchronous=normal", 1)])
def test_sqlite_is_set_up(given: str, value: int, tmp_path: Path) -> None:
    """A write-ahead log, and what is confirmed is on the disk unless the URL says otherwise."""

    async def body() -> None:
        connections = target_of(f"sqlite:///{tmp_path / 'x.db'}{given}").make(2.0)
        async with connections.engine.connect() as connection:
            said = [
                (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()
                for name in ("journal_mode", "synchronous", "busy_timeout")
            ]
        await connections.engine.dispose()
        assert said == ["wal", value, 1_600]

    ran(body)


# -- the hosts of PostgreSQL -------------------------------------------------------------------------------------------


class Dialled:
    """What was dialled, in place of the driver; some hosts refuse, and some are silent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, refuse: set[str], silent: set[str]) -> None:
        self.hosts: list[str] = []
        self.given: dict[str, str] = {}
        self.refuse, self.silent = refuse, silent
        monkeypatch.setattr(psycopg.AsyncConnection, "connect", self.connect)

    async def connect(self, **given: str) -> str:
        host = given["host"]
        self.hosts.append(host)
        self.given = given
        if host in self.silent:
            await asyncio.sleep(60)
        if host in self.refuse:
            raise psycopg.OperationalError(f"{host} is read-only\nand says more")
        return host


def hosts_of(names: str) -> Any:
    """What is dialled is the driver's business, so here it gives the names of hosts."""
    return Hosts([{"host": name} for name in names], 0.3)


def test_the_first_that_will_do_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hosts are tried in turn, a silent one only for its part of the timeout; next time the good one is first."""

    async def body() -> None:
        dialled = Dialled(monkeypatch, refuse={"b"}, silent={"a"})
        hosts = hosts_of("abc")
        began_s = time.monotonic()
        assert [await hosts.connect() for _ in range(3)] == ["c", "c", "c"]
        assert time.monotonic() - began_s < 10
        assert dialled.hosts == ["a", "b", "c", "c", "c"]
        assert dialled.given["target_session_attrs"] == "read-write"
        dialled.refuse, dialled.silent = {"c"}, set()
        assert await hosts.connect() == "a"
        assert dialled.hosts[-2:] == ["c", "a"]

    ran(body)


def test_when_none_will_do_each_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, within the timeout."""

    async def body() -> None:
        Dialled(monkeypatch, refuse={"b"}, silent={"a"})
        with pytest.raises(psycopg.OperationalError) as refused:
            await hosts_of("ab").connect()
        assert str(refused.value) == "a does not answer; b is read-only"

    ran(body)


def test_what_the_url_says_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over everything that is set otherwise."""

    async def body() -> None:
        dialled = Dialled(monkeypatch, refuse=set(), silent=set())
        await Hosts([{"host": "a", "target_session_attrs": "any", "keepalives": "0"}], 1.0).connect()
        assert dialled.given["target_session_attrs"] == "any" and dialled.given["keepalives"] == "0"

    ran(body)


@pytest.mark.needs("postgres")
def test_a_connection_says_nothing_but_what_it_is_told_to(postgres: Postgres) -> None:
    """It commits by itself, and its results are bytes."""

    async def body() -> None:
        connections = target_of(postgres.url()).make(20.0)
        async with connections.engine.connect() as connection:
            said = (await connection.exec_driver_sql("SELECT '\\x00ff'::bytea, 7::bigint")).one()
            raw: Any = (await connection.get_raw_connection()).driver_connection
            assert raw.autocommit and raw.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
        await connections.engine.dispose()
        assert said == (b"\x00\xff", 7)

    ran(body)


@pytest.mark.needs("postgres")
def test_a_silent_server_loses_all_connections(postgres: Postgres) -> None:
    """Those that were made before are replaced when their turn comes, and those made since are not."""

    async def body() -> None:
        connections = target_of(postgres.url()).make(20.0)

        async def process() -> object:
            async with connections.engine.connect() as connection:
                return (await connection.exec_driver_sql("SELECT pg_backend_pid()")).scalar()

        first = await process()
        assert await process() == first
        connections.distrust()
        second = await process()
        assert second != first and await process() == second
        await connections.engine.dispose()

    ran(body)
