"""The whole trial, part by part, each on processes of its own: what `make show NAME=hostile-input` runs.

Every part returns what it found as data and judges nothing by itself but guilt; how much is tried is an argument, so the
tests run the same parts small.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

from bench.hostile.answer_trial import AnswerTrial
from bench.hostile.answers import EARLY, SWITCH, HostileAnswer, all_answers
from bench.hostile.cookie_cases import cookie_cases
from bench.hostile.cookie_trial import InProcess, OverTheWire
from bench.hostile.judge import Judge, Tally
from bench.hostile.mutator import mutations
from bench.hostile.origin import Origin
from bench.hostile.processes import Process, Weight, balancer
from bench.hostile.slow import Crowd, Flood, crowd, flood
from bench.hostile.vectors import all_vectors

if TYPE_CHECKING:
    from pathlib import Path

    from bench.hostile.guilt import Guilt

__all__ = ["AtTheBalancer", "AtTheCookies", "Logs", "at_the_balancer", "at_the_cookies", "at_the_gate", "over_the_wire"]

Progress = Callable[[str], None]
SETTLED_WITHIN: Final = 6
"""Descriptors beyond those after the warm-up that kept connections to the server may take."""
SETTLE_TIMEOUT_S: Final = 15.0
GATE_IDLE_S: Final = 120.0
"""Those that were let in first must still be there when the last one comes, however slow this machine is."""
WARM_UP_SEED: Final = 0


@dataclass(slots=True)
class Logs:
    """What the processes under trial complained of."""

    lines: list[str] = field(default_factory=list)
    processes: int = 0

    def read(self, process: Process) -> None:
        self.processes += 1
        self.lines += process.complaints()
        if not process.is_running:
            self.lines.append(f"a process under trial ended by itself: {process.text()[-500:]}")


@dataclass(slots=True)
class AtTheBalancer:
    """What vectors, mutations, lies and slow clients brought to light."""

    vectors: Tally
    passed_on: Tally
    """The vectors with a body again, at a balancer that collects none."""
    mutated: Tally
    unchanged_refused: int
    answers: int
    lied: list[Guilt]
    """Guilt by hostile answers of a server."""
    crowds: list[Crowd]
    before: Weight
    after: Weight

    @property
    def guilts(self) -> list[Guilt]:
        return [*self.vectors.guilts, *self.passed_on.guilts, *self.mutated.guilts, *self.lied]


@dataclass(slots=True)
class AtTheCookies:
    """What cookies nobody issued brought to light, in process."""

    cases: int
    written: int
    guilts: list[Guilt]
    growth_blocks: int
    """How many more memory blocks the interpreter held at the end than after a quarter of the cases."""


async def at_the_balancer(
    folder: Path, logs: Logs, progress: Progress, *, seed: int, mutated: int, slow_each: int, crowds: int, warm_up: int
) -> AtTheBalancer:
    """One balancer and one server for everything that is about messages, so that all share a pool."""
    lies = all_answers()
    origin = Origin({lie.target: lie for lie in [*lies, *EARLY, SWITCH]})
    await origin.start()
    try:
        with balancer(folder, {"s1": origin.port}) as process:
            judge = Judge(process.port, origin)
            await judge.learn_affinity()
            progress(f"{len(all_vectors())} vectors, those with a body in two ways")
            vectors = await _vectors(judge)
            await _mutations(judge, WARM_UP_SEED, warm_up)
            before = process.weigh()
            progress(f"{mutated} mutations, seed {seed}")
            tally = await _mutations(judge, seed, mutated)
            await judge.close()
            progress(f"{len(lies) + 1} hostile answers of a server, with and without our cookie")
            trials = [AnswerTrial(process.port, origin, affinity=cookie) for cookie in (b"", judge.affinity)]
            for trial in trials:
                await _answers(trial, lies)
            progress("slow, silent and half-open clients")
            seen = [await crowd(process, slow_each, normal=100) for _ in range(crowds)]
            after = await process.lightest(before.descriptors + SETTLED_WITHIN, SETTLE_TIMEOUT_S)
            logs.read(process)
        progress("the vectors with a body, and answers before the request, where bodies are passed on as they come")
        passed_on, early = await _passed_on(folder, logs, origin)
        trials += early
    finally:
        await origin.stop()
    unchanged = sum(name.endswith((" valid unchanged", " browser unchanged")) for name, _ in tally.overrefused)
    lied = [guilt for trial in trials for guilt in trial.guilts]
    answers = sum(trial.cases for trial in trials)
    return AtTheBalancer(vectors, passed_on, tally, unchanged, answers, lied, seen, before, after)


async def _answers(trial: AnswerTrial, lies: list[HostileAnswer]) -> None:
    for lie in lies:
        await trial.try_answer(lie)
    await trial.try_tunnel()
    await trial.close()


async def _passed_on(folder: Path, logs: Logs, origin: Origin) -> tuple[Tally, list[AnswerTrial]]:
    """What can only happen where a server hears of a request before its body is whole."""
    with balancer(folder, {"s1": origin.port}, name="passed-on", buffer_requests=False) as process:
        judge = Judge(process.port, origin)
        await judge.learn_affinity()
        vectors = await _vectors(judge, cut_only=True)
        await judge.close()
        trials = [AnswerTrial(process.port, origin, affinity=cookie) for cookie in (b"", judge.affinity)]
        for trial in trials:
            for lie in EARLY:
                await trial.try_early(lie)
            await trial.close()
        logs.read(process)
    return vectors, trials


async def _vectors(judge: Judge, *, cut_only: bool = False) -> Tally:
    vectors = all_vectors()
    for number, vector in enumerate(vectors):
        if not cut_only:
            await judge.try_vector(vector, number)
        if vector.raw.partition(b"\r\n\r\n")[2]:
            await judge.try_vector(vector, number, head_first=True)
    return _taken(judge)


async def _mutations(judge: Judge, seed: int, count: int) -> Tally:
    for mutation in mutations(Random(seed), all_vectors(), count, judge.affinity):
        await judge.try_case(f"seed {seed} {mutation.name}", mutation.raw, mutation.pieces)
    return _taken(judge)


def _taken(judge: Judge) -> Tally:
    tally, judge.tally = judge.tally, Tally()
    return tally


async def at_the_gate(folder: Path, logs: Logs, *, limit: int, opened: int) -> Flood:
    """More connections from one address than a balancer allows."""
    origin = Origin()
    await origin.start()
    try:
        with balancer(folder, {"s1": origin.port}, connections=limit, idle_s=GATE_IDLE_S, name="gate") as process:
            seen = await flood(process.port, opened)
            logs.read(process)
    finally:
        await origin.stop()
    return seen


def at_the_cookies(progress: Progress, *, seed: int, cases: int, writes: int) -> AtTheCookies:
    """Half of the cases at each of the two middlewares, in this process."""
    found = AtTheCookies(0, 0, [], 0)
    for kind in ("asgi", "wsgi"):
        progress(f"{cases // 2} cookies at the {kind.upper()} middleware, seed {seed}")
        trial = InProcess(kind)
        random = Random(seed)
        quarter = cases // 8
        for case in cookie_cases(random, trial.material, quarter):
            trial.try_case(case)
        before = _blocks()
        for case in cookie_cases(random, trial.material, cases // 2 - quarter):
            trial.try_case(case)
        found.growth_blocks = max(found.growth_blocks, _blocks() - before)
        for case in cookie_cases(random, trial.material, writes // 2):
            trial.try_write(case)
        found.cases += trial.cases
        found.written += trial.written
        found.guilts += trial.guilts
    return found


def _blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


async def over_the_wire(folder: Path, logs: Logs, *, seed: int, cases: int) -> tuple[OverTheWire, int]:
    """A served application behind the balancer; returns the trial and how many bytes the application grew by."""
    command = [sys.executable, "-m", "uvicorn", "bench.hostile.session_app:served", "--port", "0", "--no-access-log"]
    with Process(command, folder / "app.log") as app, balancer(folder, {"s1": app.port}, name="wire") as process:
        trial = OverTheWire(process.port)
        material = await trial.start()
        random = Random(seed)
        for case in cookie_cases(random, material, cases // 4):
            await trial.try_case(case)
        before = app.weigh().resident_bytes
        for case in cookie_cases(random, material, cases - cases // 4):
            await trial.try_case(case)
        growth = app.weigh().resident_bytes - before
        logs.read(app)
        logs.read(process)
    return trial, growth
