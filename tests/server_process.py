"""A real server in a process of its own, for as long as a `with` lasts, and requests to it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ServerProcess", "ended", "served"]

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 30.0


class ServerProcess:
    """What runs at a port of loopback, and the cookies it has set."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.cookies: dict[str, str] = {}
        self._log = log

    @property
    def log(self) -> str:
        """All it has said so far."""
        return self._log.read_text()

    @property
    def cookie_header(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def ask(self, **fields: str) -> dict[str, Any]:
        """One request, over a connection of its own, with these fields beside its cookies."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            cookies = {"Cookie": self.cookie_header} if self.cookies else {}
            connection.request("GET", "/", headers=cookies | fields)
            response = connection.getresponse()
            assert response.status == 200, self.log
            for set_cookie in response.headers.get_all("Set-Cookie") or ():
                name, _, value = set_cookie.partition(";")[0].partition("=")
                self.cookies[name] = value
            return dict(json.loads(response.read()))
        finally:
            connection.close()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            assert self.process.poll() is None, self.log
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert time.monotonic() < deadline, self.log
                time.sleep(0.05)
            else:
                return


def ended(arguments: list[str], **variables: str) -> tuple[int, str]:
    """The exit status of a server that stops by itself, and all it has said."""
    process = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=DEADLINE_S,
        check=False,
        text=True,
    )
    return process.returncode, process.stdout


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "SESSILE_SECRET": "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja", "PYTHONUNBUFFERED": "1", **variables}


@contextmanager
def served(arguments: list[str], port: int, folder: Path, **variables: str) -> Iterator[ServerProcess]:
    """`python -m` with these arguments and variables, ready, and ended by a signal at the end."""
    log = folder / f"server-{port}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=environment(**variables),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    server = ServerProcess(process, port, log)
    try:
        server.wait_until_ready()
        yield server
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
