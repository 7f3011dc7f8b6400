"""`wire`: what messages take, and that no frame harms a node."""

from __future__ import annotations

import os

from bench import wire
from bench.show import Figure, Progress, Shown

SUMMARY = "A change of 100 characters takes at most 140 bytes framed; no frame makes a node raise, or grow."
MEASURES = True

FRAMES = 1_000_000
BYTES_MAX = 140
GROWTH_BYTES_MAX = 8 * 2**20
JUDGED = "Changed: 100 characters"
TOMCAT_BYTES = 884
NOTES = [
    "sizes of real messages as they leave, length prefix included; one copy, and ten bytes more for its acknowledgement",
    "Tomcat's DeltaManager, a counter and 100 characters, to each peer: 884 B and 21 B back; BackupManager 1 201 B",
    "frames: random, mutated, cut, stretched, spliced and replayed ones, over links that have greeted, to real nodes",
    "growth is looked for in tables, queues, members and the directory, and in resident memory",
]


def run(progress: Progress) -> Shown:
    """Frame one of each kind, then throw a million frames at nodes."""
    sizes = wire.sizes()
    fuzzed = wire.fuzz(FRAMES, os.cpu_count() or 1, progress)
    figures = [
        Figure(
            JUDGED,
            sizes[JUDGED],
            "B",
            f"<= {BYTES_MAX}",
            sizes[JUDGED] <= BYTES_MAX,
            "Tomcat DeltaManager",
            TOMCAT_BYTES,
        ),
        *(Figure(name, size, "B") for name, size in sizes.items() if name != JUDGED),
        *judged(fuzzed),
    ]
    return Shown("wire", figures, [*NOTES, *fuzzed.raised[:5], *(f"beyond its limit: {name}" for name in fuzzed.grown)])


def judged(fuzzed: wire.Fuzzed) -> list[Figure]:
    """What came of the frames, with its bounds."""
    return [
        Figure("frames thrown at nodes", fuzzed.frames, "", f">= {FRAMES}", fuzzed.frames >= FRAMES),
        Figure("of them answered by hanging up", fuzzed.hung_up),
        Figure("of them messages after all", fuzzed.accepted),
        Figure("exceptions out of a node", len(fuzzed.raised), "", "= 0", not fuzzed.raised),
        Figure("limits broken", len(fuzzed.grown), "", "= 0", not fuzzed.grown),
        Figure(
            "growth of a process's resident memory", fuzzed.resident_growth / 2**20, "MB",
            f"<= {GROWTH_BYTES_MAX // 2**20}", fuzzed.resident_growth <= GROWTH_BYTES_MAX,
        ),
    ]  # fmt: skip
