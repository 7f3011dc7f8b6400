"""The recorded seeds, and what each of them found."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["RECORDED"]

_LINES: Final = (Path(__file__).resolve().parent / "seeds.txt").read_text().splitlines()
RECORDED: Final = {int(line.split()[0]): line.split(maxsplit=1)[1] for line in _LINES if line[:1].isdigit()}
"""Seed → what was wrong."""
