"""A demo started by its public command, and browsers that use it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx2

from tests.lab.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
START_S = 60.0
STOP_S = 30.0
MARKED = {"X-Sessile": "1"}


def free_pair() -> int:
    """A port that is free, and so is the one after it."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind((HOST, 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                second.bind((HOST, port + 1))
                return port


def command(port: int, *options: str) -> list[str]:
    return [sys.executable, "-m", "sessile", "demo", "--port", str(port), *options]


def told_at_start(*options: str, port: int | None = None) -> str:
    """All that a demo tells the terminal that it is started in and, once it serves, ended in."""
    with subprocess.Popen(
        command(port or free_pair(), *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or "Ctrl-C" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], f"ended before it had started: {process.communicate()[1]}"
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=STOP_S)
    assert errors == ""
    return "".join([*lines, rest])


class RunningDemo:
    """One demo: its process, its ports, its control API."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the demo did not start: {process.communicate()[1]}"
        self.started: dict[str, Any] = json.loads(line)
        self.control = httpx2.Client(base_url=f"http://{HOST}:{port + 1}", timeout=60.0)

    def browser(self) -> httpx2.Client:
        """Somebody with cookies of their own; close it."""
        return httpx2.Client(base_url=f"http://{HOST}:{self.port}", timeout=30.0)

    def status(self) -> dict[str, Any]:
        answer = self.control.get("/api/status")
        assert answer.status_code == 200, answer.text
        status: dict[str, Any] = answer.json()
        return status

    def server(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.status()["servers"] if one["name"] == name)
        return found

    def act(self, name: str, action: str) -> httpx2.Response:
        return self.control.post(f"/api/servers/{name}/{action}", headers=MARKED)

    def add(self) -> httpx2.Response:
        return self.control.post("/api/servers", headers=MARKED)

    def pids(self) -> list[int]:
        """Of every process there is: the demo, its balancer, its servers."""
        status = self.status()
        every = [status["pid"], status["balancer"]["pid"], *(one["pid"] for one in status["servers"])]
        return [pid for pid in every if pid is not None]

    def mend(self) -> None:
        """Get every server ready again, and known to the balancer as up, whatever a test did to it."""
        for server in self.status()["servers"]:
            if server["state"] != "ready":
                assert self.act(server["name"], "restart").status_code == 200
        wait_until(
            lambda: all((one["state"], one["balancer_sees"]) == ("ready", "up") for one in self.status()["servers"]),
            "all servers are ready and up",
        )

    def end(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Send the signal; returns the exit status and what was printed."""
        self.control.close()
        if self.process.poll() is None:
            os.kill(self.process.pid, how)
        try:
            output, errors = self.process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode, output, errors


@contextlib.contextmanager
def running(*options: str, port: int | None = None) -> Iterator[RunningDemo]:
    """A demo that serves; it is ended afterwards."""
    port = port or free_pair()
    process = subprocess.Popen(
        command(port, "--json", *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        demo = RunningDemo(process, port)
        try:
            yield demo
        finally:
            demo.end()
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
