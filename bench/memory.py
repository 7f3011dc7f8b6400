"""What a held session takes: resident memory of a fresh process before and after it was given very many of them.

Sessions are made as users make them, by requests through the ASGI middleware: created with two fields, one of a hundred
characters, read once and written once more by a browser that keeps its cookies; so whatever a session causes to be
held, its caches and timers too, is in the figure. Before each look at the memory, what is garbage is collected and
what the allocator keeps for later is given back to the system. Linux only: it reads `/proc/self/statm`.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import secrets
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.peers import asgi
from bench.peers.workload import SECRET, Browser
from bench.show import CannotShow, Progress

ROOT = Path(__file__).resolve().parent.parent
STATM = Path("/proc/self/statm")
NOTE_CHARACTERS = 100
WARM = 500
"""Sessions made before the first look: imports, code and tables of a process that has begun to serve."""
PROGRESS_EVERY = 10_000
SAMPLE = 200
"""Sessions whose browsers come back at the end, to see that what was counted is really held."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a number of sessions took."""

    sessions: int
    resident_bytes: int
    stats: dict[str, int]
    returned: int
    """Of the sample of browsers that came back at the end, how many found their session as they left it."""
    sample: int


async def app(scope: Any, _receive: Any, send: Any) -> None:
    """Two fields, set, read and changed; answers with the long one."""
    session = scope["session"]
    if scope["path"] == "/create":
        session["user"] = f"user-{secrets.randbelow(10**6)}"
        session["note"] = secrets.token_hex(NOTE_CHARACTERS // 2)
    elif scope["path"] == "/change":
        session["note"] = secrets.token_hex(NOTE_CHARACTERS // 2)
    body = session.get("note", "").encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def resident_bytes() -> int:
    """This process's resident memory, without garbage and without what the allocator could give back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def visit(driver: asgi.Driver) -> tuple[Browser, str]:
    """One user: a session is created, read and changed; the browser, and the note it was last told."""
    browser = Browser()
    driver.ask("/create", browser)
    driver.ask("/read", browser)
    return browser, driver.ask("/change", browser)


def take(sessions: int, progress: Progress) -> Memory:
    """Hold this many sessions, in this process."""
    from sessile.asgi import SessionMiddleware

    middleware = SessionMiddleware(app, url="sticky://", secret=SECRET)
    driver = asgi.Driver(middleware, asgi.new_loop())
    for _ in range(WARM):
        visit(driver)
    before, held_before = resident_bytes(), middleware.engine.stats()
    sample: list[tuple[Browser, str]] = []
    every = max(1, sessions // SAMPLE)
    for number in range(sessions):
        visited = visit(driver)
        if number % PROGRESS_EVERY == 0:
            progress(f"{number} of {sessions} sessions held")
        if number % every == 0:
            sample.append(visited)
    after, held_after = resident_bytes(), middleware.engine.stats()
    returned = sum(driver.ask("/read", browser) == note for browser, note in sample)
    return Memory(
        sessions=held_after["sessions"] - held_before["sessions"],
        resident_bytes=after - before,
        stats={name: value - held_before.get(name, 0) for name, value in held_after.items()},
        returned=returned,
        sample=len(sample),
    )


def measure(sessions: int, progress: Progress) -> Memory:
    """Hold this many sessions in a fresh process; `CannotShow` where that cannot be seen."""
    if not STATM.exists():
        raise CannotShow("resident memory is read from /proc/self/statm, which only Linux has")
    command = [sys.executable, "-m", "bench.memory", str(sessions)]
    said = ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "started with a pipe"
        for said in process.stdout:
            if not said.startswith("{"):
                progress(said.strip())
    if process.returncode:
        raise CannotShow(f"the measuring process ended with status {process.returncode}")
    return Memory(**json.loads(said))


def main() -> None:
    """In the fresh process: lines of progress on stdout, and at last what was found, as JSON."""

    def progress(line: str) -> None:
        print(line, flush=True)

    print(json.dumps(asdict(take(int(sys.argv[1]), progress))))


if __name__ == "__main__":
    main()
