"""What `make test` runs: format, lint and types, then the tests; every step whatever the others said.

    test.py [--full] [PYTEST ARGUMENT ...]

Each step prints its name and the seconds it took. A check that failed is named once more in pytest's summary, so that
the last lines are pytest's closing one and what was NOT RUN (`tests/conftest.py`). The exit status is 0 only if all
passed. `--full` runs the tests marked slow too. Tests run side by side, file by file (`ARGS="-n 0"`: one after the other).
"""
# a script: no package, and it prints

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CHECKS = {
    "ruff format": ("ruff", "format", "--check", "."),
    "ruff check": ("ruff", "check", "."),
    "mypy": ("mypy",),
}

SIDE_BY_SIDE = ("--numprocesses=auto", "--dist=loadfile")
"""One process for each core; the tests of a file run in one of them. `-n 0` runs all tests in this process."""


class Checks:
    """The checks that ran before the tests, as a pytest plugin: the failed ones are named in its summary."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def run(self) -> None:
        for name, command in CHECKS.items():
            print(f"== {name}", flush=True)
            began = time.monotonic()
            done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, check=False)  # noqa: S603 - fixed above
            verdict = "failed" if done.returncode else "passed"
            print(f"== {name} {verdict} in {time.monotonic() - began:.1f} s", flush=True)
            if done.returncode:
                self.failed.append(name)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.failed:
            terminalreporter.section("checks")
            for name in self.failed:
                terminalreporter.write_line(f"FAILED {name} (above)", red=True)


def main() -> int:
    """Run all steps; returns the exit status."""
    os.chdir(ROOT)
    # The folder of a script is where its imports are looked up first; tests must not see it.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT / "scripts"]
    checks = Checks()
    checks.run()
    print("== pytest", flush=True)
    tested = int(pytest.main([*SIDE_BY_SIDE, *sys.argv[1:]], plugins=[checks]))
    return tested or int(bool(checks.failed))


if __name__ == "__main__":
    sys.exit(main())
