"""`core-speed`: what the replication core spends on a change and on a read, and that its own tests reach every branch."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import core_speed
from bench.show import CannotShow, Figure, Progress, Shown

SUMMARY = "A change costs its other holder at most 13 µs and a read at a holder at most 8; tests reach every branch of the core."
MEASURES = True

APPLIED_US_MAX = 13.0
READ_US_MAX = 8.0
TOMCAT_PEER_US = 78.0
STARLETTE_READ_US = 19.4
ROOT = Path(__file__).resolve().parent.parent.parent
NOTES = [
    "CPU in process, medians of five rounds; no sockets, no event loop: frames are encoded and decoded, tables are real",
    "13 µs is a sixth of what one more synchronous replica costs all of Tomcat's servers together (106 less 28 µs a write)",
    "8 µs is 0.4 of what Starlette's signed cookie adds to a read (19.4 µs); both peers' figures from another machine's runs",
    "branches: record.py and replication/ under tests/test_record*.py, tests/test_delta.py and tests/replication/ alone",
]


def run(progress: Progress) -> Shown:
    """Measure, then run the core's own tests under coverage."""
    costs = core_speed.measure(progress)
    return Shown("core-speed", [*judged(costs), branches(progress)], NOTES)


def judged(costs: core_speed.Costs) -> list[Figure]:
    """The costs, with their bounds."""
    return [
        Figure(
            "a change applied at a holder, eight a read", costs.applied, "µs", f"<= {APPLIED_US_MAX:g}",
            costs.applied <= APPLIED_US_MAX, "Tomcat, a replica more", TOMCAT_PEER_US,
        ),
        Figure("a change applied at a holder, alone", costs.applied_alone, "µs"),
        Figure("a change sent by its writer", costs.pushed, "µs"),
        Figure("its acknowledgement taken", costs.acknowledged, "µs"),
        Figure("all of it, for one copy", costs.pushed + costs.applied + costs.acknowledged, "µs"),
        Figure(
            "a read at a holder", costs.read, "µs", f"<= {READ_US_MAX:g}", costs.read <= READ_US_MAX,
            "Starlette's cookie", STARLETTE_READ_US,
        ),
    ]  # fmt: skip


def branches(progress: Progress) -> Figure:
    """The share of branches and lines of the core that its own tests reach."""
    progress("running the core's tests under coverage")
    with tempfile.TemporaryDirectory(prefix="sessile-coverage-") as folder:
        data, report = Path(folder, "data"), Path(folder, "report.json")
        tests = [str(path) for path in sorted(ROOT.glob("tests/test_record*.py"))]
        tests += [str(ROOT / "tests" / "test_delta.py"), str(ROOT / "tests" / "replication")]
        include = f"{ROOT}/src/sessile/record.py,{ROOT}/src/sessile/replication/*"
        command = [sys.executable, "-m", "coverage"]
        at = [f"--data-file={data}"]
        ran = subprocess.run(
            [*command, "run", "--branch", f"--include={include}", *at, "-m", "pytest", "-q", *tests],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if ran.returncode:
            raise CannotShow(f"the core's tests do not pass: {ran.stdout.strip().splitlines()[-1:]}")
        reported = [*command, "json", f"--include={include}", *at, "-o", str(report)]
        subprocess.run(reported, cwd=ROOT, capture_output=True, check=True)
        totals = json.loads(report.read_text())["totals"]
    percent = totals["percent_covered"]
    return Figure("branches and lines of the core reached by its own tests", percent, "%", "= 100", percent == 100)
