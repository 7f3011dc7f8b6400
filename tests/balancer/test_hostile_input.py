"""Hostile input at the real balancer, the fast part: all vectors, some mutations, all lies of a server, a few slow clients.

`make show NAME=hostile-input` runs the same with thousands.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from bench.hostile import campaign

if TYPE_CHECKING:
    from pathlib import Path

SEED = 11
MUTATIONS = 200


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> tuple[campaign.AtTheBalancer, campaign.Logs]:
    logs = campaign.Logs()
    folder = tmp_path_factory.mktemp("hostile")
    trial = campaign.at_the_balancer(
        folder, logs, lambda line: None, seed=SEED, mutated=MUTATIONS, slow_each=3, crowds=1, warm_up=10
    )
    return asyncio.run(trial), logs


def told(guilts: list[object]) -> str:
    return "\n".join(map(str, guilts))


def test_no_vector_is_misread(tried: tuple[campaign.AtTheBalancer, campaign.Logs]) -> None:
    """Every vector is refused unseen by a server, or reaches it as the rules say and all parsers read alike."""
    for vectors in (tried[0].vectors, tried[0].passed_on):
        assert not vectors.guilts, told([*vectors.guilts])
        assert vectors.cases > 200
    assert tried[0].vectors.cases > 400


def test_no_mutation_is_misread(tried: tuple[campaign.AtTheBalancer, campaign.Logs]) -> None:
    """Nor is a mutation of one; and valid requests pass, however they are cut into pieces."""
    mutated = tried[0].mutated
    assert not mutated.guilts, told([*mutated.guilts])
    assert mutated.cases == MUTATIONS
    assert tried[0].unchanged_refused == 0
    assert mutated.forwarded
    assert mutated.refused


def test_no_lie_of_a_server_reaches_another_client(tried: tuple[campaign.AtTheBalancer, campaign.Logs]) -> None:
    """Whatever a server answers, those who did not ask for it get their own answers."""
    found = tried[0]
    assert not found.lied, told([*found.lied])
    assert found.answers > 160


def test_slow_clients_are_given_up_and_keep_nobody_waiting(
    tried: tuple[campaign.AtTheBalancer, campaign.Logs],
) -> None:
    """While they hang others are served; in the end all are gone, and their descriptors with them."""
    found = tried[0]
    for crowd in found.crowds:
        assert (crowd.given_up, crowd.served, crowd.wrong) == (crowd.slow, crowd.normal, [])
        assert crowd.hanging
    assert found.after.descriptors <= found.before.descriptors + campaign.SETTLED_WITHIN


def test_nothing_is_complained_of(tried: tuple[campaign.AtTheBalancer, campaign.Logs]) -> None:
    """No exception in the balancer's log, and it still runs."""
    assert tried[1].lines == []
    assert tried[1].processes == 2


def test_a_flood_is_held_at_the_limit(tmp_path: Path) -> None:
    """Connections beyond the limit for one address are refused, those before it served, and all is well after."""
    logs = campaign.Logs()
    seen = asyncio.run(campaign.at_the_gate(tmp_path, logs, limit=8, opened=12))
    assert (seen.served, seen.refused, seen.served_after) == (8, 4, 10)
    assert logs.lines == []


def test_sessions_survive_hostile_cookies_over_the_wire(tmp_path: Path) -> None:
    """A served application behind the balancer: no case opens another's session, none is complained of."""
    logs = campaign.Logs()
    trial, _ = asyncio.run(campaign.over_the_wire(tmp_path, logs, seed=SEED, cases=120))
    assert trial.guilts == []
    assert trial.statuses[200] > 50
    assert logs.lines == []
