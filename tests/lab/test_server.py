from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import msgspec
import pytest

from sessile.lab import ports
from sessile.lab.probe import ask
from sessile.lab.server import ServerPlan
from tests.fakes import SECRET
from tests.lab.waiting import wait_until

COMMAND = [sys.executable, "-m", "sessile.lab.server"]


def plan(**other: object) -> ServerPlan:
    told: dict[str, object] = {
        "name": "s1",
        "descriptor": 99,
        "parent_pid": os.getpid(),
        "url": "sticky://",
        "secret": SECRET,
        "cookie_name": "sid-1",
        "token": "t" * 32,
        "strategy": "sticky",
        "routing": "sticky",
        "dashboard": "http://127.0.0.1:2/",
    }
    return msgspec.convert({**told, **other}, ServerPlan)


def test_a_plan_survives_the_trip_and_knows_no_other_fields() -> None:
    """Both ends are of one version, or the server does not start."""
    line = msgspec.json.encode(plan())
    assert b"\n" not in line
    assert msgspec.json.decode(line, type=ServerPlan) == plan()
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(line[:-1] + b',"more":1}', type=ServerPlan)


def test_a_server_that_cannot_have_its_sessions_says_so_in_one_line() -> None:
    """The supervisor passes these last words on; no traceback is among them."""
    line = msgspec.json.encode(plan(cookie_name="a b")) + b"\n"
    done = subprocess.run(COMMAND, input=line, capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert b"cookie_name" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_server_serves_on_the_socket_it_was_given_and_ends_on_sigterm() -> None:
    """It is ready when its port answers; the secret is on no command line."""
    bound = ports.bind(0)
    port = bound.getsockname()[1]
    line = msgspec.json.encode(plan(descriptor=bound.fileno())) + b"\n"
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[bound.fileno()]) as server:
        bound.close()
        assert server.stdin is not None
        server.stdin.write(line)
        server.stdin.flush()
        try:
            wait_until(lambda: asyncio.run(ask(port, "/healthz")) == (200, {"state": "ready"}), "the server is ready")
            answer = asyncio.run(ask(port, "/api/about"))
            assert answer is not None
            assert answer.data["server"] == "s1"
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=60) in {0, -signal.SIGTERM}
