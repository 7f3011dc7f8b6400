"""`balancer-speed`: the balancer on one core beside HAProxy and nginx, interleaved.

What is judged is the balancer as SESSILE_COMPILE=1 builds it; the pure Python one stands beside it. Where it cannot be
compiled the pure one is judged, and the notes say so.
"""

from __future__ import annotations

from bench import balancer_speed
from bench.balancer_speed import PURE
from bench.show import CannotShow, Figure, Progress, Shown

SUMMARY = "The balancer serves at least 0.85 times as many requests per second on one core as HAProxy."
PROGRAMS = balancer_speed.PROGRAMS
MEASURES = True

ROUNDS = 5
SECONDS = 4.0
RATIO_MIN = 0.85
BUSY_MIN = 0.85
NOTES = [
    "one core for the balancer, another for wrk and the origin; keep-alive, 64 connections, 128-byte answers",
    "2 048 different browser heads of 16 fields, with a cookie of one of three servers; nothing is remembered of a head",
    "HAProxy: one thread, cookie insert indirect nocache; nginx: one worker, sticky by map; all add X-Forwarded-For",
    "ratios are medians over rounds of the ratio within a round; the machine's speed moves, so figures of a row do not compare across runs",
]
COMPILED = "sessile: the wheel that SESSILE_COMPILE=1 builds; sessile pure: the same source not compiled, not judged"
NOT_COMPILED = "sessile: pure Python, because it could not be compiled here; make -s test-compiled says why"


def run(progress: Progress) -> Shown:
    """Measure, and judge the ratio only where each balancer was the bottleneck."""
    try:
        samples = balancer_speed.measure(ROUNDS, SECONDS, progress)
    except balancer_speed.CannotMeasure as problem:
        raise CannotShow(str(problem)) from None
    return judged(balancer_speed.summary(samples))


def judged(found: dict[str, float]) -> Shown:
    """The figures and their verdicts."""
    ratio = found["ratio haproxy"]
    is_compiled = "pure ratio haproxy" in found
    figures = [
        Figure("requests/s, ratio to HAProxy", ratio, "x", f">= {RATIO_MIN}", ratio >= RATIO_MIN),
    ]
    if is_compiled:
        figures.append(Figure("requests/s, ratio to HAProxy, pure Python", found["pure ratio haproxy"], "x"))
    figures += [
        Figure("requests/s, ratio to nginx", found["ratio nginx"], "x"),
        Figure("errors and refused requests", found["errors"], "", "= 0", found["errors"] == 0),
    ]
    for name in ("sessile", "haproxy", "nginx"):
        busy = found[f"{name} busy"]
        figures += [
            Figure(f"{name}: requests/s", found[f"{name} requests/s"], "1/s"),
            Figure(f"{name}: CPU per request", found[f"{name} cpu"], "µs"),
            # A balancer that waits for somebody else is not what was measured.
            Figure(f"{name}: share of its core used", busy, "", f">= {BUSY_MIN}", busy >= BUSY_MIN),
        ]
    if is_compiled:
        figures += [
            Figure(f"{PURE}: requests/s", found[f"{PURE} requests/s"], "1/s"),
            Figure(f"{PURE}: CPU per request", found[f"{PURE} cpu"], "µs"),
            Figure(f"{PURE}: share of its core used", found[f"{PURE} busy"]),
        ]
    figures.append(Figure("CPU per request, ratio to HAProxy", found["cpu ratio haproxy"], "x"))
    figures.append(Figure("origin: share of the other core", found["origin busy"]))
    return Shown("balancer-speed", figures, [COMPILED if is_compiled else NOT_COMPILED, *NOTES])
