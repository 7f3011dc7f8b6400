"""PostgreSQL servers for tests: real ones, each in a folder and on a port of its own, as an ordinary user."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.conftest import SEARCHED

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PASSWORD", "Postgres", "own_postgres", "unused_port"]

PASSWORD = "not-to-be-shown"
WITHIN_S = 30.0
QUICK = {"fsync": "off", "max_connections": "60", "shared_buffers": "16MB", "autovacuum": "off"}


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A server that is not running yet.

    Args:
        folder: where everything of it goes; the server's user must be able to enter it.
        primary: whose standby it is; without it, a new database.
        settings: more lines of its configuration.
    """

    def __init__(self, folder: Path, *, primary: Postgres | None = None, **settings: str) -> None:
        self.port = unused_port()
        self.folder = folder
        self.data = folder / "data"
        self._settings = {**QUICK, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)
        if os.getuid() == 0:  # the server refuses to be run by root
            shutil.chown(folder, "nobody")
        if primary is None:
            password = folder / "password"
            password.write_text(PASSWORD)
            self._run("initdb", "-D", self.data, "-U", "ann", "-N", "--auth=scram-sha-256", f"--pwfile={password}")
            with (self.data / "pg_hba.conf").open("a") as rules:
                rules.write("host replication ann 127.0.0.1/32 scram-sha-256\n")
        else:
            self._run("pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "-d", primary.url())

    def url(self, *others: Postgres, name: str = "postgres") -> str:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in (self, *others))
        return f"postgresql://ann:{PASSWORD}@{hosts}/{name}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = [f"-c{name}={value}" for name, value in self._settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program("postgres"), "-D", self.data, "-p", str(self.port), "-k", self.folder, *settings],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **_as_user(),
            )
        try:
            self._await_answer()
        except BaseException:
            self.kill()
            raise

    def _await_answer(self) -> None:
        deadline = time.monotonic() + WITHIN_S
        while subprocess.run(
            [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        ).returncode:
            assert self._process is not None, "it was started"
            assert self._process.poll() is None and time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in good order, but waiting for no client."""
        if self._process is not None:
            self.signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(WITHIN_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """End it and all its processes at once, as a power cut would."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait(WITHIN_S)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """To all its processes: each is the leader of a group of its own."""
        assert self._process is not None, "it runs"
        told = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in (self._process.pid, *map(int, told)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def promote(self) -> None:
        """Let the standby be a primary."""
        self._run("pg_ctl", "promote", "-w", "-s", "-D", self.data)

    def query(self, *statements: str) -> str:
        """What `psql` says to them."""
        said = [part for statement in statements for part in ("-c", statement)]
        return self._run("psql", "-X", "-q", "-t", "-A", *said, self.url()).strip()

    def _run(self, program: str, *arguments: str | Path) -> str:
        done = subprocess.run(
            [_program(program), *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=60,
            **_as_user(),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return str(done.stdout)


@contextlib.contextmanager
def own_postgres() -> Iterator[Postgres]:
    """A server that runs as long as the `with` lasts."""
    with tempfile.TemporaryDirectory(prefix="sessile-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder) / "server")
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _program(name: str) -> Path:
    """The program of the installation to which `postgres` belongs."""
    found = shutil.which("postgres", path=SEARCHED)
    assert found is not None, "the test says that it needs postgres"
    return Path(found).resolve().parent / name


def _as_user() -> dict[str, Any]:
    """Whose process it is to be: the server refuses to be root's."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}
