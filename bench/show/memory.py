"""`memory`: what a held session takes, everything counted."""

from __future__ import annotations

from bench import memory
from bench.show import Figure, Progress, Shown

SUMMARY = "A held session of two fields, one of 100 characters, takes at most 450 bytes; 100 000 of them are held."
MEASURES = True

SESSIONS = 100_000
BYTES_MAX = 450
TOMCAT_BYTES = 1_204
NOTES = [
    "growth of a fresh process's resident memory, caches and timers and the allocator's waste included, per session",
    "garbage is collected and malloc_trim called before each of the two looks at the memory",
    "every session was created, read and changed by requests through the ASGI middleware",
    "Tomcat 10.1 with two attributes: 1 204 B where a session was made, 1 690 B where it was received (DeltaManager)",
    "Tomcat's figures are live heap by jmap, no allocator's waste in them, and were measured apart, not in this run",
]


def run(progress: Progress) -> Shown:
    """Hold the sessions in a process of their own and look."""
    taken = memory.measure(SESSIONS, progress)
    each = taken.resident_bytes / SESSIONS
    figures = [
        Figure(
            "resident memory per held session",
            each,
            "B",
            f"<= {BYTES_MAX}",
            each <= BYTES_MAX,
            peer="Tomcat DeltaManager",
            peer_value=TOMCAT_BYTES,
        ),
        Figure("sessions held", taken.sessions, "", f"= {SESSIONS}", taken.sessions == SESSIONS),
        Figure(
            "browsers of a sample that found their session again",
            taken.returned,
            "",
            f"= {taken.sample}",
            taken.returned == taken.sample,
        ),
        Figure("of it the record, by the engine's own count", taken.stats["bytes"] / SESSIONS, "B"),
    ]
    return Shown("memory", figures, NOTES)
