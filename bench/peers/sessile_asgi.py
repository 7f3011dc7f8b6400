"""Sessile's ASGI middleware around the same Starlette app, every setting as it comes."""

from __future__ import annotations

from typing import Any

from bench.peers import starlette_app
from bench.peers.workload import SECRET


def build(_store: str, _redis_port: int) -> Any:
    """The app with sessions."""
    from sessile.asgi import SessionMiddleware

    return SessionMiddleware(starlette_app.build(sessions=True), url="sticky://", secret=SECRET)
