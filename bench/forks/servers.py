"""Real servers that load the site before they fork, and users at their port.

There are as many workers as runs; each serves a few requests and ends.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.environments import ROOT, python_of
from bench.forks.process import summed
from bench.forks.users import Answer, User, cookies_in
from bench.redis_server import free_port
from bench.show import CannotShow

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SERVERS", "play_server"]

USERS: Final = 6
REQUESTS_EACH: Final = 12
"""A worker ends after this many requests; each worker is a run."""
WITHOUT_PARENT: Final = "uWSGI"
"""By default uWSGI forks in C while threads of the parent may run Python. Such a worker never starts: its interpreter's lock is
held by a thread that the worker does not have. So here the parent is quiet."""
SPARE: Final = 10
START_S: Final = 30.0
WITHIN_S: Final = 180.0
REQUEST_S: Final = 20.0


def gunicorn(port: int, workers: int) -> list[str]:
    """gunicorn, threads in each worker."""
    options = ["--preload", "--workers", str(workers), "--threads", "4", "--max-requests", str(REQUESTS_EACH)]
    where = ["--bind", f"127.0.0.1:{port}", "--log-level", "warning"]
    return [sys.executable, "-m", "gunicorn", *options, *where, "bench.forks.served:app"]


def uwsgi(port: int, workers: int) -> list[str]:
    """The default of uWSGI: the application is loaded once, and C forks the workers without running Python's fork hooks."""
    python = python_of("uwsgi")
    options = ["--master", "--processes", str(workers), "--enable-threads", "--max-requests", str(REQUESTS_EACH)]
    more = ["--min-worker-lifetime", "0", "--disable-logging", "--die-on-term", "--need-app"]
    where = ["--http-socket", f"127.0.0.1:{port}", "--module", "bench.forks.served:app"]
    return [str(python.with_name("uwsgi")), *options, *more, *where]


def uwsgi_with_hooks(port: int, workers: int) -> list[str]:
    """The same with Python's fork hooks."""
    return [*uwsgi(port, workers), "--py-call-uwsgi-fork-hooks"]


SERVERS: Final[dict[str, Callable[[int, int], list[str]]]] = {
    "gunicorn --preload": gunicorn,
    "uWSGI": uwsgi,
    "uWSGI, py-call-uwsgi-fork-hooks": uwsgi_with_hooks,
}
NOBODY: Final[dict[str, Any]] = {"found": {}, "why": [], "disturbed": []}


class Server:
    """A server that runs."""

    def __init__(self, kind: str, url: str, workers: int, folder: Path) -> None:
        self.port = free_port()
        self.told = folder / "told.json"
        self._log = folder / "log"
        path = [str(ROOT / "src"), str(ROOT), *(place for place in sys.path if "site-packages" in place)]
        variables = {"FORKS_URL": url, "PYTHONPATH": os.pathsep.join(path)}
        if kind != WITHOUT_PARENT:
            variables["FORKS_TOLD"] = str(self.told)
        command = SERVERS[kind](self.port, workers)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def ask(self, path: str, cookie: str) -> Answer:
        """One request, over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_S)
        try:
            connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
            response = connection.getresponse()
            return Answer(response.status, cookies_in(response.getheaders()), response.read().decode())
        finally:
            connection.close()

    def wait(self) -> None:
        """Until it answers; `CannotShow` if it does not."""
        until = time.monotonic() + START_S
        while True:
            try:
                self.ask("/who", "")
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise CannotShow(f"the server did not start: {self.log.strip()[-300:]}") from None
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """It, and what it has forked; uWSGI itself would wait a second for each worker."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def play_server(kind: str, url: str, runs: int) -> dict[str, Any]:
    """Let users visit a server until `runs` workers have answered; returns their results, and those of its parent's users."""
    with tempfile.TemporaryDirectory(prefix="sessile-forks-") as folder:
        server = Server(kind, url, runs + SPARE, Path(folder))
        try:
            server.wait()
            users = [User(is_sticky=url.startswith("sticky")) for _ in range(USERS)]
            forked = visit(server, users, runs)
            parent = parents(server) if kind != WITHOUT_PARENT else NOBODY
            found, why = summed(users)
        finally:
            server.stop()
        for name, count in parent["found"].items():
            found[name] = found.get(name, 0) + count
        why += parent["why"]
        if parent is not NOBODY and parent["found"].get("right", 0) == 0:
            why.append("the parent served nobody")
            found["failed"] = found.get("failed", 0) + 1
        return {"found": found, "why": why, "runs": forked, "disturbed": parent["disturbed"]}


def parents(server: Server) -> dict[str, Any]:
    """The latest results that the server's parent process wrote after this call."""
    server.told.unlink(missing_ok=True)
    until = time.monotonic() + START_S
    while not server.told.exists():
        if time.monotonic() > until:
            return {"found": {"failed": 1}, "why": ["the parent process serves nobody any more"], "disturbed": []}
        time.sleep(0.02)
    told: dict[str, Any] = json.loads(server.told.read_text())
    return told


def visit(server: Server, users: list[User], runs: int) -> int:
    """Let users visit until `runs` processes have answered; returns how many did."""
    pids: set[int] = set()
    until = time.monotonic() + WITHIN_S

    def ask(path: str, cookie: str) -> Answer:
        answer = server.ask(path, cookie)
        with contextlib.suppress(ValueError, KeyError):  # what fails is judged elsewhere
            pids.add(json.loads(answer.body)["pid"])
        return answer

    def work(user: User) -> None:
        while len(pids) < runs and time.monotonic() < until:
            user.visit(ask)

    threads = [threading.Thread(target=work, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(pids)
