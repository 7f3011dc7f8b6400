"""What a promise found, as text, as JSON, and saved under `bench/results/`.

Judges nothing: whether a bound holds was said by whoever measured it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.show import Figure, Shown

RESULTS = Path(__file__).resolve().parent / "results"
HEADINGS = ("figure", "value", "bound", "", "peer", "")
VERDICTS = {True: "holds", False: "FALLS SHORT", None: ""}


def verdict(*, holds: bool) -> str:
    """The last word on a promise."""
    return "HOLDS" if holds else "FALLS SHORT"


def number(value: float) -> str:
    """Three figures that mean something, and all digits of what is counted."""
    if value == int(value):
        return f"{int(value):,}".replace(",", " ")
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def row(figure: Figure) -> tuple[str, ...]:
    """The cells of one figure, under `HEADINGS`."""
    value = " ".join(filter(None, (number(figure.value), figure.unit)))
    peer_value = "" if figure.peer_value is None else " ".join(filter(None, (number(figure.peer_value), figure.unit)))
    return figure.name, value, figure.bound, VERDICTS[figure.holds], figure.peer, peer_value


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns; a column in which nothing stands takes no room."""
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def text(shown: Shown) -> str:
    """The figures, the notes and the verdict of one promise."""
    lines = table([HEADINGS, *map(row, shown.figures)])
    return "\n".join([*lines, *(f"- {note}" for note in shown.notes), f"{shown.name}: {verdict(holds=shown.holds)}"])


def texts(all_shown: Sequence[Shown]) -> str:
    """The figures of several promises as one table, and a verdict for each."""
    rows = [("promise", *HEADINGS), *((shown.name, *row(figure)) for shown in all_shown for figure in shown.figures)]
    notes = [f"- {shown.name}: {note}" for shown in all_shown for note in shown.notes]
    verdicts = [f"{shown.name}: {verdict(holds=shown.holds)}" for shown in all_shown]
    return "\n".join([*table(rows), *notes, *verdicts])


def as_data(shown: Shown) -> dict[str, object]:
    """Everything that was found, and on what kind of machine, as plain JSON values."""
    return {
        "name": shown.name,
        "holds": shown.holds,
        "figures": [dataclasses.asdict(figure) for figure in shown.figures],
        "notes": shown.notes,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
    }


def save(shown: Shown, folder: Path = RESULTS) -> Path:
    """Write what was found as `NAME.json`; the newest replaces the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{shown.name}.json"
    path.write_text(json.dumps(as_data(shown), indent=2) + "\n")
    return path
