"""What `make show NAME=store-cost` counts, and that it would notice."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench import session_cost, store_cost
from bench.redis_server import redis_server
from bench.show import CannotShow
from bench.show.store_cost import judge_cpu, judge_many, judge_trips, show_bytes
from bench.store_cost import ALLOWANCE_BYTES, BYTES_MAX, STORED_BY, WANTED_TRIPS, Many, Redis, Stored

if TYPE_CHECKING:
    from bench.show import Figure

GOOD = Many(
    sessions=1_000,
    kept=1_000,
    key_bytes=400.0,
    grown_bytes=480.0,
    resident_bytes=BYTES_MAX + ALLOWANCE_BYTES,
    held_bytes=BYTES_MAX,
    evicted=1,
    sample=100,
    returned=100,
    seconds=1.0,
)


def holds(figures: list[Figure]) -> bool:
    return all(figure.holds for figure in figures if figure.holds is not None)


@pytest.mark.parametrize("kind", WANTED_TRIPS)
def test_one_trip_more_or_less_is_noticed(kind: str) -> None:
    """Also one of very many, and a kind that was not counted."""
    wanted = {name: float(trips) for name, trips in WANTED_TRIPS.items()}
    assert holds(judge_trips(wanted))
    for planted in (wanted[kind] + 0.002, wanted[kind] - 0.002):
        assert not holds(judge_trips({**wanted, kind: planted}))
    del wanted[kind]
    assert not holds(judge_trips(wanted))


@pytest.mark.parametrize(
    "planted",
    [
        {"kept": 999},
        {"held_bytes": BYTES_MAX + 1},
        {"resident_bytes": BYTES_MAX + ALLOWANCE_BYTES + 1},
        {"evicted": 0},
        {"returned": 99},
        {"returned": 0, "sample": 0},
    ],
)
def test_a_server_beyond_its_limit_is_noticed(planted: dict[str, int]) -> None:
    """So is a session that is not there, and a run so small that nothing had to make room."""
    assert holds(judge_many(GOOD))
    assert not holds(judge_many(replace(GOOD, **planted)))


def test_a_read_that_costs_more_than_a_peers_is_noticed() -> None:
    """The cheapest peer's counts, round by round."""

    def rounds(ours_us: float) -> session_cost.Rounds:
        each = dict(zip(STORED_BY, (ours_us, 300.0, 200.0, 400.0), strict=True))
        kinds = {name: {"added_cpu_us": us, "base_cpu_us": 1.0} for name, us in each.items()}
        return {name: [{"read": kind, "write": kind}] * 3 for name, kind in kinds.items()}

    cheap, dear = judge_cpu(rounds(100.0)), judge_cpu(rounds(201.0))
    assert holds(cheap) and not holds(dear)
    assert (cheap[0].value, cheap[0].peer) == (0.5, "Flask-Session on Redis")


def test_bytes_stand_beside_every_peers() -> None:
    """They are shown, and judged by nobody."""
    figures = show_bytes({name: Stored(100.0 + at, 200.0) for at, name in enumerate(STORED_BY)})
    assert [figure.peer_value for figure in figures[::2]] == [101.0, 102.0, 103.0]
    assert all(figure.holds is None for figure in figures)


@pytest.mark.needs("redis-server")
def test_trips_are_counted_on_a_real_redis() -> None:
    """The promise, with a few sessions."""
    with redis_server() as port:
        assert asyncio.run(store_cost.count_trips(port, 20)) == WANTED_TRIPS


@pytest.mark.needs("redis-server")
def test_a_trip_too_many_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that ask each time whether a copy is current make one for every read."""
    monkeypatch.setenv("SESSILE_CACHE", "checked")
    with redis_server() as port:
        counted = asyncio.run(store_cost.count_trips(port, 20))
    assert counted["held read"] == counted["held read after a miss"] == 1
    assert not holds(judge_trips(counted))


@pytest.mark.needs("redis-server")
def test_many_sessions_in_little_memory() -> None:
    """A small version of the whole: all are kept, some made room, everybody finds theirs."""
    said: list[str] = []
    many = store_cost.fill_elsewhere(3_000, 1_000_000, said.append)
    assert holds(judge_many(many, 1_000_000)), many
    assert 300 < many.key_bytes < 600


@pytest.mark.needs("redis-server")
def test_sessions_are_stored_by_ours_and_their_bytes_are_told() -> None:
    """The same content as the peers store."""
    stored = store_cost.store_by(STORED_BY[0], 300)
    assert 300 < stored.key_bytes < 600


@pytest.mark.needs("redis-server")
def test_a_redis_tells_of_itself() -> None:
    """Numbers, bytes, nothing and errors come as what they are."""
    with redis_server() as port:
        redis = Redis(port)
        assert redis.ask("SET", "k", b"\x00\r\n") == b"OK"
        assert (redis.ask("GET", "k"), redis.ask("GET", "l"), redis.ask("DBSIZE")) == (b"\x00\r\n", None, 1)
        assert redis.used_memory() > redis.key_bytes(2) > 0
        redis.close()


def test_a_session_that_is_not_there_is_no_cheap_read() -> None:
    """Reading nothing costs nothing, and says nothing."""
    with pytest.raises(CannotShow):
        store_cost.read({})  # type: ignore[arg-type]
