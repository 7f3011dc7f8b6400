"""What `make show NAME=exact-round-robin` counts, and that it would notice."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from bench.browser import Browser
from bench.show import exact_round_robin
from bench.show.exact_round_robin import (
    Counted,
    Gathered,
    count_up,
    increments_in,
    judge_counted,
    judge_gathered,
    judge_late,
    set_to,
    values_in,
    write_in_parallel,
)
from tests.bench.strategies import with_redis

if TYPE_CHECKING:
    from bench.show import Figure

PORTS = {"s1": 1, "s2": 2, "s3": 3}
ALL = dict.fromkeys(PORTS, 20)


def counted(failed: int = 0, wrong: int = 0, servers: str = "s1 s2 s3", **last: int) -> Counted:
    return Counted(20, failed, wrong, set(servers.split()), ALL | last)


def holds(figures: list[Figure]) -> bool:
    return all(figure.holds for figure in figures if figure.holds is not None)


@pytest.mark.parametrize(
    "planted",
    [
        counted(failed=1),
        counted(wrong=1),
        counted(servers="s1 s2"),
        counted(s3=19),
        counted(s3=21),
        Counted(20, servers=set(PORTS)),
    ],
)
def test_one_count_less_or_more_is_noticed(planted: Counted) -> None:
    """A failed request, a wrong answer, a server that was never asked, one that shows another number, or none read."""
    assert holds(judge_counted("all-to-all", "counts", counted()))
    assert not holds(judge_counted("all-to-all", "counts", planted))


@pytest.mark.parametrize(
    "planted",
    [Gathered(20, 1, ALL), Gathered(20, 0, ALL | {"s2": 19}), Gathered(20, 0, {"s1": 20, "s2": 20}), Gathered(20)],
)
def test_one_write_that_one_server_lacks_is_noticed(planted: Gathered) -> None:
    """So is a failed request, and a server that was not looked at."""
    assert holds(judge_gathered("primary-backup", "values", Gathered(20, 0, ALL)))
    assert not holds(judge_gathered("primary-backup", "values", planted))


def test_what_is_changed_after_the_head_is_held_to_its_promise() -> None:
    """It must be exact where every holder confirms; where one does, what is lost is only shown."""
    assert not holds(judge_late("all-to-all", counted(s1=19), "ack=all"))
    assert holds(judge_late("all-to-all", counted(s1=19), "ack=one"))
    assert not holds(judge_late("all-to-all", counted(failed=1), "ack=one"))
    assert not holds(judge_late("store", counted(s1=19), "cache=checked"))


def test_only_what_was_written_counts() -> None:
    """A field with another's value is no write that was kept; the first field of a session is none of them."""
    assert values_in({"begun": "", "0-1": "0-1", "0-2": "0-1"}) == 1
    assert (increments_in({"begun": "", "n": 3}), increments_in({})) == (3, 0)


@pytest.mark.parametrize(
    ("answers", "wrong", "lost"),
    [([1, 2, 3, 4], 0, 0), ([1, 2, 2, 3], 1, 1), ([1, 0, 0, 1], 2, 3), ([1, 2, 3, 5], 1, -1)],
)
def test_every_answer_is_compared_with_the_one_before(
    monkeypatch: pytest.MonkeyPatch, answers: list[int], wrong: int, lost: int
) -> None:
    """A lost update is one wrong answer, however many follow it; the end is read at every server."""
    told = iter(answers)
    last = 0

    async def ask(browser: Browser, method: str, path: str) -> tuple[int, Any]:
        del browser
        nonlocal last
        if path.startswith("/api/count"):
            last = next(told)
        assert method == ("GET" if path == "/api/session" else "POST")
        return 200, {"server": "s1", "fields": {"n": last} if last else {}}

    monkeypatch.setattr(Browser, "ask", ask)
    found = asyncio.run(count_up(0, PORTS, len(answers)))
    assert (found.failed, found.wrong, found.lost, found.servers) == (0, wrong, lost, {"s1"})


def test_a_server_that_shows_less_is_found_among_parallel_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third server shows half of every session; a refused request counts as failed."""
    monkeypatch.setattr(exact_round_robin, "SETTLE_S", 0)
    fields = {f"{turn}-{place}": f"{turn}-{place}" for turn in range(2) for place in range(8)}
    half = dict(list(fields.items())[:8])

    async def ask(browser: Browser, method: str, path: str) -> tuple[int, Any]:
        if method == "GET":
            return 200, {"fields": half if browser.port == 3 else fields}
        return (500 if path == "/api/set?name=1-7&value=1-7" else 200), None

    monkeypatch.setattr(Browser, "ask", ask)
    gathered = asyncio.run(
        write_in_parallel(PORTS, sessions=3, rounds=2, path=exact_round_robin.value_path, found_in=values_in)
    )
    assert (gathered.requests, gathered.failed, gathered.missing) == (48, 3, 24)
    assert gathered.found == {"s1": 48, "s2": 48, "s3": 24}


def test_a_setting_of_a_demo_is_one_of_its_environment() -> None:
    """And of that demo's only."""
    with set_to("ack=all"):
        assert os.environ["SESSILE_ACK"] == "all"
    assert "SESSILE_ACK" not in os.environ


@pytest.mark.parametrize("strategy", with_redis(exact_round_robin.STRATEGIES))
def test_the_promise_holds_for_a_few_sessions(monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
    """The whole of it on real processes, smaller: it is shown, and every bounded figure was measured."""
    for name, value in {"COUNTS": 30, "SESSIONS": 6, "COUNTED_SESSIONS": 3, "COUNTED_ROUNDS": 2}.items():
        monkeypatch.setattr(exact_round_robin, name, value)
    monkeypatch.setattr(exact_round_robin, "STRATEGIES", (strategy,))
    said: list[str] = []
    shown = exact_round_robin.run(said.append)
    assert shown.holds, [figure for figure in shown.figures if figure.holds is False]
    assert sum(figure.holds is not None for figure in shown.figures) == 17
    assert len(said) == 6
