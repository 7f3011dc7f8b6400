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
    """Run a coroutine of the engine to completion in this thread, which has no event loop.

    The coroutine never suspends: without a running loop, a backend blocks the thread instead of awaiting (`Service.ask`). So a
    call that need not wait costs no switch to another thread.
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
    loaded = sys.modules.get("asyncio")  # not imported here, which is slow: if nobody has imported it, no loop runs
    if loaded is None:
        return None
    try:
        return loaded.get_running_loop()  # type: ignore[no-any-return]
    except RuntimeError:
        return None
