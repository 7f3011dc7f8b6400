"""What holds for every test: which run, what each may leave behind, how hypothesis searches.

- `slow` tests run only with `--full`, or when `-m` names them.
- `needs("haproxy")` skips a test where the program is missing, and counts it: `NOT RUN: n tests need haproxy (how)`, the
  very last lines of a run. With `CI` or `STRICT=1` set, a test that did not run makes the run fail.
- No test leaves a child process or a thread behind.
- Hypothesis draws the same bounded examples every time; with `--full`, new and more ones.
"""

from __future__ import annotations

import gc
import os
import shutil
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

POSTGRES = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
"""Debian's, which are on nobody's PATH."""
SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", *POSTGRES])
NOT_RUN: pytest.StashKey[Counter[str]] = pytest.StashKey()
GRACE_S = 2.0
"""How long what a test started may take to be gone after it: a killed process is reaped, a stopped loop joins."""

# Time limits of hypothesis judge the machine, which is shared, and not the code.
hypothesis.settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    max_examples=100,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "mutants",  # as above; that a test fails is all that is asked
    hypothesis.settings.get_profile("ci"),
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
)
hypothesis.settings.register_profile(
    "full",
    max_examples=2_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the tests marked slow too, and search longer")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[NOT_RUN] = Counter()
    if not config.getoption("--hypothesis-profile", default=None):
        hypothesis.settings.load_profile("full" if config.getoption("--full") else "ci")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full") or "slow" in config.getoption("-m"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def missing_programs(item: pytest.Item) -> list[str]:
    """The programs that this test needs and that are not on this machine, each once."""
    wanted = {program: None for marker in item.iter_markers("needs") for program in marker.args}
    return [program for program in wanted if shutil.which(program, path=SEARCHED) is None]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if missing := missing_programs(item):
        names = " ".join(missing)
        item.config.stash[NOT_RUN][names] += 1
        pytest.skip(f"needs {names}")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A process that ran a part of the tests tells which of them did not run."""
    node.config.stash[NOT_RUN].update(getattr(node, "workeroutput", {}).get("not run", {}))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    not_run, told = session.config.stash[NOT_RUN], getattr(session.config, "workeroutput", None)
    if told is not None:
        told["not run"] = dict(not_run)
        return
    strict = os.environ.get("CI") or os.environ.get("STRICT") == "1"
    if strict and not_run and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workeroutput"):
        return
    writer = config.get_terminal_writer()
    for names, count in sorted(config.stash[NOT_RUN].items()):
        tests = "1 test needs" if count == 1 else f"{count} tests need"
        writer.line(f"NOT RUN: {tests} {names.replace(' ', ' and ')} (sh scripts/apt.sh {names})", yellow=True)


def children() -> set[int]:
    """The ids of this process's children, the ended but unreaped ones too. Empty where the kernel does not tell."""
    ids: set[int] = set()
    for told in Path("/proc/self/task").glob("*/children"):
        try:
            ids.update(map(int, told.read_text().split()))
        except OSError:  # the thread ended meanwhile
            continue
    return ids


def command_line(pid: int) -> str:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        line = ""
    return f"process {pid} ({line or 'ended, never waited for'})"


def left_behind(processes: set[int], threads: set[threading.Thread]) -> list[str]:
    """What runs now and is not among these, in words; waits a moment for what is about to end."""
    deadline = time.monotonic() + GRACE_S
    is_collected = False
    while True:
        new_threads = [thread for thread in threading.enumerate() if thread not in threads]
        new_processes = children() - processes
        if not (new_threads or new_processes) or time.monotonic() > deadline:
            return [*map(command_line, sorted(new_processes)), *(f"thread {thread.name}" for thread in new_threads)]
        if not is_collected:  # a thread may live as long as an object that is already garbage
            gc.collect()
            is_collected = True
        time.sleep(0.01)


def watched(session: pytest.Session) -> Iterator[None]:
    """What lies between is to leave nothing behind."""
    processes, threads, failed = children(), set(threading.enumerate()), session.testsfailed
    yield
    if session.testsfailed > failed:  # the traceback of a failed test keeps alive what its threads work for
        threads.update(threading.enumerate())
    if left := left_behind(processes, threads):
        pytest.fail(f"left behind: {', '.join(left)}")


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a child process or a thread behind."""
    yield from watched(request.session)


@pytest.fixture(autouse=True, scope="session")
def _nothing_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a run whose wider fixtures, started before a test and living on after it, leave something behind."""
    yield from watched(request.session)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that finds a free loopback port, another one on each call."""
    given: set[int] = set()

    def find() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            if port not in given:
                given.add(port)
                return port

    return find
