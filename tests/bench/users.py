"""Users of shows, made up: what they asked and what became of it, for judges to look at."""

from __future__ import annotations

import random

from bench.browser import Browser
from bench.crowd import Asked, User

__all__ = ["holder", "user", "worker"]


def user(*requests: Asked, **told: object) -> User:
    """Somebody with these requests; `told` are attributes that are not as a fresh user's."""
    made = User(Browser(1), random.Random(0))
    made.asked = list(requests)
    for name, value in told.items():
        setattr(made, name, value)
    return made


def holder(method: str = "GET", status: int = 200, *, took_s: float = 0.1, **told: object) -> User:
    """Somebody with one request, whose session counts one."""
    return user(Asked(1.0, 1.0 + took_s, method, status, "s1"), **{"model": {"count": 1}, "key": "aa", **told})


def worker(*requests: tuple[str, int], **told: object) -> User:
    """Somebody whose requests took half a second each: these, or a good one of each method."""
    asked = [Asked(1.0, 1.5, method, status, "a") for method, status in requests or [("GET", 200), ("POST", 200)]]
    return user(*asked, **told)
