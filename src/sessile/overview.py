"""What several servers together show: how they see each other, and what they hold and count as a whole.

It works on statuses as plain values, however they were asked for. Of each server: `name`, `state`, `node` (its name among the
members, empty where servers do not talk), `stats` (those of its engine) and `cluster` (those of its backend).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sessile.counts import COUNTED

__all__ = ["ANSWERING", "remarks", "sights", "totals"]

Server = Mapping[str, Any]

ANSWERING: Final = frozenset({"ready", "draining", "leaving"})
"""The states of a server whose figures are of this moment; of another they are the last that it told."""


def sights(servers: Sequence[Server]) -> dict[str, dict[str, str]]:
    """How each server sees the others: observer → seen → standing. A member that is no server here keeps its own name."""
    names = {server["node"]: server["name"] for server in servers if server.get("node")}
    return {
        server["name"]: {names.get(node, node): standing for node, standing in members.items()}
        for server in servers
        if (members := server["cluster"].get("members")) is not None
    }


def remarks(servers: Sequence[Server]) -> list[str]:
    """What those who answer see in another way than as alive, one sentence for each server that is seen so."""
    sight = sights(servers)
    observers = [server["name"] for server in servers if server["state"] in ANSWERING and server["name"] in sight]
    seen_by: dict[str, dict[str, list[str]]] = {}
    for observer in observers:
        for seen, standing in sight[observer].items():
            seen_by.setdefault(seen, {}).setdefault(standing, []).append(observer)
    told = []
    for seen in sorted(seen_by, key=lambda name: (len(name), name)):  # s10 comes after s9
        standings = seen_by[seen]
        if list(standings) == ["alive"]:
            continue
        if len(standings) == 1 and len(observers) > 2:
            told.append(f"{seen} is seen as {next(iter(standings))} by all others")
        else:
            told.append(f"{seen} is seen as " + ", ".join(f"{how} by {_and(who)}" for how, who in standings.items()))
    return told


def totals(servers: Sequence[Server]) -> dict[str, Any]:
    """All servers as one: distinct sessions, copies beyond the first, bytes, and what their engines counted.

    What an ended process had counted ended with it.
    """
    answering = [server for server in servers if server["state"] in ANSWERING]
    clusters = [server["cluster"] for server in answering if server["cluster"]]
    directories = [size for cluster in clusters if (size := cluster.get("directory")) is not None]
    held = [server["stats"].get("sessions", 0) for server in answering]
    if directories:
        sessions = max(directories)
    elif clusters:
        sessions = max(*held, sum(cluster.get("primary", 0) for cluster in clusters))
    else:
        sessions = sum(server["stats"].get("sessions", 0) for server in servers)
    return {
        "sessions": sessions,
        "copies": sum(cluster.get("backup", 0) + cluster.get("other", 0) for cluster in clusters),
        "directory": max(directories, default=None),
        "lag_ms": max((cluster.get("lag_ms", 0.0) for cluster in clusters), default=None),
        "bytes_sent": sum(server["cluster"].get("bytes_sent", 0) for server in servers),
        "bytes_received": sum(server["cluster"].get("bytes_received", 0) for server in servers),
        **{name: sum(server["stats"].get(name, 0) for server in servers) for name in COUNTED},
    }


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
