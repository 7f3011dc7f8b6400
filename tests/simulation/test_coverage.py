"""What came up, and under which fault."""

from __future__ import annotations

from sessile.replication.messages import Beat, Goodbye
from sessile.replication.wire import LENGTH_BYTES, encode
from sessile.simulation.coverage import MESSAGES, Coverage
from sessile.simulation.options import FAULTS


def frame(message: Beat | Goodbye) -> bytes:
    return encode(message)[LENGTH_BYTES:]


def test_messages_are_counted_under_every_fault_at_work() -> None:
    """Several at once count for each; none counts as none; what is no message is not counted."""
    coverage = Coverage()
    crashes, pauses = 1 << FAULTS.index("crashes"), 1 << FAULTS.index("pauses")
    coverage.came([frame(Beat(1)), frame(Goodbye())], crashes | pauses)
    coverage.came([frame(Beat(1)), b"\xc0", b"\x90"], 0)
    cells = coverage.cells()
    assert (
        cells["Beat", "crashes"]
        == cells["Beat", "pauses"]
        == cells["Goodbye", "pauses"]
        == cells["Beat", "no fault"]
        == 1
    )
    assert sum(cells.values()) == 5


def test_coverage_adds_up_and_shows() -> None:
    """Of many runs; the table has a line for every message."""
    one, other = Coverage(), Coverage()
    one.came([frame(Beat(1))], 0)
    other.came([frame(Beat(1))], 0)
    other.counts["runs"] += 1
    one.add(other)
    assert one.cells()["Beat", "no fault"] == 2 and one.counts["runs"] == 1
    assert all(name in one.table() for name in (*MESSAGES.values(), *FAULTS))
