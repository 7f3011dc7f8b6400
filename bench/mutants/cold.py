"""Runs a mutant in a copy of the package with a new pytest process: slow, but right for every edit, Lua included."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from bench.mutants.mutant import ROOT, Mutant

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Copy"]

TIMEOUT_S: Final = 240.0
PASSED, FAILED, INTERRUPTED = 0, 1, 2
"""Pytest's exit statuses; tests that cannot be imported interrupt it."""


class Copy:
    """A copy of the source, in which one edit at a time is made; a context manager."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="sm-"))
        self._passing: set[tuple[str, ...]] = set()
        """Tests that pass with the code as it is."""

    def __enter__(self) -> Self:
        shutil.copytree(ROOT / "src", self._folder / "src")
        told = self._python("-c", "import sessile; print(sessile.__file__)")
        assert told[1].startswith(str(self._folder)), f"the copy is not what is imported: {told[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, mutant: Mutant | None, tests: Sequence[str]) -> tuple[str, str]:
        """Run the tests against a mutant, or against the unedited code; returns the outcome and the test that failed.

        Raises:
            RuntimeError: the tests fail without the edit, so they would prove nothing.
        """
        if mutant is not None and tuple(tests) not in self._passing:
            outcome, by = self.run(None, tests)
            if outcome != "survived":
                raise RuntimeError(f"fails without an edit: {by or ' '.join(tests)}")
            self._passing.add(tuple(tests))
        file = self._folder / (mutant.file if mutant else "src/sessile/__init__.py")
        kept = file.read_text()
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
            compiled.unlink()
        if mutant:
            file.write_text(mutant.apply())
        try:
            status, said = self._python(
                "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutants", *tests
            )
        finally:
            file.write_text(kept)
        if status == PASSED:
            return "survived", ""
        if status in {FAILED, INTERRUPTED}:
            failed = [line.split()[1] for line in said.splitlines() if line.startswith(("FAILED ", "ERROR "))]
            return "killed", failed[0] if failed else "what the import raised"
        if status == -signal.SIGKILL:
            return "timeout", ""
        raise RuntimeError(f"pytest ended with {status}: {said[-500:]}")

    def _python(self, *arguments: str) -> tuple[int, str]:
        """Run Python; returns its status and output. Every process that it started is ended."""
        for folder in (self._folder, self._folder / "tmp"):  # servers for tests may run as somebody else
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
        environment = {
            **os.environ,
            "PYTHONPATH": str(self._folder / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self._folder / "tmp"),
        }
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: os.nice(5) and None,  # noqa: PLW1509  # this process has no threads
        )
        try:
            said, _ = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            said = ""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            shutil.rmtree(self._folder / "tmp", ignore_errors=True)
        return process.returncode, said
