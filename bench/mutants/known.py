"""The baseline of each test, without an edit: how long it takes, and which functions it runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Key", "Known", "load", "save"]

Key = tuple[str, int]
"""A function: its file, relative to the tree, and its first line."""


@dataclass(frozen=True, slots=True)
class Known:
    """One test, with the code as it is."""

    seconds: float
    passed: bool
    runs: frozenset[Key]


def save(path: Path, known: dict[str, Known]) -> str:
    """Write the baseline to a file; returns an empty text."""
    path.write_text(json.dumps({name: [each.seconds, each.passed, sorted(each.runs)] for name, each in known.items()}))
    return ""


def load(path: Path) -> dict[str, Known]:
    """Read the baseline from a file."""
    return {
        name: Known(seconds, passed, frozenset((file, line) for file, line in runs))
        for name, (seconds, passed, runs) in json.loads(path.read_text()).items()
    }
