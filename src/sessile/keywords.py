"""Settings as keyword arguments, for type checkers: `SessionMiddleware(app, secret=..., idle_timeout="15m")`.

What each means stands in `settings.py`, which also checks the values; a test holds the two to the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

__all__ = ["Keywords"]


class Keywords(TypedDict, total=False):
    """What `Settings.load`, `Engine` and the middlewares take. Durations are seconds or text like "15m"."""

    config: str | os.PathLike[str]
    environ: Mapping[str, str]
    url: str
    secret: str | bytes | Sequence[str | bytes]
    cluster: str
    cookie_name: str
    secure: bool | Literal["auto"]
    samesite: Literal["lax", "strict", "none"]
    path: str
    partitioned: bool
    idle_timeout: float | str
    anonymous_timeout: float | str
    absolute_timeout: float | str
    rotation_grace: float | str
    tombstone_keep: float | str
    sessions_max: int
    bytes_max: int | str
    session_bytes_max: int | str
    value_bytes_max: int | str
    fields_max: int
    exclude: Sequence[str]
    ack: Literal["none", "one", "all"]
    ack_timeout: float | str
    degraded: Literal["serve", "refuse"]
    pull_timeout: float | str
    stale: Literal["serve", "refuse"]
    members: str | Sequence[str]
    me: str
    serves: str
    node_listen: str
    host_id: str
    copies: int
    directory: Literal["none", "keys"]
    tls: Literal["secret", "files", "off"]
    tls_cert: str | os.PathLike[str]
    tls_key: str | os.PathLike[str]
    tls_ca: str | os.PathLike[str]
    drain_grace: float | str
    beat: float | str
    suspect_after: float | str
    dead_after: float | str
    cache: Literal["leased", "checked", "off"]
    outage: Literal["serve", "refuse"]
    store_timeout: float | str
    failover_window: float | str
