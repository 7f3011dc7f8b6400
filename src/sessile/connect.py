"""From a URL to the other holders: which backend an engine gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sessile.backend import Backend
    from sessile.network.cluster import Owner

__all__ = ["connect"]


def connect(engine: Owner) -> Backend | None:
    """The backend that the engine's URL names; None where a session is held by this server alone. No IO is done."""
    if engine.settings.url.partition("://")[0] in {"all-to-all", "primary-backup"}:
        from sessile.network.cluster import Cluster  # noqa: PLC0415  # asyncio and TLS, which sticky:// does without

        return Cluster(engine)
    return None
