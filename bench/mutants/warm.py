"""A pytest process that has collected everything and is forked for each mutant: `python -m bench.mutants.warm JOB`.

Each fork replaces the code of the edited function, in every function object that has it, and runs the tests that execute it
until one fails. A first fork without an edit finds out which tests execute which functions, and how long each takes. The parent
never runs a test and has no threads, so a fork is all that a mutant needs.

The job is a JSON file. The outcome of each mutant is written as a line of JSON to the descriptor that the job names.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import sys
import threading
import time
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

import pytest

from bench.mutants.known import Key, Known, load, save
from bench.mutants.mutant import ROOT, Mutant, first_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

BEGUN: Final = "."
MEMORY_MAX: Final = 6 << 30
"""A mutant that loops may also fill the memory."""
BASELINE_S: Final = 600.0
SLOWER: Final = 6
"""A test hangs if it takes this many times as long as without the edit, plus the job's grace."""


class Tracer:
    """Records which functions of some files were called since the last question."""

    def __init__(self, files: set[str]) -> None:
        self._files = {str(ROOT / file): file for file in files}
        self._seen: set[Key] = set()

    def start(self) -> None:
        sys.settrace(self._trace)
        threading.settrace(self._trace)

    @staticmethod
    def stop() -> None:
        sys.settrace(None)
        threading.settrace(None)

    def take(self) -> frozenset[Key]:
        seen, self._seen = frozenset(self._seen), set()
        return seen

    def _trace(self, frame: FrameType, *_: object) -> None:
        code = frame.f_code
        file = self._files.get(code.co_filename)
        if file is not None:
            self._seen.add((file, code.co_firstlineno))


class Forker:
    """The pytest plugin: instead of running the tests, it forks for each mutant."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._mutants = [Mutant(**{**each, "tests": ()}) for each in job["mutants"]]
        self._until = job["until"]
        self._share = job["share"]
        self._most_s = job["most_s"]
        self._grace_s = job["grace_s"]
        self._mirrors = job["mirrors"]
        self._baseline_kept = Path(job["baseline"])
        self._out = os.fdopen(job["out"], "w")
        self._tracer = Tracer(set(job["files"]))  # all of the group: the baseline is kept for later runs
        self._imported: frozenset[Key] = frozenset()
        self._functions: dict[Key, list[FunctionType]] = {}
        self._failed = ""
        self._tracer.start()

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self._failed:
            self._failed = report.nodeid

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._tracer.stop()
        self._imported = self._tracer.take()
        if session.testsfailed:
            self._say({"error": "the tests cannot be collected"})
            return True
        self._find_functions()
        gc.collect()
        gc.freeze()
        known = self._baseline(session.items)
        broken = [name for name, each in known.items() if not each.passed]
        seconds = sum(each.seconds for each in known.values())
        self._say({"tests": len(known), "broken": broken, "seconds": round(seconds, 1)})
        until = time.monotonic() + (self._until - time.monotonic()) * self._share
        for number, mutant in enumerate(self._mutants):
            if time.monotonic() > until:
                break
            self._say({"mutant": number, **self._try(mutant, session.items, known)})
        return True

    def _say(self, told: dict[str, Any]) -> None:
        self._out.write(json.dumps(told) + "\n")
        self._out.flush()

    def _find_functions(self) -> None:
        files = {str(ROOT / each.file): each.file for each in self._mutants}
        for each in gc.get_objects():
            if type(each) is FunctionType and each.__code__.co_filename in files:
                key = (files[each.__code__.co_filename], each.__code__.co_firstlineno)
                if not each.__code__.co_name.startswith("<"):
                    self._functions.setdefault(key, []).append(each)

    # -- in a fork -------------------------------------------------------------------------------------------------------

    def _run(self, items: list[pytest.Item], begun: Callable[[], object]) -> str:
        """Run these until one fails; returns its name."""
        for item, following in zip(items, [*items[1:], None], strict=True):
            begun()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self._failed:
                item.session._setupstate.teardown_exact(None)  # noqa: SLF001  # as pytest does at the end of its run
                break
        return self._failed

    def _measure(self, items: list[pytest.Item]) -> dict[str, Known]:
        known = {}
        for item, following in zip(items, [*items[1:], None], strict=True):
            self._failed = ""
            self._tracer.start()
            began = time.monotonic()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            seconds = time.monotonic() - began
            self._tracer.stop()
            known[item.nodeid] = Known(seconds, not self._failed, self._tracer.take())
        return known

    def _replacements(self, mutant: Mutant) -> list[tuple[FunctionType, CodeType]]:
        """Every function object with the edited code, and its new code; empty if one has other closure variables now."""
        found = [
            (function, code)
            for node, code in zip(mutant.path, mutant.code(), strict=True)
            for function in self._functions.get((mutant.file, first_line(node)), [])
        ]
        fits = all(function.__code__.co_freevars == code.co_freevars for function, code in found)
        return found if fits else []

    # -- forking ---------------------------------------------------------------------------------------------------------

    def _baseline(self, items: list[pytest.Item]) -> dict[str, Known]:
        if not self._baseline_kept.is_file():
            new = self._baseline_kept.with_suffix(".new")
            outcome, _ = self._fork(lambda _: save(new, self._measure(items)), [BASELINE_S])
            assert outcome == "survived", f"the tests do not run without an edit: {outcome}"
            new.rename(self._baseline_kept)
        return load(self._baseline_kept)

    def _try(self, mutant: Mutant, items: list[pytest.Item], known: dict[str, Known]) -> dict[str, Any]:
        if not mutant.path:
            return {"outcome": "cold"}
        key = (mutant.file, first_line(mutant.path[-1]))
        near = [
            item
            for item in items
            if item.nodeid in known and known[item.nodeid].passed and key in known[item.nodeid].runs
        ]
        near.sort(key=lambda item: known[item.nodeid].seconds)
        mirror = self._mirrors[mutant.file]
        some = [item for item in near if item.nodeid.startswith(mirror)]  # all of its own tests, however long they take
        seconds = 0.0
        for item in near:
            seconds += known[item.nodeid].seconds
            if seconds > self._most_s:
                break
            if item not in some:
                some.append(item)
        if not some:
            return {"outcome": "cold" if key in self._imported else "survived", "by": "no test runs it"}
        began = time.monotonic()
        replacements = self._replacements(mutant)
        if not replacements:
            return {"outcome": "cold"}

        def work(begun: Callable[[], object]) -> str:
            for function, code in replacements:
                function.__code__ = code
            return self._run(some, begun)

        outcome, by = self._fork(work, [self._grace_s + SLOWER * known[item.nodeid].seconds for item in some])
        if outcome == "survived" and key in self._imported:
            outcome = "cold"
        return {"outcome": outcome, "by": by, "seconds": round(time.monotonic() - began, 2), "tests": len(some)}

    @staticmethod
    def _fork(work: Callable[[Callable[[], object]], str], limits_s: list[float]) -> tuple[str, str]:
        """Do `work` in a fork, and end every process that it started; returns the outcome and the fork's message.

        The fork reports the begin of each part. It is killed when a part takes longer than its limit.
        """
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _in_child(work, writing)
        os.close(writing)
        said, begun, limits = "", 0, [limits_s[0], *limits_s]
        try:
            while not said:
                if not select.select([reading], [], [], limits[min(begun, len(limits) - 1)])[0]:
                    said = "-"
                    break
                read = os.read(reading, 65536).decode()
                begun += read.count(BEGUN)
                said = read.lstrip(BEGUN) if read else "-the process ended"
        finally:
            os.close(reading)
            with contextlib.suppress(ProcessLookupError):  # and every process that it started
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if said == "-":
            return "timeout", ""
        return ("killed", said[1:]) if said[1:] else ("survived", "")


def _in_child(work: Callable[[Callable[[], object]], str], writing: int) -> None:
    with contextlib.suppress(BaseException):
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
        try:
            said = work(lambda: os.write(writing, BEGUN.encode()))
        except BaseException as error:  # noqa: BLE001  # every failure is caused by the edit
            said = f"{type(error).__name__}: {error}"[:200]
        os.write(writing, f"+{said}".encode(errors="replace"))
    os._exit(0)


def main() -> None:
    """Run one job."""
    job = json.loads(Path(sys.argv[1]).read_text())
    os.nice(5)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends a running fork as well
    options = ["-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutants", f"--basetemp={job['folder']}/t"]
    sys.exit(int(pytest.main([*options, *job["tests"]], plugins=[Forker(job)])))


if __name__ == "__main__":
    main()
