"""The demo by its public command: how it starts, how it fails to, and that nothing is left when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib import util
from typing import TYPE_CHECKING

import pytest

from sessile.cli import demo as demo_module
from sessile.cli import main
from sessile.lab import ports
from sessile.lab.demo import ROUTINGS
from tests.lab.running import command, free_pair, running, told_at_start
from tests.lab.waiting import is_running, wait_until

if TYPE_CHECKING:
    from pathlib import Path


def failed(port: int, *options: str, **environment: str) -> str:
    """Run a demo that cannot run; returns the one line it says."""
    done = subprocess.run(
        command(port, *options),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 1, done
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("sessile: ")
    return done.stderr


def test_the_command_line_offers_what_the_lab_has() -> None:
    """The routings are known before the lab is imported, and are the same."""
    assert demo_module.ROUTINGS == ROUTINGS


def test_a_missing_extra_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, before anything is imported that needs it."""
    real = util.find_spec
    monkeypatch.setattr(demo_module, "find_spec", lambda name: None if name == "uvicorn" else real(name))
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "sessile: the demo needs uvicorn: pip install 'sessile[lab]'\n"


@pytest.mark.parametrize("offset", [0, 1])
def test_a_taken_port_is_one_clear_line(offset: int) -> None:
    """The service's or the dashboard's; nothing was started."""
    port = free_pair()
    with ports.listen(port + offset):
        assert f"port {port + offset} is taken" in failed(port)


def test_a_server_that_does_not_start_is_one_clear_line() -> None:
    """With its own last words; the others are ended with it."""
    said = failed(free_pair(), "--servers", "2", SESSILE_IDLE_TIMEOUT="soon")
    assert "did not start" in said
    assert "soon" in said


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_process(how: signal.Signals) -> None:
    """In good order: status 0, nobody left, both ports free; a paused server is no exception."""
    with running("--servers", "2") as demo:
        pids = demo.pids()
        assert len(pids) == 4
        assert all(is_running(pid) for pid in pids)
        assert demo.act("s2", "pause").status_code == 200
        with demo.browser() as browser:  # with a connection that is kept alive
            assert browser.get("/api/session").status_code == 200
            status, _, errors = demo.end(how)
        assert (status, errors) == (0, "")
        assert [pid for pid in pids if is_running(pid)] == []
        ports.require_free(demo.port)
        ports.require_free(demo.port + 1)


def test_a_signal_while_it_starts_ends_it_too() -> None:
    """Half of it is running by then."""
    port = free_pair()
    with subprocess.Popen(command(port, "--servers", "2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"Starting" in process.stdout.readline()
        wait_until(lambda: len(children_of(process.pid)) >= 1 or process.poll() is not None, "a server was started")
        pids = children_of(process.pid)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")
    wait_until(lambda: not any(is_running(pid) for pid in pids), "nobody is left")


def children_of(pid: int) -> list[int]:
    with subprocess.Popen(["pgrep", "-P", str(pid)], stdout=subprocess.PIPE, text=True) as found:
        assert found.stdout is not None
        return [int(line) for line in found.stdout]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the lifeline is tested by itself")
def test_a_killed_demo_leaves_nobody_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a paused server: the kernel ends the children of a process that can end nothing any more."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # its folder is what it cannot take along
    with running("--servers", "2") as demo:
        pids = demo.pids()
        demo.act("s1", "pause")
        demo.end(signal.SIGKILL)
        wait_until(lambda: not any(is_running(pid) for pid in pids), "nobody is left")


def test_a_balancer_that_dies_ends_the_demo_with_a_reason() -> None:
    """Without it there is no service; status 1."""
    with running("--servers", "1") as demo:
        pids = demo.pids()
        os.kill(demo.status()["balancer"]["pid"], signal.SIGKILL)
        assert demo.process.wait(timeout=60) == 1
        _, _, errors = demo.end()
        assert "the balancer ended by SIGKILL" in errors
        assert [pid for pid in pids if is_running(pid)] == []


def test_round_robin_loses_sessions() -> None:
    """The problem that is being solved, on the same servers without affinity."""
    with running("--servers", "2", "--routing", "round-robin") as demo, demo.browser() as browser:
        answers = [browser.post("/api/count?name=n").json() for _ in range(6)]
        assert {one["server"] for one in answers} == {"s1", "s2"}
        assert len({one["key"] for one in answers}) > 1
        assert answers[-1]["fields"]["n"] < 6


def test_start_up_tells_a_person_where_to_go() -> None:
    """What is starting, each process, both URLs and how to end it; at the end, that it has."""
    port = free_pair()
    told = told_at_start("--servers", "2", port=port)
    assert told.startswith("Starting 2 servers")
    for part in ("s1", "s2", "balancer", f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{port + 1}/", "Ctrl-C"):
        assert part in told
    assert told.endswith("All processes have ended.\n")
