"""`store-cost`: what a session in a store costs: trips, CPU beside the peers on the same Redis, bytes, a server's memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from bench import session_cost, store_cost
from bench.redis_server import redis_server
from bench.session_cost import CONTENDERS
from bench.show import Figure, Progress, Shown
from bench.store_cost import ALLOWANCE_BYTES, BYTES_MAX, SESSIONS, STORED_BY, WANTED_TRIPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.session_cost import Rounds
    from bench.store_cost import Many, Stored

SUMMARY = "A held and leased session makes no trip to its store, a miss one, a write one; memory stays in its limit."
MEASURES = True
PROGRAMS = ("redis-server",)

TRIP_SESSIONS: Final = 500
STORED_SESSIONS: Final = 20_000
ROUNDS: Final = 15
TURN_S: Final = 0.08
OURS, PEERS = STORED_BY[0], STORED_BY[1:]
LABELS: Final = {contender.name: contender.label for contender in CONTENDERS}


def judge_trips(counted: Mapping[str, float]) -> list[Figure]:
    """Each kind of request makes exactly as many as it must."""
    figures = []
    for kind, wanted in WANTED_TRIPS.items():
        found = counted.get(kind, -1.0)
        figures.append(Figure(f"trips of a request: {kind}", found, "", f"= {wanted}", found == wanted))
    return figures


def judge_cpu(rounds: Rounds) -> list[Figure]:
    """A leased read adds less than any peer's read on the same Redis; writes are told."""
    figures = []
    for kind in ("read", "write"):
        added = {name: session_cost.median(rounds[name], kind, "added_cpu_us") for name in STORED_BY}
        cheapest = min(PEERS, key=added.__getitem__)
        share = session_cost.ratio(rounds, OURS, cheapest, kind)
        figures.append(
            Figure(
                f"{kind}: CPU added, as a share of the cheapest peer's on Redis",
                share,
                "x",
                "< 1" if kind == "read" else "",
                share < 1 if kind == "read" else None,
                LABELS[cheapest],
                1.0,
            )
        )
        figures += [Figure(f"{kind}: {LABELS[name]}, CPU added", us, "us") for name, us in added.items()]
    return figures


def show_bytes(stored: Mapping[str, Stored]) -> list[Figure]:
    """Ours beside each peer's, for the same content."""
    ours = stored[OURS]
    figures = []
    for name in PEERS:
        there = stored[name]
        peer = LABELS[name]
        figures += [
            Figure("bytes of a session by MEMORY USAGE", ours.key_bytes, "B", peer=peer, peer_value=there.key_bytes),
            Figure("bytes by growth of used_memory", ours.grown_bytes, "B", peer=peer, peer_value=there.grown_bytes),
        ]
    return figures


def judge_many(many: Many, bytes_max: int = BYTES_MAX) -> list[Figure]:
    """All are in the store, and come back; the server holds no more than it may."""
    about = f"{many.sessions} sessions"
    limit, mib = bytes_max + ALLOWANCE_BYTES, 2**20
    return [
        Figure(f"{about}: in Redis", many.kept, "", f"= {many.sessions}", many.kept == many.sessions),
        Figure(f"{about}: bytes of one by MEMORY USAGE", many.key_bytes, "B"),
        Figure(f"{about}: bytes of one by growth of used_memory", many.grown_bytes, "B"),
        Figure(
            f"{about}: MiB held by the server's table",
            many.held_bytes / mib,
            "MiB",
            f"<= {bytes_max / mib:g}",
            many.held_bytes <= bytes_max,
        ),
        Figure(
            f"{about}: growth of the server's resident memory",
            many.resident_bytes / mib,
            "MiB",
            f"<= {limit / mib:g}",
            many.resident_bytes <= limit,
        ),
        Figure(f"{about}: copies that made room", many.evicted, "", "> 0", many.evicted > 0),
        Figure(
            f"{about}: of {many.sample} browsers that came back found theirs",
            many.returned,
            "",
            f"= {many.sample}",
            many.returned == many.sample > 0,
        ),
        Figure(f"{about}: begun in", many.seconds, "s"),
    ]


NOTES: Final = [
    "trips: two servers, each write of a server to a connection that carries sessions, counted in front of Redis",
    "a write at the other server asks first, since the one before it ended the lease, and then pushes",
    f"CPU: median of {ROUNDS} rounds as in session-cost, each contender in its own process, Redis on the other core",
    "bytes: the same five fields of 285 bytes as JSON; keys drawn at random; each contender in a Redis of its own",
    f"very many: one server with bytes_max={BYTES_MAX // 2**20} MiB; its process may take {ALLOWANCE_BYTES // 2**20} MiB more",
]


async def trips(redis_port: int) -> dict[str, float]:
    """What every kind of request makes."""
    return await store_cost.count_trips(redis_port, TRIP_SESSIONS)


def run(progress: Progress) -> Shown:
    """Everything, one after the other."""
    progress(f"trips of {TRIP_SESSIONS} sessions at two servers")
    with redis_server() as port:
        figures = judge_trips(asyncio.run(trips(port)))
    contenders = [each for each in CONTENDERS if each.name in STORED_BY]
    figures += judge_cpu(session_cost.measure(contenders, [], progress, rounds=ROUNDS, turn_s=TURN_S))
    stored = {}
    for name in STORED_BY:
        progress(f"{STORED_SESSIONS} sessions by {LABELS[name]}")
        stored[name] = store_cost.store_by(name, STORED_SESSIONS)
    figures += show_bytes(stored)
    progress(f"{SESSIONS} sessions by one server")
    return Shown("store-cost", [*figures, *judge_many(store_cost.fill_elsewhere(SESSIONS, BYTES_MAX, progress))], NOTES)
