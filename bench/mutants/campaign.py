"""A run: the hand-made mutants, then a seeded sample of all others until the time is over. Results are kept.

A mutant is not tried again until the source or the tests near it change. So a run that had no time for all mutants goes on
where the last one ended.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

from bench.mutants import plan
from bench.mutants.cold import Copy
from bench.mutants.known import load
from bench.mutants.mutant import HANDMADE, PACKAGE, ROOT, Equivalent, Mutant, equivalents, handmade
from bench.mutants.plan import CACHE, GROUPS, Group

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SCORE_MIN", "Campaign", "Options", "Scores"]

SCORE_MIN: Final = 0.95
GRACE_S: Final = 8.0
"""A test hangs when it takes this much longer than several times its usual time."""
MOST_S: Final = 8.0
"""Beside its module's own tests, a mutant runs against the quickest tests of other files that take this long in all."""
WARM_SHARE: Final = 0.6
"""The part of a group's time, after its baseline is known, for mutants that run in a fork."""
COLD_S: Final = 8.0
"""A mutant that needs a process of its own runs against the nearest test files that take this long in all."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to run."""

    minutes: float = 20.0
    seed: int = 1
    only: tuple[str, ...] = ()
    """The modules to mutate; empty for all; `handmade` for the mutants that are listed by hand."""
    sample: int | None = None
    """At most this many of each module."""
    is_afresh: bool = False
    """Forget what earlier runs found."""
    only_survivors: bool = False
    """Try once more what survived, and nothing else."""


@dataclass(slots=True)
class Scores:
    """What became of the mutants of one module."""

    module: str
    made: int = 0
    """How many there are, without the equivalent ones."""
    equivalent: int = 0
    killed: int = 0
    survivors: list[Mutant] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return self.killed + len(self.survivors)

    @property
    def score(self) -> float:
        return self.killed / self.tried if self.tried else 1.0


class Campaign:
    """One run.

    Args:
        options: what to run.
        progress: called with each line of progress.
        kept: the file with the results of earlier runs; None keeps nothing.
    """

    def __init__(
        self, options: Options, progress: Callable[[str], None], kept: Path | None = CACHE / "results.json"
    ) -> None:
        self._options = options
        self._progress = progress
        self._kept = kept
        self._until = time.monotonic() + options.minutes * 60
        self._results: dict[str, dict[str, str]] = {}
        if kept is not None and kept.is_file() and not options.is_afresh:
            self._results = json.loads(kept.read_text())
        self.handmade = Scores(HANDMADE)
        self.scores: list[Scores] = []
        self.notes: list[str] = []
        self._prints: dict[str, str] = {}

    def run(self) -> None:
        """Run. Raises ValueError if a list is stale, CannotShow if the tool cannot be installed."""
        listed, spared = handmade(), equivalents()
        only = set(self._options.only)
        known = {HANDMADE, *(module for group in GROUPS for module in group.modules)}
        if only - known:
            raise ValueError(
                f"no such module: {', '.join(sorted(only - known))}; there are: {', '.join(sorted(known))}"
            )
        if not only or HANDMADE in only:
            self._run_handmade(listed)
        jobs = []
        for group in GROUPS:
            modules = [name for name in group.modules if not only or name in only]
            made = {name: plan.mutants_of(name) for name in modules if (ROOT / _file(name)).is_file()}
            if made:
                jobs.append((group, made, self._sampled(group, made, spared)))
        left = sum(len(chosen) for _, _, chosen in jobs)
        for group, made, chosen in jobs:
            share = (self._until - time.monotonic()) * len(chosen) / left if left else 0.0
            left -= len(chosen)
            if chosen:
                self._run_group(group, chosen, time.monotonic() + share)
            self._count(made, spared)

    # -- what is tried ---------------------------------------------------------------------------------------------------

    def _sampled(self, group: Group, made: dict[str, list[Mutant]], spared: list[Equivalent]) -> list[Mutant]:
        """The mutants of a group still to be tried, in the seed's order, so that each module has its share at any time."""
        rng = Random(self._options.seed)
        results = self._of(group)
        places = []
        for mutants in made.values():
            mine = [each for each in mutants if not any(one.is_of(each) for one in spared)]
            rng.shuffle(mine)
            mine = mine[: self._options.sample]
            places += [(place / len(mine), each) for place, each in enumerate(mine)]
        ordered = [each for _, each in sorted(places, key=lambda each: each[0])]
        if self._options.only_survivors:
            return [each for each in ordered if self._last(each) == "survived"]
        return [each for each in ordered if _id(each) not in results]

    def _of(self, group: Group) -> dict[str, str]:
        """The results of a group for the present source and tests."""
        mark = self._fingerprint(group)
        kept = self._results.get(group.name, {})
        if kept.get("fingerprint") != mark and not self._options.only_survivors:
            kept = {"fingerprint": mark}
        self._results[group.name] = kept
        return kept

    def _fingerprint(self, group: Group) -> str:
        """The fingerprint at its first use in this run, since the tree may be edited meanwhile."""
        if group.name not in self._prints:
            self._prints[group.name] = plan.fingerprint(group)
        return self._prints[group.name]

    def _last(self, mutant: Mutant) -> str:
        return next((kept[_id(mutant)] for kept in self._results.values() if _id(mutant) in kept), "")

    # -- running ---------------------------------------------------------------------------------------------------------

    def _run_handmade(self, listed: list[Mutant]) -> None:
        self.handmade.made = len(listed)
        with Copy() as copy:
            for number, mutant in enumerate(listed, 1):
                try:
                    outcome, by = copy.run(mutant, mutant.tests)
                except RuntimeError as problem:
                    outcome, by = "survived", str(problem)
                self._progress(f"{HANDMADE} {number}/{len(listed)}: {outcome} {mutant.title} {by and f'({by})'}")
                if outcome == "survived":
                    self.handmade.survivors.append(mutant)
                else:
                    self.handmade.killed += 1

    def _run_group(self, group: Group, mutants: list[Mutant], until: float) -> None:
        folder = Path(tempfile.mkdtemp(prefix="sm-"))
        folder.chmod(0o755)  # servers for tests may run as somebody else
        try:
            warm = [each for each in mutants if each.path]
            cold = [each for each in mutants if not each.path]
            cold = self._run_warm(group, warm, until, folder, share=WARM_SHARE if cold else 1.0) + cold
            if cold:
                self._run_cold(group, cold, until)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            self._save()

    def _run_warm(
        self, group: Group, mutants: list[Mutant], until: float, folder: Path, *, share: float
    ) -> list[Mutant]:
        """Run these mutants in forks, for `share` of the time left after the baseline; returns those that need a process."""
        reading, writing = os.pipe()
        job = {
            "tests": [str(path.relative_to(ROOT)) for path in group.files()],
            "mutants": [each.as_data() for each in mutants],
            "files": [_file(module) for module in group.modules],
            "mirrors": {each.file: _mirror(each) for each in mutants},
            "most_s": MOST_S,
            "grace_s": GRACE_S,
            "until": until,
            "share": share,
            "out": writing,
            "folder": str(folder),
            "baseline": str(self._baseline(group)),
        }
        (folder / "job").write_text(json.dumps(job))
        command = [sys.executable, "-m", "bench.mutants.warm", str(folder / "job")]
        environment = {**os.environ, "TMPDIR": str(folder)}
        self._progress(f"{group.name}: {len(mutants)} mutants, collecting the tests")
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, pass_fds=[writing], start_new_session=True
            ) as process,
        ):
            os.close(writing)
            cold: list[Mutant] = []
            counted = Counter[str]()
            try:
                with os.fdopen(reading) as told:
                    for line in told:
                        self._hear(json.loads(line), group, mutants, cold, counted)
            finally:
                if process.poll() is None:
                    process.terminate()
        if process.returncode:
            raise RuntimeError(f"pytest ended with {process.returncode}: {(folder / 'log').read_text()[-1000:]}")
        return cold

    def _hear(
        self, told: dict[str, Any], group: Group, mutants: list[Mutant], cold: list[Mutant], counted: Counter[str]
    ) -> None:
        if "mutant" not in told:
            if told.get("broken"):
                self.notes.append(f"{group.name}: failing without an edit, and not used: {', '.join(told['broken'])}")
            self._progress(f"{group.name}: {told}")
            return
        mutant = mutants[told["mutant"]]
        counted[told["outcome"]] += 1
        if told["outcome"] == "cold":
            cold.append(mutant)
        else:
            self._note(group, mutant, told["outcome"], told.get("by", ""))
        if told["mutant"] % 50 == 49:
            said = ", ".join(f"{count} {name}" for name, count in counted.most_common())
            self._progress(f"{group.name}: {told['mutant'] + 1}/{len(mutants)}: {said}")
            self._save()

    def _run_cold(self, group: Group, mutants: list[Mutant], until: float) -> None:
        seconds: defaultdict[str, float] = defaultdict(float)
        files: defaultdict[str, set[str]] = defaultdict(set)
        for name, known in load(self._baseline(group)).items():
            seconds[name.partition("::")[0]] += known.seconds
            files[name.partition("::")[0]] = files.get(name.partition("::")[0], set()) | {
                file for file, _ in known.runs
            }
        with Copy() as copy:
            for number, mutant in enumerate(mutants, 1):
                if time.monotonic() > until:
                    return
                near = [test for test in files if mutant.file in files[test] or test.startswith(_mirror(mutant))]
                near.sort(key=lambda test: (not test.startswith(_mirror(mutant)), seconds[test]))
                tests: list[str] = []
                spent = 0.0
                for test in near:
                    spent += seconds[test]
                    if spent > COLD_S and tests:
                        break
                    tests.append(test)
                try:
                    outcome, by = copy.run(mutant, tests) if tests else ("survived", "no test runs it")
                except RuntimeError as problem:
                    self.notes.append(str(problem))
                    continue
                self._note(group, mutant, outcome, by)
                if number % 10 == 0:
                    self._progress(f"{group.name}: {number}/{len(mutants)} with an import of their own")

    def _note(self, group: Group, mutant: Mutant, outcome: str, by: str) -> None:
        self._results[group.name][_id(mutant)] = "killed" if outcome == "timeout" else outcome
        if outcome == "survived":
            self._progress(f"survived: {mutant} {by and f'({by})'}")

    def _baseline(self, group: Group) -> Path:
        """The file that keeps which functions each test runs."""
        CACHE.mkdir(parents=True, exist_ok=True)
        now = CACHE / f"baseline-{group.name}-{self._fingerprint(group)}"
        for old in CACHE.glob(f"baseline-{group.name}-*"):
            if old != now:
                old.unlink()
        return now

    # -- the result ------------------------------------------------------------------------------------------------------

    def _count(self, made: dict[str, list[Mutant]], spared: list[Equivalent]) -> None:
        for module, mutants in made.items():
            of_module = [one for one in spared if one.module == module]
            scores = Scores(module)
            used = set()
            for each in mutants:
                entry = next((one for one in of_module if one.is_of(each)), None)
                if entry is not None:
                    used.add(entry)
                    scores.equivalent += 1
                    continue
                scores.made += 1
                last = self._last(each)
                if last == "survived":
                    scores.survivors.append(each)
                scores.killed += last == "killed"
            self.scores.append(scores)
            decayed = [f"{one.module} {one.function}: {one.before}" for one in of_module if one not in used]
            if decayed:
                raise ValueError(f"equivalent.toml lists what is no mutant any more: {'; '.join(decayed)}")

    def _save(self) -> None:
        if self._kept is not None:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            new = self._kept.with_suffix(".new")
            new.write_text(json.dumps(self._results, indent=0))
            new.rename(self._kept)

    @property
    def total(self) -> Scores:
        """All modules together."""
        total = Scores("all")
        for each in self.scores:
            total.made += each.made
            total.killed += each.killed
            total.equivalent += each.equivalent
            total.survivors += each.survivors
        return total

    @property
    def holds(self) -> bool:
        """Whether enough mutants were killed, and all of those that are listed by hand."""
        return self.total.score >= SCORE_MIN and not self.handmade.survivors


def _file(module: str) -> str:
    return f"{PACKAGE}{module.replace('.', '/')}.py"


def _mirror(mutant: Mutant) -> str:
    """The beginning of the names of its module's own tests."""
    folder, _, name = mutant.file.removeprefix(PACKAGE).removesuffix(".py").rpartition("/")
    return f"tests/{folder}{'/' if folder else ''}test_{name}"


def _id(mutant: Mutant) -> str:
    """The name under which its result is kept."""
    return f"{mutant.module}:{mutant.begin}:{mutant.end}:{mutant.operator}:{mutant.text}"
