"""A MariaDB server for tests: a real one, in a folder and on a port of its own, as an ordinary user."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

from tests.conftest import SEARCHED
from tests.stores.postgres import PASSWORD, WITHIN_S, unused_port

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MariaDb"]

OPTIONS = (
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=32M",
    "--skip-log-bin",
    "--skip-name-resolve",
)


class MariaDb:
    """A server that is not running yet; everything of it goes into the folder."""

    def __init__(self, folder: Path) -> None:
        self.port = unused_port()
        self.folder = folder
        self._data = folder / "data"
        self._socket = folder / "socket"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)
        if os.getuid() == 0:
            shutil.chown(folder, "nobody")
        install = ["--no-defaults", f"--datadir={self._data}", "--auth-root-authentication-method=normal"]
        subprocess.run(
            [_program("mariadb-install-db"), *install, "--skip-test-db"],
            check=True,
            capture_output=True,
            timeout=120,
            **self._as_user(),
        )

    @property
    def url(self) -> str:
        return f"mysql://ann:{PASSWORD}@127.0.0.1:{self.port}/sessions"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        first = self.folder / "first.sql"
        first.write_text(
            "CREATE DATABASE IF NOT EXISTS sessions;\n"
            f"CREATE USER IF NOT EXISTS ann@'%' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON sessions.* TO ann@'%';\n"
        )
        where = [
            f"--datadir={self._data}",
            f"--socket={self._socket}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program("mariadbd"), "--no-defaults", *where, f"--init-file={first}", *OPTIONS],
                stdout=log,
                stderr=log,
                **self._as_user(),
            )
        deadline = time.monotonic() + WITHIN_S
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def run(self, statement: str) -> str:
        """What its command line says to a statement of root."""
        return self._client(statement, check=True)

    def _answers(self) -> bool:
        return bool(self._client("SHOW DATABASES LIKE 'sessions'", check=False))

    def _client(self, statement: str, *, check: bool) -> str:
        done = subprocess.run(
            [
                _program("mariadb"),
                "--no-defaults",
                "-N",
                "-B",
                "-u",
                "root",
                f"--socket={self._socket}",
                "-e",
                statement,
            ],
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=check,
        )
        return done.stdout

    def _as_user(self) -> dict[str, Any]:
        ordinary = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}
        return {"cwd": self.folder, **ordinary}


def _program(name: str) -> str:
    found = shutil.which(name, path=SEARCHED)
    assert found is not None, "the test says that it needs mariadbd"
    return found
