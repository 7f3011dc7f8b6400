"""What a session adds to a request, ours beside the peers': every contender in its own process and environment.

Contenders take short turns, round by round, on one and the same core: A B C, then C B A, and so on. What counts is the
CPU a contender's own process spends on a request with sessions, less what it spends on the same request without; and
of ours and the peer's, the ratio within a round, so that a machine that changes its speed changes both.

`python -m bench.session_cost [NAME ...]` measures some of them, for who works on the cost; without names the judged two.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import environments
from bench.before import source_of
from bench.redis_server import redis_server
from bench.show import CannotShow, Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OURS = "sessile-asgi"
JUDGED_PEER = "starlette-cookie"
STOP_S = 10.0
ROUNDS = 31
BESIDE_EVERY = 3
TURN_S = 0.08

Turn = dict[str, dict[str, float]]
"""For `read` and `write`: `base_cpu_us`, `added_cpu_us`, `base_wall_us`, `added_wall_us`."""
Rounds = dict[str, list[Turn]]
"""Each contender's turns, one for each round."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to keep sessions; `name` is what `bench.peers` knows it by."""

    name: str
    label: str
    environment: str | None
    """The requirements it runs with; None for the tree's own environment."""
    needs_redis: bool = False
    version: str = ""
    """The commit of this project that it runs with; empty for the tree as it stands."""

    @property
    def python_path(self) -> str:
        """Where its process finds `sessile` and `bench`."""
        source = str(source_of(self.version)) if self.version else "src"
        return os.pathsep.join([source, "."])


CONTENDERS = (
    Contender(OURS, "Sessile under Starlette", None),
    Contender("sessile-asgi-many", "Sessile under Starlette, 10 000 users in turn", None),
    Contender("sessile-asgi-redis", "Sessile under Starlette, on Redis", None, needs_redis=True),
    Contender(JUDGED_PEER, "Starlette's signed cookie", "starlette"),
    Contender("starsessions-memory", "starsessions in memory", "starsessions"),
    Contender("starsessions-redis", "starsessions on Redis", "starsessions", needs_redis=True),
    Contender("sessile-flask", "Sessile under Flask", "sessile-flask"),
    Contender("flask-cookie", "Flask's signed cookie", "flask"),
    Contender("flask-session-redis", "Flask-Session on Redis", "flask", needs_redis=True),
    Contender("django-locmem", "Django in memory", "django"),
    Contender("django-redis", "Django on Redis", "django", needs_redis=True),
)


def cores() -> tuple[int, int]:
    """The core the contenders share, and the one their Redis gets; the same where there is only one."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    return allowed[-1], allowed[0]


class Running:
    """A contender's process. It answers turns, and spends nothing between them."""

    def __init__(self, contender: Contender, core: int, redis_port: int) -> None:
        self.contender = contender
        name = contender.environment
        python = sys.executable if name is None else str(environments.python_of(name))
        self.process = subprocess.Popen(
            [python, "-m", "bench.peers", contender.name, str(core), str(redis_port)],
            cwd=environments.ROOT,
            env={**os.environ, "PYTHONPATH": contender.python_path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None, "started with a pipe"
        assert self.process.stdout is not None, "started with a pipe"
        self.orders, self.answers = self.process.stdin, self.process.stdout

    def answer(self) -> Turn:
        """The next line the process says; `CannotShow` if it ended instead, its reason stands on stderr."""
        line = self.answers.readline()
        if not line:
            status = self.process.wait()
            raise CannotShow(f"{self.contender.label} ended with status {status} before it was measured")
        answer: Turn = json.loads(line)
        return answer

    def turn(self, lasting_s: float) -> Turn:
        """Measure for this long, read and write each."""
        with suppress(BrokenPipeError):  # it ended: there will be no answer, which says so
            self.orders.write(f"{lasting_s}\n")
            self.orders.flush()
        return self.answer()

    def stop(self) -> None:
        """End the process: its input ends, and so does it."""
        with suppress(BrokenPipeError):
            self.orders.close()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.answers.close()


@contextmanager
def started(contenders: Sequence[Contender], progress: Progress) -> Iterator[list[Running]]:
    """All contenders, warm; stopped at the end whatever happens."""
    core, redis_core = cores()
    with ExitStack() as stack:
        needs_redis = any(contender.needs_redis for contender in contenders)
        redis_port = stack.enter_context(redis_server(redis_core)) if needs_redis else 0
        running: list[Running] = []
        for contender in contenders:
            progress(f"starting {contender.label}")
            one = Running(contender, core, redis_port)
            stack.callback(one.stop)
            one.answer()
            running.append(one)
        yield running


def measure(
    judged: Sequence[Contender],
    beside: Sequence[Contender],
    progress: Progress,
    *,
    rounds: int = ROUNDS,
    turn_s: float = TURN_S,
) -> Rounds:
    """Every contender's turns, in rounds of alternating order; those beside join in every few rounds."""
    contenders = [*judged, *beside]
    taken: Rounds = {contender.name: [] for contender in contenders}
    with started(contenders, progress) as running:
        for number in range(rounds):
            progress(f"round {number + 1} of {rounds}")
            taking = running if number % BESIDE_EVERY == 0 else running[: len(judged)]
            for one in taking if number % 2 == 0 else reversed(taking):
                taken[one.contender.name].append(one.turn(turn_s))
    return taken


def paired(
    one: Contender, other: Contender, progress: Progress, *, rounds: int = ROUNDS
) -> tuple[list[Turn], list[Turn]]:
    """The turns of two contenders that may have one name, in rounds of alternating order."""
    taken: tuple[list[Turn], list[Turn]] = ([], [])
    with started((one, other), progress) as running:
        for number in range(rounds):
            progress(f"round {number + 1} of {rounds}")
            places = (0, 1) if number % 2 == 0 else (1, 0)
            for place in places:
                taken[place].append(running[place].turn(TURN_S))
    return taken


def median(turns: Sequence[Turn], kind: str, figure: str) -> float:
    """The middle of one figure over all rounds."""
    return statistics.median(turn[kind][figure] for turn in turns)


def ratio(rounds: Rounds, ours: str, peer: str, kind: str) -> float:
    """The middle, over all rounds, of what ours adds in a round as a share of what the peer adds in the same."""
    pairs = zip(rounds[ours], rounds[peer], strict=True)
    return statistics.median(mine[kind]["added_cpu_us"] / other[kind]["added_cpu_us"] for mine, other in pairs)


def main(names: Sequence[str]) -> None:
    """Measure the named contenders and print what each adds, and its share of what the judged peer adds."""
    wanted = {*(names or [OURS]), JUDGED_PEER}
    contenders = [contender for contender in CONTENDERS if contender.name in wanted]
    if unknown := wanted - {contender.name for contender in contenders}:
        raise SystemExit(f"no contender {' '.join(sorted(unknown))}; there are {' '.join(c.name for c in CONTENDERS)}")
    rounds = measure(contenders, (), lambda line: print(line, file=sys.stderr))
    for contender in contenders:
        for kind in ("read", "write"):
            base, added = (median(rounds[contender.name], kind, figure) for figure in ("base_cpu_us", "added_cpu_us"))
            share = ratio(rounds, contender.name, JUDGED_PEER, kind)
            print(f"{contender.name:20} {kind:5}  base {base:6.1f} us  added {added:6.1f} us  {share:5.2f} x")


if __name__ == "__main__":
    main(sys.argv[1:])
