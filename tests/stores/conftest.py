"""Servers that many tests of the stores share."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stores.mariadb import MariaDb
from tests.stores.postgres import own_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stores.postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests that do it no harm."""
    with own_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """The same, of MariaDB."""
    with tempfile.TemporaryDirectory(prefix="sessile-mariadb-") as folder:
        Path(folder).chmod(0o755)
        server = MariaDb(Path(folder) / "server")
        server.start()
        try:
            yield server
        finally:
            server.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A connection that redis-py was making when it was given up is closed by the collector only, with a warning."""
    for item in items:
        if item.path.name.startswith("test_redis"):
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))
