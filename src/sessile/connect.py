"""From a URL to the other holders: which backend an engine gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessile.clock import whole_ms

if TYPE_CHECKING:
    from sessile.backend import Backend
    from sessile.network.cluster import Owner
    from sessile.settings import Settings
    from sessile.stores.base import Store

__all__ = ["connect", "store_of"]


def connect(engine: Owner) -> Backend | None:
    """The backend that the engine's URL names; None where a session is held by this server alone. No IO is done.

    Raises:
        SettingsError: the URL is none for its store, or what it needs is not installed.
    """
    settings = engine.settings
    if settings.is_cluster:
        from sessile.network.cluster import Cluster  # noqa: PLC0415  # asyncio and TLS, which sticky:// does without

        return Cluster(engine)
    if settings.is_store:
        from sessile.stores.shared import Shared  # noqa: PLC0415  # as above

        return Shared(engine, store_of(settings))
    return None


def store_of(settings: Settings) -> Store:
    """The store that the URL names. Raises SettingsError as `connect` does."""
    tombstone_keep_ms = whole_ms(settings.tombstone_keep)
    rotation_grace_ms = whole_ms(settings.rotated_keep)  # the engine judges how long the old id opens anything
    if settings.scheme.startswith(("redis", "valkey")):
        from sessile.stores.redis import RedisStore  # noqa: PLC0415  # needs a driver that not everybody has

        return RedisStore(
            settings.url,
            cluster=settings.cluster,
            timeout_s=settings.store_timeout,
            tombstone_keep_ms=tombstone_keep_ms,
            rotation_grace_ms=rotation_grace_ms,
        )
    from sessile.stores.sql import SqlStore  # noqa: PLC0415  # as above

    return SqlStore(
        settings.url,
        cluster=settings.cluster,
        timeout_s=settings.store_timeout,
        tombstone_keep_ms=tombstone_keep_ms,
        rotation_grace_ms=rotation_grace_ms,
    )
