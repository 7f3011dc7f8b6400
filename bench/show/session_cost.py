"""`session-cost`: the CPU a request gains from its session, ours beside what Python services use today."""

from __future__ import annotations

from bench import session_cost
from bench.session_cost import CONTENDERS, JUDGED_PEER, OURS, ROUNDS, Rounds
from bench.show import Figure, Progress, Shown

SUMMARY = "A session adds to a request at most half of the CPU that Starlette's signed cookie adds; a write, 0.6 of it."
MEASURES = True
PROGRAMS = ("redis-server",)

BOUNDS = {"read": 0.5, "write": 0.6}
NOTES = [
    f"median of {ROUNDS} rounds; CPU of the serving process, requests with sessions less the same requests without",
    "every contender in its own process and environment, in turns on one core; 64 browsers that keep their cookies",
    "five fields of 285 bytes as JSON, and a counter: read reads one field, write writes one",
    "a Redis' own CPU is not counted; every contender's settings are its defaults",
]


def judged(rounds: Rounds, kind: str) -> Figure:
    """Our share of what the peer adds, held to its bound."""
    share = session_cost.ratio(rounds, OURS, JUDGED_PEER, kind)
    return Figure(
        name=f"{kind}: CPU added, as a share of Starlette's signed cookie",
        value=share,
        unit="x",
        bound=f"<= {BOUNDS[kind]}",
        holds=share <= BOUNDS[kind],
        peer=JUDGED_PEER,
        peer_value=1.0,
    )


def shown_only(rounds: Rounds) -> list[Figure]:
    """What every contender adds, CPU first and then as the clock on the wall sees it."""
    figures = []
    for contender in CONTENDERS:
        turns = rounds[contender.name]
        for kind in BOUNDS:
            cpu, wall, base = (
                session_cost.median(turns, kind, figure) for figure in ("added_cpu_us", "added_wall_us", "base_cpu_us")
            )
            figures.append(Figure(f"{kind}: {contender.label}, CPU added", cpu, "us", peer="base", peer_value=base))
            figures.append(Figure(f"{kind}: {contender.label}, wall time added", wall, "us"))
    return figures


def run(progress: Progress) -> Shown:
    """Measure all contenders; judged is ours under Starlette against Starlette's own."""
    pair = [contender for contender in CONTENDERS if contender.name in {OURS, JUDGED_PEER}]
    rounds = session_cost.measure(pair, [each for each in CONTENDERS if each not in pair], progress)
    return Shown("session-cost", [*(judged(rounds, kind) for kind in BOUNDS), *shown_only(rounds)], NOTES)
