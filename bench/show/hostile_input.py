"""`hostile-input`: what nobody should send, sent; what came of it, held against the rules by an independent judge.

The work is in `bench/hostile/`; this says how much of it, and what must hold. `HOSTILE_SEED` sets the seed of mutations
and cookies.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from bench.hostile import attacks, bystanders, campaign, times
from bench.show import Figure, Progress, Shown

if TYPE_CHECKING:
    from bench.hostile.bystanders import Seen
    from bench.hostile.guilt import Guilt
    from bench.hostile.slow import Crowd, Flood

SUMMARY = "Hostile requests, answers, cookies and clients: refused, or understood the same by everybody; nothing leaks, nothing grows."
MEASURES = False
PROGRAMS = bystanders.PROGRAMS

MUTATIONS: Final = 2_000
COOKIES: Final = 10_000
COOKIES_OVER_THE_WIRE: Final = 500
WRITES: Final = 1_000
SLOW_EACH: Final = 32
WARM_UP: Final = 300
LIMIT: Final = 64
OPENED: Final = 100
GROWTH_MB_MAX: Final = 4
DESCRIPTORS_MAX: Final = campaign.SETTLED_WITHIN
BLOCKS_MAX: Final = 2_000
GUILTS_TOLD: Final = 25
PAIRS_TIMED: Final = 4_000
"""Of the cases with pairs of characters; all with single ones and with words are timed."""
ATTACK_S: Final = 5.0
TIMES_MAX: Final = 10
WAIT_MS_MAX: Final = 10
READ_AHEAD_MB_MAX: Final = 24
"""What 64 connections may have read ahead: 65 536 bytes each, and one read more."""
REFUSED_DESCRIPTORS_MAX: Final = 700
"""Each connection of a crowd has one to the server; beside them there are those that read why they are refused."""
NOTES: Final = [
    "guilty is a case in which a server saw a byte of what must be refused, or a request that nobody asked for",
    "or in which a strict reader of RFC 9112, h11 and llhttp read different requests from what a server saw",
    "or in which an answer was not its asker's: this is probed after each case on the same, a fresh and an old connection",
    "all of them share one pool of connections to one server; growth is measured after a warm-up with all vectors",
    f"a parser is slow if {times.STEP} times as much at one place of a message takes over {times.GROWTH_MAX:g} times as long, twice over",
    "a bystander asks on a connection that was open before the attack; HAProxy collects bodies too and has the same limits",
]


def run(progress: Progress) -> Shown:
    """Run all parts, one after the other."""
    seed = int(os.environ.get("HOSTILE_SEED", "1"))
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_run(Path(folder), progress, seed))


def _timed(progress: Progress, seed: int) -> times.Sweep:
    cases = [*times.plain_cases(), *Random(seed).sample(times.all_cases(), PAIRS_TIMED)]
    progress(f"{len(cases)} messages to every parser, timed as they grow")
    return times.sweep(cases)


def _attacked(folder: Path, progress: Progress) -> list[tuple[Seen, Seen]]:
    found = []
    for kind in attacks.KINDS:
        progress(f"{kind}: bystanders of an attack, ours and HAProxy's")
        found.append(bystanders.beside_haproxy(folder, kind, ATTACK_S))
    return found


def _time_figures(sweep: times.Sweep) -> list[Figure]:
    slow = len(sweep.slow)
    return [
        Figure("messages timed as they grow", sweep.cases),
        Figure("of them read in more than linear time", slow, "", "= 0", not slow),
        Figure(
            f"time for {times.STEP} times as much, at most",
            sweep.worst,
            "x",
            f"<= {times.GROWTH_MAX:g}",
            sweep.worst <= times.GROWTH_MAX,
        ),
        Figure("longest that one of them took", sweep.longest_s * 1e3, "ms"),
    ]


def _bystander_figures(found: list[tuple[Seen, Seen]]) -> list[Figure]:
    figures = []
    for ours, theirs in found:
        bound = max(TIMES_MAX * theirs.p50_ms, WAIT_MS_MAX)
        told = f"<= {TIMES_MAX} x HAProxy's or {WAIT_MS_MAX}"
        figures += [
            Figure(
                f"{ours.kind}: a bystander's p50",
                ours.p50_ms,
                "ms",
                told,
                ours.p50_ms <= bound,
                "HAProxy",
                theirs.p50_ms,
            ),
            Figure(
                f"{ours.kind}: requests of it not served",
                ours.asked - ours.served,
                "",
                "= 0",
                ours.served == ours.asked,
            ),
        ]
    by_kind = {ours.kind: (ours, theirs) for ours, theirs in found}
    ours, theirs = by_kind["pipeline"]
    grown = ours.grown_bytes / 2**20
    held = by_kind["crowd"][0].descriptors
    ended = sum(each.is_ended for each, _ in found)
    return [
        *figures,
        Figure(
            "pipeline: growth of the balancer's memory", grown, "MB", f"<= {READ_AHEAD_MB_MAX}", grown <= READ_AHEAD_MB_MAX,
            "HAProxy", theirs.grown_bytes / 2**20,
        ),
        Figure(
            f"crowd: descriptors held at a limit of {attacks.LIMIT} connections", held, "", f"<= {REFUSED_DESCRIPTORS_MAX}",
            held <= REFUSED_DESCRIPTORS_MAX, "HAProxy", by_kind["crowd"][1].descriptors,
        ),
        Figure("attacked balancers that SIGTERM ended", ended, "", f"= {len(found)}", ended == len(found)),
    ]  # fmt: skip


async def _run(folder: Path, progress: Progress, seed: int) -> Shown:
    logs = campaign.Logs()
    found = await campaign.at_the_balancer(
        folder, logs, progress, seed=seed, mutated=MUTATIONS, slow_each=SLOW_EACH, crowds=2, warm_up=WARM_UP
    )
    progress(f"{OPENED} connections where {LIMIT} are allowed")
    gate = await campaign.at_the_gate(folder, logs, limit=LIMIT, opened=OPENED)
    cookies = campaign.at_the_cookies(progress, seed=seed, cases=COOKIES - COOKIES_OVER_THE_WIRE, writes=WRITES)
    progress(f"{COOKIES_OVER_THE_WIRE} cookies over the wire")
    wire, app_growth = await campaign.over_the_wire(folder, logs, seed=seed, cases=COOKIES_OVER_THE_WIRE)
    sweep = _timed(progress, seed)
    attacked = _attacked(folder, progress)
    guilts = [*found.guilts, *cookies.guilts, *wire.guilts]
    figures = [
        *_message_figures(found),
        *_slow_figures(found.crowds, gate),
        Figure(
            "requests with random and mutated cookies",
            cookies.cases + wire.cases,
            "",
            f"= {COOKIES}",
            cookies.cases + wire.cases == COOKIES,
        ),
        _guilty([*cookies.guilts, *wire.guilts]),
        Figure("sessions written under such a cookie, each with an id of our own", cookies.written),
        *_growth_figures(found, cookies.growth_blocks, app_growth),
        *_time_figures(sweep),
        *_bystander_figures(attacked),
        Figure("complaints in the logs", len(logs.lines), "", "= 0", not logs.lines),
    ]
    slow = [str(each) for each in sweep.slow[:GUILTS_TOLD]]
    wrong = [each for crowd in found.crowds for each in crowd.wrong]
    return Shown(
        "hostile-input",
        figures,
        [*NOTES, f"seed {seed}", *_told(guilts), *slow, *wrong[:GUILTS_TOLD], *logs.lines[:GUILTS_TOLD]],
    )


def _message_figures(found: campaign.AtTheBalancer) -> list[Figure]:
    vectors, mutated = found.vectors, found.mutated
    return [
        Figure("request vectors sent, those with a body in two ways", vectors.cases),
        _guilty(vectors.guilts),
        Figure("those with a body where it is passed on as it comes", found.passed_on.cases),
        _guilty(found.passed_on.guilts),
        Figure("mutations", mutated.cases, "", f"= {MUTATIONS}", mutated.cases == MUTATIONS),
        _guilty(mutated.guilts),
        Figure("requests in them that were forwarded", mutated.forwarded, "", "> 0", mutated.forwarded > 0),
        Figure("requests in them that were refused", mutated.refused, "", "> 0", mutated.refused > 0),
        Figure("refused although no rule asks for it", len(mutated.overrefused)),
        Figure("of them valid requests as they were", found.unchanged_refused, "", "= 0", not found.unchanged_refused),
        Figure("answers lost to a reset, by what was sent after them", vectors.lost + mutated.lost),
        Figure("hostile answers of a server", found.answers),
        _guilty(found.lied),
    ]


def _guilty(guilts: list[Guilt]) -> Figure:
    """How many cases are guilty of something."""
    cases = len({guilt.case for guilt in guilts})
    return Figure("of them guilty", cases, "", "= 0", not cases)


def _slow_figures(crowds: list[Crowd], gate: Flood) -> list[Figure]:
    slow, given_up = sum(each.slow for each in crowds), sum(each.given_up for each in crowds)
    normal, served = sum(each.normal for each in crowds), sum(each.served for each in crowds)
    hanging, wrong = min(each.hanging for each in crowds), sum(len(each.wrong) for each in crowds)
    refused = OPENED - LIMIT
    return [
        Figure("slow, silent and half-open clients", slow),
        Figure("of them given up in time", given_up, "", f"= {slow}", given_up == slow),
        Figure("others' requests served meanwhile", served, "", f"= {normal}", served == normal),
        Figure("slow ones still hanging when those had been served", hanging, "", "> 0", hanging > 0),
        Figure("wrong answers to either", wrong, "", "= 0", not wrong),
        Figure("connections served of a flood", gate.served, "", f"= {LIMIT}", gate.served == LIMIT),
        Figure("connections refused of it", gate.refused, "", f"= {refused}", gate.refused == refused),
        Figure("requests served after it", gate.served_after, "", "= 10", gate.served_after == 10),
    ]


def _growth_figures(found: campaign.AtTheBalancer, blocks: int, app_growth: int) -> list[Figure]:
    memory = (found.after.resident_bytes - found.before.resident_bytes) / 2**20
    descriptors = found.after.descriptors - found.before.descriptors
    app = app_growth / 2**20
    return [
        Figure("growth of the balancer's memory", memory, "MB", f"<= {GROWTH_MB_MAX}", memory <= GROWTH_MB_MAX),
        Figure("growth of its descriptors", descriptors, "", f"<= {DESCRIPTORS_MAX}", descriptors <= DESCRIPTORS_MAX),
        Figure("growth of the application's memory", app, "MB", f"<= {GROWTH_MB_MAX}", app <= GROWTH_MB_MAX),
        Figure(
            "memory blocks the middlewares kept of the cookies", blocks, "", f"<= {BLOCKS_MAX}", blocks <= BLOCKS_MAX
        ),
    ]


def _told(guilts: list[Guilt]) -> list[str]:
    more = [f"and {len(guilts) - GUILTS_TOLD} more"] if len(guilts) > GUILTS_TOLD else []
    return [*map(str, guilts[:GUILTS_TOLD]), *more]
