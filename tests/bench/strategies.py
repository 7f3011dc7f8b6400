"""The strategies of a demo as parameters of a test; a store's needs a Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["with_redis"]


def with_redis(strategies: Iterable[str]) -> list[Any]:
    """Those names, of which `store` runs only where there is a `redis-server`."""
    needs = pytest.mark.needs("redis-server")
    return [pytest.param(name, marks=needs) if name == "store" else name for name in strategies]
