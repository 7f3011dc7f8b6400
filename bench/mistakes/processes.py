"""Processes for a mistake: started with the settings of the mistake and no others, read, asked, and ended."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.members import node_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Process", "asked", "free_ports", "gunicorn", "run", "started", "status_of", "uvicorn", "wait_for"]

ROOT: Final = Path(__file__).resolve().parents[2]
SECRET: Final = "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"
TOKEN: Final = "a-token-of-the-show"
START_S: Final = 20.0
END_S: Final = 10.0
OWN_REPORTS: Final = (
    "INFO",
    "[INFO]",
    "DEBUG",
    "Handling signal",
    "Worker exiting",
    "Shutting down: Master",
    "listening on",
)
"""Lines in which a server tells of its own life."""
WITH_GROUPS: Final = frozenset({"demo"})
"""Names of processes whose own processes are in groups of their own: they end those, where they are asked to end."""

free_ports = node_ports


class Process:
    """One process and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def lines(self) -> list[str]:
        """What it said that is more than reports of its own life."""
        said = self._log.read_text(errors="replace").splitlines()
        return [line.rstrip() for line in said if line.strip() and not any(word in line for word in OWN_REPORTS)]

    def ended(self, within_s: float = START_S) -> int | None:
        """Its exit status, waited for; None where it goes on."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(within_s)
        return None

    def end(self, *, in_good_order: bool) -> None:
        """End it and what it started in its group; `in_good_order` where it has to end others itself."""
        if in_good_order:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(END_S)


def environment(**variables: str) -> dict[str, str]:
    """The variables of a process: of ours, none but those that are given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SESSILE")}
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]))
    given = {"SESSILE_SECRET": SECRET, "SESSILE_STATUS_TOKEN": TOKEN, **variables}
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **given}


@contextlib.contextmanager
def started(folder: Path, name: str, arguments: Sequence[str], **variables: str) -> Iterator[Process]:
    """A process with its log in the folder; ended when this is left."""
    log = folder / f"{name}.log"
    with log.open("wb") as stream:
        process = Process(
            subprocess.Popen(
                arguments, cwd=ROOT, env=environment(**variables), stdout=stream, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True,
            ),
            log,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.end(in_good_order=name in WITH_GROUPS)


def run(arguments: Sequence[str], **variables: str) -> tuple[int, list[str]]:
    """A command that ends by itself: its exit status and all its lines."""
    done = subprocess.run(
        arguments, cwd=ROOT, env=environment(**variables), capture_output=True, text=True, check=False, timeout=START_S
    )
    return done.returncode, [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]


def uvicorn(port: int, app: str = "asgi", *options: str) -> list[str]:
    """The command that serves an app of `apps.py` by uvicorn."""
    return [
        sys.executable,
        "-m",
        "uvicorn",
        f"bench.mistakes.apps:{app}",
        "--port",
        str(port),
        "--no-access-log",
        *options,
    ]


def gunicorn(port: int, app: str = "wsgi", *options: str) -> list[str]:
    """The same by gunicorn."""
    listen = f"127.0.0.1:{port}"
    return [
        sys.executable,
        "-m",
        "gunicorn",
        "--bind",
        listen,
        "--graceful-timeout",
        "1",
        *options,
        f"bench.mistakes.apps:{app}",
    ]


def asked(port: int, count: int, path: str = "/", cookies: dict[str, str] | None = None) -> list[int]:
    """The status of each of so many requests, one after the other; 0 where nothing answers."""
    statuses = []
    for _ in range(count):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=END_S)
        jar = cookies or {}
        header = {"Cookie": "; ".join(f"{name}={value}" for name, value in jar.items())} if jar else {}
        try:
            connection.request("GET", path, headers=header)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
            if cookies is not None:
                for given in answer.headers.get_all("Set-Cookie") or ():
                    name, _, value = given.partition(";")[0].partition("=")
                    cookies[name] = value
        except (OSError, http.client.HTTPException):
            statuses.append(0)
        finally:
            connection.close()
    return statuses


def wait_for(condition: Callable[[], bool], within_s: float = START_S) -> bool:
    """Whether it came to be so in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def is_up(process: Process, port: int, within_s: float = START_S) -> bool:
    """Whether it answers, whatever it answers; not where it has ended."""
    wait_for(lambda: process.status is not None or asked(port, 1, "/healthz") != [0], within_s)
    return process.status is None


def status_of(ports: Sequence[int]) -> tuple[int, list[str]]:
    """What `sessile status` says of servers, below its table, and its exit status."""
    urls = [f"http://127.0.0.1:{port}/ops" for port in ports]
    status, lines = run([sys.executable, "-m", "sessile", "status", *urls])
    return status, [line for line in lines if line.endswith(".") or line.startswith("sessile: ")]
