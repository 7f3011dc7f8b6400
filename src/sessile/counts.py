"""What an engine counts, and what each count means: the names in `engine.stats()`."""

from __future__ import annotations

from typing import Final

__all__ = ["COUNTED", "GAUGES"]

GAUGES: Final = {
    "sessions": "sessions held now",
    "tombstones": "ended sessions that are held as tombstones now",
    "ends": "ended sessions of which only the end is remembered now",
    "bytes": "what sessions and tombstones take",
}
COUNTED: Final = {
    "created": "sessions made, new ids after a rotation included",
    "ended": "sessions ended by a handler",
    "rotated": "sessions that got a new id",
    "renewed": "sessions that got a new id because too many processes had written to them; also counted as rotated",
    "expired": "sessions that ran out of time here",
    "made_way": "anonymous sessions that were ended to make room for users who logged in",
    "touches": "idle clocks put back by a request that changed nothing",
    "conflicts": "requests whose changes were not stored, since the session had ended or got a new id",
    "late": "commits after the head of the response had left",
    "too_late": "calls that would need a new id after the head of the response had left; nothing was kept",
    "stale": "requests that had seen more than any holder has",
    "degraded": "changes that too few holders confirmed in time",
    "unavailable": "sessions that could not be told",
    "foreign": "cookies of our name that no secret of ours signed",
    "unknown_here": "valid ids that this process holds nothing for",
}
