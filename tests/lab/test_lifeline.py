from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lab.waiting import is_running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

CHILD = """
import os, sys, time
from sessile.lab.lifeline import tie_to_parent
tie_to_parent(int(sys.argv[1]))
print(os.getpid(), flush=True)
time.sleep(600)
"""
PARENT = f"""
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}, str(os.getpid())], stdin=subprocess.PIPE)
child.wait()
"""


@pytest.fixture
def family() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A parent and the child that is tied to it."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    yield parent, child
    parent.kill()
    parent.wait()
    parent.stdout.close()
    if is_running(child):
        os.kill(child, signal.SIGKILL)


def test_a_child_dies_with_its_parent(family: tuple[subprocess.Popen[str], int]) -> None:
    """Also when the parent is killed and can tell nobody."""
    parent, child = family
    assert is_running(child)
    parent.kill()
    wait_until(lambda: not is_running(child), "the child is gone")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a stopped process notices nothing")
def test_a_stopped_child_dies_with_its_parent(family: tuple[subprocess.Popen[str], int]) -> None:
    """A paused server of a killed demo is not left behind for ever."""
    parent, child = family
    os.kill(child, signal.SIGSTOP)
    parent.kill()
    wait_until(lambda: not is_running(child), "the child is gone")


def test_a_child_whose_parent_has_gone_already_ends_at_once() -> None:
    """Between being started and being tied there is a moment."""
    stranger = str(2**22 + 1)
    ended = subprocess.run([sys.executable, "-c", CHILD, stranger], capture_output=True, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == b""


def test_where_the_kernel_does_not_help_the_end_of_input_is_the_parents_end() -> None:
    """The pipe's other end is the parent's alone."""
    source = "from sessile.lab.lifeline import watch_input; print('here', flush=True); watch_input()"
    with subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
        child.stdin.write("not the end yet\n")
        child.stdin.flush()
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(timeout=60) == -signal.SIGKILL


def test_run_as_a_module_it_is_the_command_line() -> None:
    """A subcommand that is tied to its parent, with the subcommand's own exit status."""
    command = [sys.executable, "-m", "sessile.lab.lifeline", str(os.getpid())]
    done = subprocess.run([*command, "keygen"], capture_output=True, text=True, timeout=60, check=True)
    assert len(done.stdout.strip()) > 40
    failed = subprocess.run(
        [*command, "balance", "--config", "/nonexistent"], capture_output=True, text=True, timeout=60, check=False
    )
    assert failed.returncode == 1
    assert "/nonexistent" in failed.stderr
