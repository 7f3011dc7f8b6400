"""A real Redis for the peers that need one: its own process, folder and port, nothing written to disk.

Never the machine's own Redis and never its port. Started by root it runs as an ordinary user.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.catalogue import find_program
from bench.show import CannotShow

if TYPE_CHECKING:
    from collections.abc import Iterator

START_S = 10.0
STOP_S = 10.0
ORDINARY_USER = "nobody"


def free_port() -> int:
    """A loopback port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether a Redis answers a PING on this port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as link:
            link.sendall(b"PING\r\n")
            return link.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def wait_until_it_answers(server: subprocess.Popen[bytes], port: int) -> None:
    """Returns once the server answers; `CannotShow` if it ends or stays silent."""
    deadline = time.monotonic() + START_S
    while not answers(port):
        if server.poll() is not None or time.monotonic() > deadline:
            raise CannotShow(f"redis-server did not start on port {port}")
        time.sleep(0.02)


@contextmanager
def redis_server(core: int | None = None) -> Iterator[int]:
    """Run a Redis, on one core if one is named; gives its port, and stops it at the end."""
    program = find_program("redis-server")
    folder = tempfile.mkdtemp(prefix="sessile-redis-")
    user = ORDINARY_USER if os.geteuid() == 0 else None
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "no"]
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, user=user)
    try:
        if core is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(server.pid, {core})
        wait_until_it_answers(server, port)
        yield port
    finally:
        server.terminate()
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)
