"""gunicorn's workers join before their first request; one that cannot join stops gunicorn with the reason."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from sessile.gunicorn import post_worker_init
from sessile.servers import join_gunicorn
from tests.network.clusters import free_ports
from tests.server_process import DEADLINE_S, ended, served

if TYPE_CHECKING:
    from pathlib import Path

GUNICORN = ["gunicorn", "--no-control-socket", "tests.served:wsgi"]
CONFIGURED = ["--config", "python:sessile.gunicorn"]
BOOT_ERROR = 3


def bound(port: int, *options: str) -> list[str]:
    return [*GUNICORN, "--bind", f"127.0.0.1:{port}", *options]


def url_of(nodes: list[int], number: int) -> str:
    members = ",".join(f"127.0.0.1:{node}" for node in nodes)
    return f"all-to-all://?members={members}&me=127.0.0.1:{nodes[number]}"


def test_its_hook_is_the_one_that_a_plain_gunicorn_gets() -> None:
    """`gunicorn --config python:sessile.gunicorn` looks it up by its name."""
    assert post_worker_init is join_gunicorn


@pytest.mark.parametrize("options", [CONFIGURED, ["--preload"]], ids=["configured", "preloaded"])
def test_workers_that_are_no_members_stop_gunicorn(options: list[str]) -> None:
    """Several workers cannot all be the member at one port: the log has one line and no traceback, and nobody serves."""
    (port, node) = free_ports(2)
    status, log = ended(bound(port, "--workers", "2", *options), SESSILE_URL=url_of([node], 0))
    assert status == BOOT_ERROR, log
    assert log.count("run one worker for each server (--workers 1)") == 1 and "Traceback" not in log, log


def test_a_mistake_in_the_settings_stops_gunicorn() -> None:
    """One line names the setting, and no worker is started again."""
    status, log = ended(bound(free_ports(1)[0]), SESSILE_IDLE_TIMEOUT="never")
    assert status == BOOT_ERROR, log
    assert log.count("SESSILE_IDLE_TIMEOUT") == 1 and "Traceback" not in log, log


def test_a_restart_in_a_quiet_hour_loses_nothing(tmp_path: Path) -> None:
    """A server that nobody asked anything is a member: it has every session when the only other server stops."""
    *ports, first, second = free_ports(4)
    nodes = [first, second]
    with ExitStack() as stack:
        servers = [
            stack.enter_context(served(bound(port), port, tmp_path, SESSILE_URL=url_of(nodes, number)))
            for number, port in enumerate(ports)
        ]
        asked = servers[0].ask()
        deadline = time.monotonic() + DEADLINE_S
        while not asked["linked"]:
            assert time.monotonic() < deadline, servers[1].log
            asked = servers[0].ask()
        servers[0].process.terminate()
        servers[0].process.wait(DEADLINE_S)
        servers[1].cookies = servers[0].cookies
        assert servers[1].ask()["n"] == asked["n"] + 1
        assert all("Traceback" not in server.log for server in servers)
