"""What `make show NAME=join` counts, and that it would notice."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from typing import Any

import pytest

from bench.show import join
from bench.show.join import Found, Joined, Times, judged, missing, share_of
from sessile.replication.placement import Place, Placement

JOINED = Joined(answer_s=0.1, hold_s=1.2, share=100_000, meanwhile=Times([0.002]))
GOOD = Found(Times([0.001]), [JOINED] * 3, 100_000)


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        (GOOD, True),
        (replace(GOOD, sessions=99_999), False),
        (replace(GOOD, joined=[replace(JOINED, answer_s=0.51)] * 3), False),
        (replace(GOOD, joined=[JOINED, JOINED, replace(JOINED, hold_s=2.0)]), True),
        (replace(GOOD, joined=[replace(JOINED, hold_s=1.7)] * 3), False),
        (replace(GOOD, joined=[replace(JOINED, share=0)]), False),
        (replace(GOOD, joined=[JOINED, replace(JOINED, missing=1)]), False),
        (replace(GOOD, before=Times([0.001], failed=1)), False),
        (replace(GOOD, joined=[replace(JOINED, meanwhile=Times([0.002], failed=1))]), False),
    ],
)
def test_each_bound_is_judged(found: Found, holds: bool) -> None:  # noqa: FBT001
    """Of times the median of the newcomers counts; of what is missing or failed, one is enough."""
    figures = judged("primary-backup", found)
    assert all(figure.holds for figure in figures if figure.holds is not None) is holds


def test_a_share_is_what_placement_says_and_all_of_it_is_looked_for() -> None:
    """What the newcomer lacks, or has otherwise than others, is missing; what is not its to hold is not."""
    names = ["a:1", "b:1", "c:1"]
    keys = [bytes([number] * 16).hex() for number in range(200)]
    placement = Placement("c:1", [Place(name, socket.gethostname()) for name in names], 2)
    mine = [key for key in keys if placement.is_holder(bytes.fromhex(key))]
    assert share_of("c:1", names, keys, "primary-backup") == len(mine)
    assert share_of("c:1", names, keys, "all-to-all") == 200
    others: list[dict[str, Any]] = [{key: [0, "x", True] for key in keys}]
    newcomer = {key: [0, "x", True] for key in mine}
    assert missing(newcomer, others, "c:1", names, "primary-backup") == 0
    del newcomer[mine[0]]
    newcomer[mine[1]] = [0, "older", True]
    assert missing(newcomer, others, "c:1", names, "primary-backup") == 2


@pytest.mark.parametrize("strategy", ["all-to-all", "primary-backup"])
def test_a_few_sessions_are_joined(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real servers, smaller: everything is measured, nothing is missing, and nobody's request fails."""
    monkeypatch.setattr(join, "SESSIONS", 300)
    monkeypatch.setattr(join, "ROUNDS", 1)
    monkeypatch.setattr(join, "BEFORE_S", 0.2)
    monkeypatch.setattr(join, "AFTER_S", 0.2)
    found = asyncio.run(join.play(strategy, lambda _: None))
    (joined,) = found.joined
    assert (joined.missing, joined.meanwhile.failed, found.before.failed) == (0, 0, 0)
    assert joined.answer_s > 0 and joined.hold_s > 0 and joined.share >= 100 and found.sessions >= 300
    assert found.before.taken_s and joined.meanwhile.taken_s
