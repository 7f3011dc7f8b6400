"""starsessions, loaded before the handler as its documentation recommends: in memory, or in Redis."""

from __future__ import annotations

from typing import Any

from bench.peers import starlette_app
from bench.peers.workload import LIFETIME_S


def build(store: str, redis_port: int) -> Any:
    """The app with sessions."""
    # Each of these packages is there only in this contender's own environment.
    from starsessions import (  # type: ignore[import-not-found]
        InMemoryStore,
        SessionAutoloadMiddleware,
        SessionMiddleware,
    )

    if store == "redis":
        from starsessions.stores.redis import RedisStore  # type: ignore[import-not-found]

        kept = RedisStore(f"redis://127.0.0.1:{redis_port}")
    else:
        kept = InMemoryStore()
    app = SessionAutoloadMiddleware(starlette_app.build(sessions=True))
    return SessionMiddleware(app, store=kept, lifetime=LIFETIME_S)
