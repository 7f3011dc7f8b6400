"""Mistakes with stores: what cannot heal by waiting, rights that are missing, and stores that are away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any, Final

from bench.mistakes import Seen
from bench.mistakes.processes import asked, free_ports, is_up, run, started, uvicorn, wait_for
from bench.mistakes.settings import served
from sessile.errors import SettingsError
from sessile.lab import ports
from sessile.lab.redis_keeper import info_of, redis_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["REDIS_PASSWORD", "all_of_redis_down", "last_replica_away", "wrong_password"]

REDIS_PASSWORD: Final = "right-password-of-redis"
WRONG_PASSWORD: Final = "wrong-password-of-redis"
READS: Final = 30
WRITES: Final = 8
QUICK_S: Final = 0.4
"""A write takes less than that, however busy the machine is; waiting for a replica that is away takes twice as much."""


@contextlib.contextmanager
def _redis(folder: Path, name: str, *options: str) -> Iterator[int]:
    """A Redis of its own; its port."""
    program = redis_program()
    assert program is not None, "looked for before"
    (port,) = free_ports(1)
    where = folder / name
    where.mkdir()
    arguments = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(where), "--save", "", *options]
    with started(folder, name, arguments):
        wait_for(lambda: b"-" in _said(port, b"NOSUCH\r\n") or b"+" in _said(port, b"PING\r\n"))
        yield port


def _said(port: int, command: bytes) -> bytes:
    """What a Redis answers to commands sent at once; nothing where it does not."""

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(command)
            return await asyncio.wait_for(reader.read(4_096), 1.0)
        finally:
            writer.transport.abort()

    try:
        return asyncio.run(ask())
    except (OSError, TimeoutError):
        return b""


def wrong_password(folder: Path) -> Seen:
    """Redis answers WRONGPASS."""
    with _redis(folder, "redis", "--requirepass", REDIS_PASSWORD) as port:
        done = "the URL has a password that Redis does not know"
        return served(folder, done, SESSILE_URL=f"redis://:{WRONG_PASSWORD}@127.0.0.1:{port}/0")


def no_password(folder: Path) -> Seen:
    """Redis answers NOAUTH."""
    with _redis(folder, "redis", "--requirepass", REDIS_PASSWORD) as port:
        return served(folder, "the URL has no password, and Redis wants one", SESSILE_URL=f"redis://127.0.0.1:{port}/0")


def unknown_database(folder: Path) -> Seen:
    """Redis answers that the index is out of range."""
    with _redis(folder, "redis") as port:
        return served(folder, "the URL names database 99 of 16", SESSILE_URL=f"redis://127.0.0.1:{port}/99")


def unwritable_folder(folder: Path) -> Seen:
    """SQLite cannot open its file."""
    return served(
        folder, "SQLite's file is in a folder where nobody can write", SESSILE_URL="sqlite:////proc/app/sessions.db"
    )


def another_table(folder: Path) -> Seen:
    """A table of that name is there, of something else; SQLite makes one that is missing."""
    file = folder / "sessions.db"
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE sessile_sessions (other INTEGER)")
        database.commit()
    return served(folder, "the table of the store has other columns", SESSILE_URL=f"sqlite:///{file}")


def user_without_channels(folder: Path) -> Seen:
    """Redis 7's own default: a user that is given commands and keys, and no channels."""
    return _limited_user(folder, "a Redis user without &* (its default)", "resetchannels")


def user_without_ping(folder: Path) -> Seen:
    """What a store is looked for with is not allowed."""
    return _limited_user(folder, "a Redis user without PING", "&*", "-ping")


def _limited_user(folder: Path, done: str, *rules: str) -> Seen:
    with _redis(folder, "redis") as port:
        _said(port, f"ACL SETUSER app on >{REDIS_PASSWORD} ~* +@all {' '.join(rules)}\r\n".encode())
        (web,) = free_ports(1)
        seen = Seen(f"{done}, {READS} reads")
        variables = {"SESSILE_URL": f"redis://app:{REDIS_PASSWORD}@127.0.0.1:{port}/0"}
        with started(folder, "server", uvicorn(web), **variables) as server:
            if is_up(server, web):
                seen.answers = asked(web, READS, cookies={})
            seen.status = server.status
            seen.lines = server.lines()
        return seen


def last_replica_away(folder: Path) -> Seen:
    """A store without replicas acknowledges by itself."""
    seen = Seen(f"a Redis whose only replica is away, {WRITES} writes")
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(_redis(folder, "primary", "--repl-diskless-sync-delay", "0"))
        with _redis(folder, "replica", "--replicaof", "127.0.0.1", str(port)):
            wait_for(lambda: asyncio.run(info_of(port)).get("connected_slaves") == "1")
            (web,) = free_ports(1)
            url = f"redis://127.0.0.1:{port}/0"
            server = stack.enter_context(started(folder, "server", uvicorn(web), SESSILE_URL=url))
            cookies: dict[str, str] = {}
            if is_up(server, web):
                seen.answers += asked(web, 2, cookies=cookies)
        took_s = []
        for _ in range(WRITES):
            began = time.monotonic()
            seen.answers += asked(web, 1, cookies=cookies)
            took_s.append(time.monotonic() - began)
        usual_s = sorted(took_s)[len(took_s) // 2]
        if usual_s > QUICK_S:
            seen.faults.append(f"each write takes {usual_s:.1f} s")
        seen.status = server.status
        seen.lines = server.lines()
    return seen


def all_of_redis_down(folder: Path) -> Seen:
    """The demo: what its page is told, what its dashboard is told, and what `sessile status` says."""
    seen = Seen("a demo on a store, all six processes of Redis killed")
    (first,) = free_ports(1)
    port = next(one for one in range(first % 20_000 + 20_000, 60_000) if _is_free_pair(one))
    command = [
        sys.executable,
        "-m",
        "sessile",
        "demo",
        "--strategy",
        "store",
        "--servers",
        "2",
        "--port",
        str(port),
        "--json",
    ]
    with started(folder, "demo", command) as demo:
        control = f"http://127.0.0.1:{port + 1}"
        wait_for(lambda: demo.status is not None or _told(f"{control}/api/status") is not None, 60.0)
        cookies: dict[str, str] = {}
        _post(f"http://127.0.0.1:{port}/api/set?name=a&value=1", cookies)
        for name in ("q1", "q2", "q3", "r1", "r2", "r3"):
            _post(f"{control}/api/servers/{name}/kill", {})

        def page() -> Any:
            return _told(f"http://127.0.0.1:{port}/api/session", cookies) or {}

        wait_for(lambda: bool(page().get("alone")))
        if not page().get("alone"):
            seen.faults.append("the page is told that the session is in the store")

        def remarks_now() -> list[str]:
            return list((_told(f"{control}/api/status") or {}).get("remarks", []))

        def named() -> set[str]:
            """The servers that the remarks name."""
            return {name for name in ("s1", "s2") if f" {name}" in " ".join(remarks_now())}

        if not wait_for(lambda: named() == {"s1", "s2"}):
            seen.faults.append("the dashboard does not say of both servers that they are apart from the store")
        remarks = remarks_now()
        status, lines = run([sys.executable, "-m", "sessile", "status", control])
        if status == 0:
            seen.faults.append("`sessile status` ended with 0")
        seen.lines = [
            *(f"dashboard: {remark}" for remark in remarks),
            *(f"sessile status ({status}): {line}" for line in lines if line.endswith(".")),
        ]
        seen.answers = asked(port, 3, "/api/session", cookies)
        seen.status = demo.status
    return seen


def _is_free_pair(port: int) -> bool:
    """Whether a demo can have this port and the one after it."""
    try:
        for one in (port, port + 1):
            ports.bind(one).close()
    except SettingsError:
        return False
    return True


def _told(url: str, cookies: dict[str, str] | None = None) -> Any:
    """The JSON that is answered, or None."""
    header = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}
    request = urllib.request.Request(url, headers=header)
    with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(request, timeout=5) as answer:
        return json.loads(answer.read())
    return None


def _post(url: str, cookies: dict[str, str]) -> None:
    """A POST; what cookies come are kept."""
    request = urllib.request.Request(url, method="POST", headers={"X-Sessile": "1"})
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=20) as answer:
        for given in answer.headers.get_all("Set-Cookie") or ():
            name, _, value = given.partition(";")[0].partition("=")
            cookies[name] = value
