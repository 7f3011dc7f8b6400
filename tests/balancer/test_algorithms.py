"""Where requests without a home are placed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest

from sessile.balancer.algorithms import ALGORITHMS


@dataclass
class Fake:
    name: str
    weight: int = 1
    active: int = 0


def counts(name: str, servers: list[Fake], times: int = 4000) -> Counter[str]:
    algorithm = ALGORITHMS[name](Random(7))
    return Counter(algorithm.pick(servers, b"%d" % number).name for number in range(times))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_equal_servers_share_equally(name: str) -> None:
    """Among equals everybody gets about the same."""
    got = counts(name, [Fake(f"s{n}") for n in range(4)])
    assert len(got) == 4 and all(850 < count < 1150 for count in got.values())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_one_server_gets_all(name: str) -> None:
    """A single candidate is always the choice."""
    assert counts(name, [Fake("s1")], 5) == {"s1": 5}


@pytest.mark.parametrize("name", ["weighted", "rendezvous"])
def test_weights_count(name: str) -> None:
    """A server of weight 3 gets three times as much."""
    got = counts(name, [Fake("s1", 3), Fake("s2", 1)])
    assert 2850 < got["s1"] < 3150


def test_weighted_does_not_burst() -> None:
    """Smooth: the heavy server's turns are spread, as published for 5, 1, 1."""
    algorithm = ALGORITHMS["weighted"](Random(1))
    servers = [Fake("a", 5), Fake("b"), Fake("c")]
    assert "".join(algorithm.pick(servers, b"").name for _ in range(7)) == "aabacaa"


def test_least_connections() -> None:
    """The least busy for its weight is chosen."""
    algorithm = ALGORITHMS["least-connections"](Random(1))
    assert {algorithm.pick([Fake("a", 1, 3), Fake("b", 1, 2)], b"").name for _ in range(5)} == {"b"}
    assert {algorithm.pick([Fake("a", 4, 3), Fake("b", 1, 2)], b"").name for _ in range(5)} == {"a"}


def test_two_choices_never_takes_the_busiest() -> None:
    """Of two drawn the less busy: the busiest of three is never chosen, the idlest most often."""
    got = Counter(
        ALGORITHMS["two-choices"](Random(seed)).pick([Fake("a", 1, 9), Fake("b", 1, 5), Fake("c", 1, 1)], b"").name
        for seed in range(300)
    )
    assert got["a"] == 0 and got["c"] > got["b"] > 0


def test_rendezvous_moves_only_the_keys_of_the_one_that_left() -> None:
    """A key keeps its server whoever else comes or goes."""
    algorithm = ALGORITHMS["rendezvous"](Random(1))
    servers = [Fake(f"s{n}") for n in range(5)]
    before = {key: algorithm.pick(servers, b"%d" % key).name for key in range(500)}
    after = {key: algorithm.pick(servers[1:], b"%d" % key).name for key in range(500)}
    assert all(before[key] == after[key] for key in before if before[key] != "s0")
