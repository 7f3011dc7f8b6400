"""What is done to servers, and when all is well with one."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any, cast

import pytest

from bench.history import harm as harm_module
from bench.history.harm import Harm, Trouble
from bench.show import CannotShow

if TYPE_CHECKING:
    from bench.running import Running


class Told:
    """A demo that only notes what it is told."""

    def __init__(self, *, becomes_whole: bool = True) -> None:
        self.acts: list[tuple[str, str]] = []
        self._becomes_whole = becomes_whole

    async def server_ports(self) -> dict[str, int]:
        return {"s1": 1, "s2": 2}

    async def act(self, name: str, action: str) -> dict[str, Any]:
        self.acts.append((name, action))
        return {}

    async def until_whole(self, within_s: float) -> bool:
        assert within_s > 0
        return self._becomes_whole


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harm_module, "AWAY_S", (0.0, 0.0))
    monkeypatch.setattr(harm_module, "REPAIRED_S", 0.0)


def do(told: Told) -> Harm:
    harm = Harm()
    times = iter(range(0, 1_000, 10))
    asyncio.run(harm.do(cast("Running", told), ("kill", "pause"), Random(1), lambda: next(times)))
    return harm


def test_one_server_after_the_other_is_harmed_and_comes_back() -> None:
    """A killed one is started again, a stopped one goes on; both are noted with their times."""
    told = Told()
    harm = do(told)
    first, second = harm.troubles
    assert told.acts == [
        (first.server, "kill"),
        (first.server, "restart"),
        (second.server, "pause"),
        (second.server, "resume"),
    ]
    assert [(trouble.began_ms, trouble.ended_ms) for trouble in harm.troubles] == [(0, 10), (20, 30)]


def test_servers_that_do_not_find_each_other_again_are_no_history() -> None:
    """What would be found then is nobody's promise."""
    with pytest.raises(CannotShow, match="not whole again"):
        do(Told(becomes_whole=False))


@pytest.mark.parametrize(
    ("server", "now_ms", "until_ms", "calm_ms"),
    [
        ("s1", 90, 95, 90 + 1_000_000),
        ("s1", 90, 100, 0),
        ("s1", 150, 160, 0),
        ("s1", 200, 210, 0),
        ("s1", 250, 260, 50),
        ("s1", 250, 400, 0),
        ("s2", 150, 160, 150 + 1_000_000),
    ],
)
def test_all_is_well_with_a_server_outside_of_its_troubles(
    server: str, now_ms: int, until_ms: int, calm_ms: int
) -> None:
    """What begins before an answer is there counts; what happens to others does not."""
    harm = Harm()
    harm.troubles += [Trouble("s1", "kill", 100, 200), Trouble("s1", "pause", 400)]
    assert harm.calm_for_ms(server, now_ms, until_ms) == calm_ms
