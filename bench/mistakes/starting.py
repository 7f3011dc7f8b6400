"""Mistakes that show when a process starts, by the server that runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.mistakes import Seen
from bench.mistakes.processes import asked, free_ports, gunicorn, is_up, started, uvicorn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["equal_middlewares", "sync_workers", "under_uvicorn", "without_lifespan", "wrong_value"]

REQUESTS: Final = 10
NOT_MINE: Final = "all-to-all://?members=198.51.100.7,203.0.113.7"
"""Addresses for documentation (RFC 5737): none is this machine's."""


def _started(folder: Path, done: str, port: int, command: Sequence[str], *, ends_s: float, **variables: str) -> Seen:
    """A server that has so much time to end by itself; else it is asked."""
    seen = Seen(done)
    with started(folder, "server", command, **variables) as server:
        seen.status = server.ended(ends_s)
        if seen.status is None and is_up(server, port):
            seen.answers = asked(port, REQUESTS)
            seen.status = server.status
        seen.lines = server.lines()
    return seen


def under_uvicorn(folder: Path) -> Seen:
    """Found out in the lifespan, when the node starts."""
    (port,) = free_ports(1)
    done = "`uvicorn app:app`, where no member of the cluster is this machine"
    return _started(folder, done, port, uvicorn(port), ends_s=8.0, SESSILE_URL=NOT_MINE)


def wrong_value(folder: Path) -> Seen:
    """Found out when the app is built."""
    (port,) = free_ports(1)
    done = "`uvicorn app:app` with SESSILE_IDLE_TIMEOUT=soon"
    return _started(folder, done, port, uvicorn(port), ends_s=8.0, SESSILE_IDLE_TIMEOUT="soon")


def without_lifespan(folder: Path) -> Seen:
    """Found out at the first request."""
    (port,) = free_ports(1)
    done = "`uvicorn --lifespan off app:app`, where no member of the cluster is this machine"
    return _started(folder, done, port, uvicorn(port, "asgi", "--lifespan", "off"), ends_s=3.0, SESSILE_URL=NOT_MINE)


def sync_workers(folder: Path) -> Seen:
    """Three of four cannot have the port."""
    port, node = free_ports(2)
    done = "`gunicorn -w 4 app:app` with a cluster, whose port only one process can have"
    url = f"all-to-all://?members=127.0.0.1:{node}&me=127.0.0.1:{node}"
    command = gunicorn(port, "wsgi", "--workers", "4")
    return _started(folder, done, port, command, ends_s=10.0, SESSILE_URL=url, MISTAKE_APP="wsgi")


def equal_middlewares(folder: Path) -> Seen:
    """A session of the one must be one of the other."""
    (port,) = free_ports(1)
    seen = Seen("an app and one mounted in it, both with a SessionMiddleware of equal settings")
    with started(folder, "server", uvicorn(port, "mounted")) as server:
        if is_up(server, port):
            cookies: dict[str, str] = {}
            seen.answers += asked(port, 1, "/", cookies)
            first = dict(cookies)
            seen.answers += asked(port, 1, "/inner/", cookies)
            seen.answers += asked(port, 1, "/", cookies)
            ids = {name: value for name, value in first.items() if not name.endswith("_v")}
            if any(cookies[name] != value for name, value in ids.items()):
                seen.faults.append("the mounted app began another session")
        seen.status = server.status
        seen.lines = server.lines()
    return seen
