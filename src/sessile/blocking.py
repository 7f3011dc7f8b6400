"""Coroutines for callers that may block: WSGI apps, threads, scripts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine
    from typing import Any

__all__ = ["run_blocking", "running_loop"]

T = TypeVar("T")


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of the engine to its end in this thread, which has no event loop.

    What it waits for blocks the thread: a backend sees to that where no loop runs. So what needs no waiting costs no
    crossing to another thread.
    """
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError(
        "this thread runs an event loop, so the engine may not block it: await it, or use another thread"
    )


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, if one does."""
    loaded = sys.modules.get("asyncio")  # where it was never loaded, which takes a while, no loop of it runs
    if loaded is None:
        return None
    try:
        return loaded.get_running_loop()  # type: ignore[no-any-return]
    except RuntimeError:
        return None
