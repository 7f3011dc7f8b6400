"""Starlette's own SessionMiddleware: the whole session in a signed cookie."""

from __future__ import annotations

from typing import Any

from bench.peers import starlette_app
from bench.peers.workload import SECRET


def build(_store: str, _redis_port: int) -> Any:
    """The app with sessions."""
    from starlette.middleware.sessions import SessionMiddleware

    return SessionMiddleware(starlette_app.build(sessions=True), secret_key=SECRET)
