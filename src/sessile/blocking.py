"""Coroutines for callers that may block: WSGI apps, threads, scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

__all__ = ["run_blocking"]

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
