"""Mistakes in settings, and settings that only look like mistakes."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Final

from bench.mistakes import Seen
from bench.mistakes.processes import SECRET, asked, free_ports, is_up, run, started, uvicorn, wait_for

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PASSWORD", "keyword_beside_variable", "kubernetes", "secrets_rotated", "unescaped_password"]

REQUESTS: Final = 10
PASSWORD: Final = "pa@ss/w0rd-part"


def served(folder: Path, done: str, app: str = "asgi", **variables: str) -> Seen:
    """One server with these variables: what it says, and what it answers."""
    (port,) = free_ports(1)
    seen = Seen(done)
    with started(folder, "server", uvicorn(port, app), **variables) as server:
        if is_up(server, port):
            seen.answers = asked(port, REQUESTS, cookies={})
        seen.status = server.status
        seen.lines = server.lines()
    return seen


LEARNED: Final = "servers learned from members"


def secrets_rotated(folder: Path) -> Seen:
    """A server and the balancer that learns of it, with the same variable."""
    seen = Seen(
        "SESSILE_SECRET='NEW, OLD' with a blank and a line end, the same for a server and `sessile balance --member`"
    )
    variables = {"SESSILE_SECRET": f"{SECRET}-new, {SECRET}\n"}
    front, port, node = free_ports(3)
    url = f"all-to-all://?members=127.0.0.1:{node}&me=127.0.0.1:{node}&serves=127.0.0.1:{port}"
    balance = [
        sys.executable,
        "-m",
        "sessile",
        "balance",
        "--listen",
        f"127.0.0.1:{front}",
        "--member",
        f"127.0.0.1:{node}",
    ]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(started(folder, "server", uvicorn(port), SESSILE_URL=url, **variables))
        is_up(server, port)
        balancer = stack.enter_context(started(folder, "balancer", balance, **variables))
        wait_for(
            lambda: any(LEARNED in line for line in balancer.lines())
        )  # asked before, it would say that it has no server
        is_up(balancer, front)
        seen.answers = asked(front, REQUESTS, cookies={})
        seen.status = balancer.status if server.status is None else server.status
        ordinary = ('"GET ', LEARNED)
        seen.lines = [
            *server.lines(),
            *(line for line in balancer.lines() if not any(each in line for each in ordinary)),
        ]
    return seen


def kubernetes(folder: Path) -> Seen:
    """They begin with SESSILE_ and are no settings."""
    done = "variables as Kubernetes makes them for services named sessile, sessile-redis and sessile-url"
    made = {
        f"SESSILE{service}_{name}": value
        for service in ("", "_REDIS", "_URL")
        for name, value in {
            "SERVICE_HOST": "10.96.0.7",
            "SERVICE_PORT": "6379",
            "SERVICE_PORT_REDIS": "6379",
            "PORT": "tcp://10.96.0.7:6379",
            "PORT_6379_TCP": "tcp://10.96.0.7:6379",
            "PORT_6379_TCP_PROTO": "tcp",
            "PORT_6379_TCP_PORT": "6379",
            "PORT_6379_TCP_ADDR": "10.96.0.7",
        }.items()
    }
    return served(folder, done, **made)


def unescaped_password(folder: Path) -> Seen:
    """Whatever comes of it, no part of the password is shown."""
    done = "a password with @ and / stands unescaped in the URL of a PostgreSQL store"
    return served(folder, done, SESSILE_URL=f"postgresql://app:{PASSWORD}@127.0.0.1:1/app")


def unescaped_password_of_redis(folder: Path) -> Seen:
    """The same for the other driver."""
    done = "a password with @ and / stands unescaped in the URL of a Redis store"
    return served(folder, done, SESSILE_URL=f"redis://app:{PASSWORD}@127.0.0.1:1/0")


def keyword_beside_variable(folder: Path) -> Seen:
    """The keyword wins; somebody who set the variable must know."""
    done = "url='sticky://' in code, and SESSILE_URL=redis://… in the environment"
    return served(folder, done, "keyword", SESSILE_URL="redis://127.0.0.1:1/0")


def weak_secret(folder: Path) -> Seen:
    """What no line may repeat is the secret."""
    del folder
    program = "from sessile import Engine; Engine(url='redis://127.0.0.1/0')"
    status, lines = run([sys.executable, "-c", _QUIET + program], SESSILE_SECRET="short")
    return Seen("a secret that is too short", lines, status)


_QUIET: Final = "import sys; sys.excepthook = lambda kind, error, _: print(error, file=sys.stderr); "
"""As a program does that catches errors of settings."""
