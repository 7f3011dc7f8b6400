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

ANSWERING: Final = frozenset({"ready", "draining", "leaving", "away"})
"""The states of a server whose figures are of this moment; of another they are the last that it told."""
_SILENT: Final = frozenset({"dead", "paused", "suspect", "stopped"})
"""The states of a server that serves nobody, or not now."""


def sights(servers: Sequence[Server]) -> dict[str, dict[str, str]]:
    """How each server sees the others: observer → seen → standing. A member that is no server here keeps its own name."""
    names = _names(servers)
    return {
        server["name"]: {names.get(node, node): standing for node, standing in members.items()}
        for server in servers
        if (members := server["cluster"].get("members")) is not None
    }


def remarks(servers: Sequence[Server]) -> list[str]:
    """What is not well, one sentence for each thing; empty while all is.

    Of servers that answer: who does not see another as alive, or has never met it; who does not know of another at all, or has
    another strategy; who does not reach its store, or is no member of its cluster. Of the others: that they do not answer.
    """
    standings = _standings(servers)
    return [
        *standings.values(),
        *_unmet(servers),
        *_strangers(servers),
        *_secrets(servers),
        *_strategies(servers),
        *_apart_from_store(servers),
        *(f"{server['name']} is {server['state']}" for server in servers if _is_silent(server, standings)),
    ]


def _is_silent(server: Server, told: Mapping[str, str]) -> bool:
    """Whether it serves nobody now and nothing was told of it; a server that drains or leaves does as it was told."""
    return server["state"] in _SILENT and server["name"] not in told


def _standings(servers: Sequence[Server]) -> dict[str, str]:
    """Who is seen in another way than as alive: name → a sentence."""
    sight = sights(servers)
    observers = [name for name in _answering(servers) if name in sight]
    seen_by: dict[str, dict[str, list[str]]] = {}
    for observer in observers:
        for seen, standing in sight[observer].items():
            seen_by.setdefault(seen, {}).setdefault(standing, []).append(observer)
    told = {}
    for seen in sorted(seen_by, key=lambda name: (len(name), name)):  # s10 comes after s9
        standings = seen_by[seen]
        if list(standings) == ["alive"]:
            continue
        if len(standings) == 1 and len(observers) > 2:
            told[seen] = f"{seen} is seen as {next(iter(standings))} by all others"
        else:
            told[seen] = f"{seen} is seen as " + ", ".join(f"{how} by {_and(who)}" for how, who in standings.items())
    return told


def _unmet(servers: Sequence[Server]) -> list[str]:
    """Members that some server should have met and never has, and why; those that have one reason in common as one."""
    names = _names(servers)
    observers: dict[tuple[str, str], list[str]] = {}
    for server in servers:
        if server["state"] in ANSWERING:
            for address, why in (server["cluster"].get("unmet") or {}).items():
                observers.setdefault((names.get(address, address), why), []).append(server["name"])
    return [f"{unmet} was never met by {_and(who)}: {why}" for (unmet, why), who in observers.items()]


def _strangers(servers: Sequence[Server]) -> list[str]:
    """Servers that were asked here and that others of them do not know of, though they all talk to somebody."""
    told = []
    talking = [one for one in servers if one["state"] in ANSWERING and one["cluster"].get("members") is not None]
    for server in talking:
        node = server.get("node")
        not_known_by = [
            other["name"]
            for other in talking
            if node
            and other.get("node") != node
            and node not in other["cluster"]["members"]
            and node not in (other["cluster"].get("unmet") or {})
        ]
        if not_known_by:
            told.append(f"{server['name']} is no member to {_and(not_known_by)}: see members= and me=")
    return told


def _secrets(servers: Sequence[Server]) -> list[str]:
    """Servers whose cookies others cannot read: whoever is sent from one to the other is logged out."""
    told = []
    having = [server for server in servers if server["state"] in ANSWERING and server.get("secrets")]
    for server in having:
        unread_by = [other["name"] for other in having if server["secrets"][0] not in other["secrets"]]
        if unread_by:
            told.append(
                f"{server['name']} signs cookies that {_and(unread_by)} cannot read: give every server the same secret "
                "(SESSILE_SECRET), cluster= and cookie_name="
            )
    return told


def _strategies(servers: Sequence[Server]) -> list[str]:
    """Servers of one service have one strategy."""
    using: dict[str, list[str]] = {}
    for server in servers:
        if server.get("strategy"):
            using.setdefault(server["strategy"], []).append(server["name"])
    if len(using) < 2:
        return []
    return [
        "the servers have different strategies: " + ", ".join(f"{how} at {_and(who)}" for how, who in using.items())
    ]


def _apart_from_store(servers: Sequence[Server]) -> list[str]:
    """Servers that have to do without their store, or without the channel on which it tells of changes."""
    away: dict[str, list[str]] = {}
    unheard = []
    for server in servers:
        if server["state"] in ANSWERING and server["cluster"].get("state") == "away":
            away.setdefault(str(server["cluster"].get("reason") or "it is away").rstrip("."), []).append(server["name"])
        elif server["state"] in ANSWERING and server["cluster"].get("channel") == "down":
            unheard.append(server["name"])
    told = [f"the store is not reached by {_and(who)}: {why}" for why, who in away.items()]
    if unheard:
        told.append(f"the store's channel is not heard by {_and(unheard)}, so each request asks: see the log")
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


def _names(servers: Sequence[Server]) -> dict[str, str]:
    """Name as a member → name."""
    return {server["node"]: server["name"] for server in servers if server.get("node")}


def _answering(servers: Sequence[Server]) -> list[str]:
    return [server["name"] for server in servers if server["state"] in ANSWERING]
