"""The rules of a test run, tried on small runs of their own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
INI = "[pytest]\nmarkers =\n    slow\n    needs\n"

NEEDY = """
import pytest

@pytest.mark.needs("no-such-program")
def test_needy(): raise AssertionError("ran without its program")

@pytest.mark.needs("no-such-program")
def test_needy_too(): raise AssertionError("ran without its program")

def test_content(): pass
"""
SLOW = """
import pytest

@pytest.mark.slow
def test_slow(): print("slow one ran")

def test_quick(): print("quick one ran")
"""
# The child ends with the run that left it behind: its input is closed then.
LEAVES_PROCESS = """
import subprocess, sys
kept = []

def test_leaves():
    kept.append(subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE))
"""
LEAVES_THREAD = """
import threading

def test_leaves():
    threading.Thread(target=threading.Event().wait, name="forgotten", daemon=True).start()
"""
FAILS = """
import threading, weakref

class Owner: pass

def test_fails():
    owner, over = Owner(), threading.Event()
    weakref.finalize(owner, over.set)
    threading.Thread(target=over.wait, name="owned", daemon=True).start()
    assert owner is None
"""
TIDY = """
import subprocess, sys, threading

def test_tidy():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    subprocess.run([sys.executable, "-c", ""], check=True)
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs pytest on this source, under the rules of this tree's conftest."""
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text(INI)

    def start(source: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_it.py").write_text(source)
        environment = {name: value for name, value in os.environ.items() if name not in {"CI", "STRICT"}}
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # none of them is looked at here, and they load slowly
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s", *arguments],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return start


@pytest.mark.parametrize("arguments", [(), ("-p", "xdist", "-n", "2")], ids=["one process", "side by side"])
def test_what_did_not_run_is_said_last(
    run: Callable[..., subprocess.CompletedProcess[str]], arguments: tuple[str, ...]
) -> None:
    """A missing program skips its tests; the last line counts them and says how to have it, after pytest's own."""
    done = run(NEEDY, *arguments)
    *_, closing, last = done.stdout.strip().splitlines()
    assert done.returncode == 0
    assert re.search(r"1 passed, 2 skipped", closing)
    assert last == "NOT RUN: 2 tests need no-such-program (sh scripts/apt.sh no-such-program)"


@pytest.mark.parametrize("variables", [{"CI": "true"}, {"STRICT": "1"}])
def test_what_did_not_run_fails_a_strict_run(
    run: Callable[..., subprocess.CompletedProcess[str]], variables: dict[str, str]
) -> None:
    """Where nobody looks, a test that did not run is a failure; where all ran, there is none."""
    assert run(NEEDY, **variables).returncode == 1
    assert run(NEEDY, "-p", "xdist", "-n", "2", **variables).returncode == 1
    assert run(TIDY, **variables).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "ran"), [((), ["quick"]), (("--full",), ["slow", "quick"]), (("-m", "slow"), ["slow"])]
)
def test_slow_tests_run_when_asked_for(
    run: Callable[..., subprocess.CompletedProcess[str]], arguments: tuple[str, ...], ran: list[str]
) -> None:
    """Tests marked slow run with `--full` or when named by `-m`, and not otherwise."""
    done = run(SLOW, *arguments)
    assert done.returncode == 0
    assert re.findall(r"(\w+) one ran", done.stdout) == ran


@pytest.mark.parametrize(
    ("source", "named"), [(LEAVES_PROCESS, r"left behind: process \d+ \("), (LEAVES_THREAD, "thread forgotten")]
)
def test_a_test_that_leaves_something_behind_fails(
    run: Callable[..., subprocess.CompletedProcess[str]], source: str, named: str
) -> None:
    """A child process or a thread that outlives its test is named, and the run fails."""
    done = run(source)
    assert done.returncode == 1
    assert re.search(named, done.stdout)


def test_a_failed_test_is_not_blamed_for_what_its_traceback_holds(
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """A thread that would end with its owner says nothing of a test whose failure keeps the owner alive."""
    done = run(FAILS)
    assert done.returncode == 1
    assert "left behind" not in done.stdout
    assert run(FAILS.replace("is None", "is not None")).returncode == 0


def test_a_tidy_test_passes(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Processes and threads that ended within the test are nobody's business."""
    assert run(TIDY).returncode == 0


def test_free_ports_differ_and_are_free(free_port: Callable[[], int]) -> None:
    """Each call gives another port, and one can listen on it."""
    ports = [free_port() for _ in range(20)]
    assert len(set(ports)) == len(ports)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", ports[0]))


def apt(*programs: str, path: str) -> subprocess.CompletedProcess[str]:
    shell = shutil.which("sh")
    assert shell, "a system without sh"
    return subprocess.run(
        [shell, str(ROOT / "scripts" / "apt.sh"), *programs],
        env={"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_program_that_cannot_be_installed_is_named(tmp_path: Path) -> None:
    """Where there is no apt, one line names what is missing, and the status is 1; nothing is touched."""
    present = tmp_path / "present"
    present.write_text("#!/bin/sh\n")
    present.chmod(0o755)
    done = apt("present", "no-such-program", path=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["missing: no-such-program. Install with this system's package manager."]
    assert apt("present", path=str(tmp_path)).returncode == 0
