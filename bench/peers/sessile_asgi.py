"""Sessile's ASGI middleware around the same Starlette app: alone, or with its sessions in Redis; settings as they come.

All but one: between turns nobody runs this process's event loop, and a channel that is silent for longer than
`store_timeout` would end every lease.
"""

from __future__ import annotations

from typing import Any

from bench.peers import starlette_app
from bench.peers.workload import SECRET

STORE_TIMEOUT = "1m"


def build(store: str, redis_port: int) -> Any:
    """The app with sessions."""
    from sessile.asgi import SessionMiddleware

    app = starlette_app.build(sessions=True)
    if store == "redis":
        url = f"redis://127.0.0.1:{redis_port}"
        return SessionMiddleware(app, url=url, secret=SECRET, store_timeout=STORE_TIMEOUT)
    return SessionMiddleware(app, url="sticky://", secret=SECRET)
