"""`races`: seven ways in which requests of one session go wrong, over every strategy and store, and over the peers.

Each is one fixed interleaving: a request waits inside its handler while another one begins and ends. Ours run in this
process, three servers behind the ASGI middleware, on real sockets or a real store; each peer runs in its own environment, on
a real Redis or in its own database.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench import environments
from bench.races.hazards import HAZARDS, NO_API, play_all
from bench.races.ours import OURS, site_of
from bench.redis_server import redis_server
from bench.show import CannotShow, Figure, Progress, Shown

if TYPE_CHECKING:
    from collections.abc import Mapping

SUMMARY = "Overlapping requests of one session lose nothing and bring nothing back, whatever keeps it: seven hazards, all safe."
PROGRAMS = ("redis-server",)

WITHIN_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Peer:
    """Another library; `name` is what `bench.races.peer` knows it by."""

    name: str
    label: str
    environment: str
    redis: tuple[int, int] = (0, 0)
    """The Redis that it needs at least."""


PEERS: Final = (
    Peer("starsessions", "starsessions 2.2.1, Redis", "starsessions"),
    Peer("flask-session", "Flask-Session 0.8.0, Redis", "flask"),
    Peer("django-cache", "Django 5.2, cache on Redis", "django"),
    Peer("django-db", "Django 5.2, database", "django"),
    Peer("litestar", "Litestar 2.25.0, Redis", "litestar"),
    Peer("fastapi-redis", "fastapi-redis-sdk 0.9.1", "fastapi-redis", (7, 4)),
)


def went_wrong(found: Mapping[str, str]) -> dict[str, str]:
    """What of it is a defect: a library that has no way to do something cannot do it wrong."""
    return {name: wrong for name, wrong in found.items() if wrong not in {"", NO_API}}


def judge_ours(name: str, found: Mapping[str, str]) -> Figure:
    """Every hazard was played, and all are safe."""
    wrong = len(went_wrong(found)) + len(HAZARDS.keys() - found.keys())
    return Figure(f"Sessile, {name}: hazards not safe, of {len(HAZARDS)}", wrong, "", "= 0", not wrong)


def row(label: str, found: Mapping[str, str]) -> str:
    """Everything that was found, as a line."""
    return f"{label}: " + "; ".join(f"{name} {found.get(name, 'NOT PLAYED') or 'ok'}" for name in HAZARDS)


def redis_version(port: int) -> tuple[int, int]:
    """The version of a Redis, as far as it decides who can use it."""
    with socket.create_connection(("127.0.0.1", port), timeout=10.0) as link:
        link.sendall(b"INFO server\r\n")
        said = link.recv(1 << 16).decode()
    major, minor = said.partition("redis_version:")[2].split(".")[:2]
    return int(major), int(minor)


def play_peer(peer: Peer, redis_port: int) -> dict[str, str]:
    """All hazards, in the peer's own process and environment; `CannotShow` with the reason where that cannot be."""
    if (version := redis_version(redis_port)) < peer.redis:
        wanted, there = (".".join(map(str, each)) for each in (peer.redis, version))
        raise CannotShow(f"it needs Redis {wanted}, and here is {there}")
    done = subprocess.run(
        [str(environments.python_of(peer.environment)), "-m", "bench.races.peer", peer.name, str(redis_port)],
        cwd=environments.ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise CannotShow(f"it ended with status {done.returncode}: {' '.join(last)}")
    found: dict[str, str] = json.loads(done.stdout)
    return found


def run(progress: Progress) -> Shown:
    """Play everything once: the interleavings are fixed, so once is enough."""
    figures: list[Figure] = []
    rows: list[str] = []
    for ours in OURS:
        progress(f"Sessile, {ours.name}")
        with site_of(ours) as site:
            found = play_all(site)
        figures.append(judge_ours(ours.name, found))
        rows.append(row(f"Sessile, {ours.name}", found))
    for peer in PEERS:
        progress(peer.label)
        try:
            with redis_server() as port:
                found = play_peer(peer, port)
        except CannotShow as reason:
            rows.append(f"{peer.label}: NOT RUN: {reason}")
            continue
        figures.append(Figure(f"{peer.label}: hazards not safe, of {len(HAZARDS)}", len(went_wrong(found))))
        rows.append(row(peer.label, found))
    return Shown("races", figures, [*_NOTES, *rows])


_NOTES: Final = [
    "T1 two overlapping writers of different fields; T2 slow writer after a logout; T3 unknown id; T4 old id after a login",
    "T5 slow reader and a writer; T6 a request that needs no session; T8 slow writer after a login",
    "a change that is refused (400, 409) is safe; one answered with 200 that is nowhere is not",
    "a rotated session of ours may be looked at for `rotation_grace`, here 1 s: of after the login it shows nothing",
    "ours: 3 servers behind the ASGI middleware (sticky: 1), slow and quick requests at different ones, read at all",
    "requests are held in handlers only: what happens between a library's own steps, as in save() of Django's cache, is not played",
]
