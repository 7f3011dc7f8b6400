"""What `make show NAME=limits` counts, and that it would notice."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from bench.show import limits
from bench.show.limits import Found, judge, judge_settings
from sessile.engine import WRITERS_RENEWED
from sessile.record import HELD_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

SERVER: dict[str, Any] = {
    "status": {"counts": {"protocol_errors": 1, "view_changes": 4}, "pulls": 0, "pushes": 0, "outstanding_bytes": 0},
    "sessions": 9,
    "bytes": 9_000,
    "resident_bytes": 2**26,
}
MOST = {"largest": 2**21, "fields": 4_096, "writers": WRITERS_RENEWED}


def good() -> Found:
    servers = [SERVER] * limits.SERVERS
    return deepcopy(
        Found(usual_s=[0.001] * 100, meanwhile_s=[0.002] * 100, before=servers, rounds=[servers] * 3, most=MOST)
    )


def holds(found: Found, *, is_store: bool = False) -> bool:
    return all(figure.holds for figure in judge(found, is_store=is_store) if figure.holds is not None)


def _change(found: Found, name: str, value: Any) -> None:
    """The last look, at one server."""
    found.rounds[-1] = deepcopy(found.rounds[-1])
    found.rounds[-1][1][name] = value


@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: setattr(found, "failed", 1),
        lambda found: setattr(found, "odd", 1),
        lambda found: found.meanwhile_s.extend([0.0021] * 100),
        lambda found: found.meanwhile_s.extend([0.003] * 2),
        lambda found: found.meanwhile_s.clear(),
        lambda found: found.most.update(largest=HELD_BYTES_MAX + 1),
        lambda found: found.most.update(writers=WRITERS_RENEWED + 1),
        lambda found: found.most.update(fields=8_194),
        lambda found: _change(found, "status", {"counts": {"protocol_errors": 2, "view_changes": 4}}),
        lambda found: _change(found, "status", {"counts": {"protocol_errors": 1, "view_changes": 5}}),
        lambda found: _change(found, "status", SERVER["status"] | {"outstanding_bytes": 2**20}),
        lambda found: _change(found, "sessions", 29),
        lambda found: _change(found, "bytes", 29_000),
        lambda found: _change(found, "resident_bytes", 2**27),
    ],
)
def test_one_harm_is_enough_to_break_the_promise(spoil: Callable[[Found], object]) -> None:
    """A request that failed, one in a hundred that took long, a link, a record beyond limits, or anything that grows."""
    found = good()
    assert holds(found)
    spoil(found)
    assert not holds(found)


def test_an_outage_of_the_store_breaks_it_as_well() -> None:
    """Servers on a store have no links; theirs is the store's."""
    found = good()
    assert holds(found, is_store=True)
    _change(found, "status", {"counts": {"outages": 1}})
    assert not holds(found, is_store=True)


def test_every_setting_is_tried() -> None:
    """At its bounds and beyond."""
    assert all(figure.holds for figure in judge_settings() if figure.holds is not None)


@pytest.mark.needs("redis-server")
def test_the_promise_holds_for_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of it on real processes, smaller. How long an answer takes on a busy machine is for the show to say."""
    monkeypatch.setattr(limits, "ROUNDS", 1)
    monkeypatch.setattr(limits, "USERS", 3)
    monkeypatch.setattr(limits, "REST_S", 0.1)
    monkeypatch.setattr(limits, "SETTLE_S", 0.1)
    monkeypatch.setattr(limits, "TAGS", 300)
    monkeypatch.setattr(limits, "TAGS_AT_ONCE", 100)
    monkeypatch.setattr(limits, "SLOW_S", 0.3)
    monkeypatch.setattr(limits, "TIMES_MAX", 1_000.0)
    monkeypatch.setattr(limits, "STRATEGIES", ("primary-backup", "redis"))
    said: list[str] = []
    shown = limits.run(said.append)
    assert shown.holds, [figure for figure in shown.figures if figure.holds is False]
    assert len(said) == 2
    reached = {
        figure.name.partition("reached: ")[2]: figure.value for figure in shown.figures if "reached" in figure.name
    }
    assert reached["fields of the session with most"] == 4_095
