"""How settings must fit together: what two or more of them must not be at once.

Data: each relation is a condition and the one line that it is refused with. Values are valid by themselves already.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from sessile.addresses import split

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.settings import Settings

__all__ = ["RELATIONS", "Relation"]


class Relation(NamedTuple):
    """What two or more settings must not be together."""

    is_broken: Callable[[Settings], bool]
    message: str
    """With the names of settings in braces where their values stand."""


def _is_out_of_order(it: Settings) -> bool:
    """As nodes count: in whole milliseconds."""
    timings = (it.beat, it.suspect_after, it.dead_after, it.tombstone_keep)
    return it.is_cluster and any(round(sooner * 1_000) >= round(later * 1_000) for sooner, later in pairwise(timings))


def _in_the_clear(name: str, is_outside: Callable[[Settings], bool]) -> Relation:
    return Relation(
        lambda it: it.tls == "off" and is_outside(it),
        f"tls=off sends sessions in the clear, but {name}={{{name}}} is more than this machine's loopback: set "
        "tls=secret, which needs no files",
    )


RELATIONS: Final = (
    Relation(
        lambda it: 0 < it.anonymous_timeout < 1,
        "anonymous_timeout={anonymous_timeout} is shorter than 1s: lengthen it, or set 0 for as long as idle_timeout",
    ),
    Relation(
        lambda it: it.anonymous_timeout > it.idle_timeout,
        "anonymous_timeout={anonymous_timeout} is longer than idle_timeout={idle_timeout}: shorten it, or set 0 for the same",
    ),
    Relation(
        lambda it: it.idle_timeout > it.absolute_timeout,
        "idle_timeout={idle_timeout} is longer than absolute_timeout={absolute_timeout}: shorten it or lengthen the other",
    ),
    Relation(
        lambda it: it.tombstone_keep <= it.rotation_grace + it.ack_timeout + it.pull_timeout,
        "tombstone_keep={tombstone_keep} is not longer than rotation_grace={rotation_grace}, ack_timeout={ack_timeout} "
        "and pull_timeout={pull_timeout} together, so a late message could bring an ended session back: lengthen it",
    ),
    Relation(
        lambda it: it.value_bytes_max > it.session_bytes_max,
        "value_bytes_max={value_bytes_max} is more than session_bytes_max={session_bytes_max}: lower it or raise the "
        "other",
    ),
    Relation(
        lambda it: it.session_bytes_max > it.bytes_max,
        "session_bytes_max={session_bytes_max} is more than bytes_max={bytes_max}: lower it or raise the other",
    ),
    Relation(
        lambda it: it.samesite == "none" and it.secure is False,
        "samesite=none with secure=false gives cookies that browsers refuse: set secure=auto",
    ),
    Relation(
        lambda it: it.partitioned and it.secure is False,
        "partitioned=true with secure=false gives cookies that browsers refuse: set secure=auto",
    ),
    Relation(
        lambda it: it.is_cluster and not it.members,
        "members is empty, but under {url} the servers must be named: write {url}?members=web1:7400,web2:7400",
    ),
    Relation(
        lambda it: (it.is_cluster or it.is_store) and not it.secret,
        "secret is not set, and servers that share sessions know each other, and each other's cookies, by it: draw one with "
        "`sessile keygen` and give it to every server, as SESSILE_SECRET or secret=...",
    ),
    Relation(
        _is_out_of_order,
        "beat={beat}, suspect_after={suspect_after}, dead_after={dead_after} and tombstone_keep={tombstone_keep} must each "
        "be longer than the one before: lengthen the later one",
    ),
    Relation(
        lambda it: it.tls == "files" and not (it.tls_cert and it.tls_key and it.tls_ca),
        "tls=files needs all of tls_cert={tls_cert!r}, tls_key={tls_key!r} and tls_ca={tls_ca!r}: name each file, or set "
        "tls=secret, which needs none",
    ),
    Relation(
        lambda it: it.tls != "files" and bool(it.tls_cert or it.tls_key or it.tls_ca),
        "tls={tls} reads no files, but tls_cert={tls_cert!r}, tls_key={tls_key!r}, tls_ca={tls_ca!r} are given: set "
        "tls=files, or leave them out",
    ),
    _in_the_clear("members", lambda it: not all(member.is_loopback for member in it.members)),
    _in_the_clear("me", lambda it: it.me != "" and not split(it.me).is_loopback),
    _in_the_clear("node_listen", lambda it: it.node_listen != "" and not split(it.node_listen).is_loopback),
)
