"""The conformance suite over each SQL database."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import psycopg
import pytest

from sessile.stores.sql import SqlStore
from tests.stores.conformance import Place, StoreConformance
from tests.stores.rig import GRACE_MS, KEEP_MS

if TYPE_CHECKING:
    from pathlib import Path

    from sessile.token import SessionKey
    from tests.stores.mariadb import MariaDb
    from tests.stores.postgres import Postgres

TIMEOUT_S = 20.0
PLANT = "UPDATE sessile_sessions SET record = %s WHERE session_key = %s"


class SqlPlace(Place):
    """A database.

    Args:
        url: where it is.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def store(self, *, tombstone_keep_ms: int = KEEP_MS, rotation_grace_ms: int = GRACE_MS) -> SqlStore:
        return SqlStore(
            self.url,
            timeout_s=TIMEOUT_S,
            tombstone_keep_ms=tombstone_keep_ms,
            rotation_grace_ms=rotation_grace_ms,
            create=True,
        )


class SqlitePlace(SqlPlace):
    async def plant(self, key: SessionKey, data: bytes) -> None:
        connection = sqlite3.connect(self.url.removeprefix("sqlite:///"))
        with connection:
            connection.execute(PLANT.replace("%s", "?"), (data, key))
        connection.close()


class PostgresPlace(SqlPlace):
    async def plant(self, key: SessionKey, data: bytes) -> None:
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            await connection.execute(PLANT, (data, key))


class MariaDbPlace(SqlPlace):
    def __init__(self, server: MariaDb) -> None:
        super().__init__(server.url)
        self._server = server

    async def plant(self, key: SessionKey, data: bytes) -> None:
        self._server.run(
            f"UPDATE sessions.sessile_sessions SET record = x'{data.hex()}' WHERE session_key = x'{key.hex()}'"
        )


class TestSqlite(StoreConformance):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self._url = f"sqlite:///{tmp_path / 'sessions.db'}"

    def place(self) -> Place:
        return SqlitePlace(self._url)


@pytest.mark.needs("postgres")
class TestPostgres(StoreConformance):
    @pytest.fixture(autouse=True)
    def _server(self, postgres: Postgres) -> None:
        self._url = postgres.url()

    def place(self) -> Place:
        return PostgresPlace(self._url)


@pytest.mark.slow
@pytest.mark.needs("mariadbd")
class TestMariaDb(StoreConformance):
    @pytest.fixture(autouse=True)
    def _server(self, mariadb: MariaDb) -> None:
        self._mariadb = mariadb

    def place(self) -> Place:
        return MariaDbPlace(self._mariadb)
