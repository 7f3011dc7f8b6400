"""A forked child for tests: what it says, and how it ends."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Child", "bypassing_python", "in_a_child"]

DEADLINE_S = 20.0


def bypassing_python() -> int:
    """A fork in C, of which Python is not told, as uWSGI's are."""
    return int(ctypes.PyDLL(None).fork())


class Child:
    """A forked child that does its work, says what came of it, and lives on until it is let go.

    Args:
        work: what it does; an exception is what it says, too.
        fork: how it is forked.
    """

    def __init__(self, work: Callable[[], object], fork: Callable[[], int] = os.fork) -> None:
        self._reading, writing = os.pipe()
        waiting, self._letting_go = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # Python 3.12 warns of a fork beside threads: as it should
            self.pid = fork()
        if not self.pid:
            os.close(self._letting_go)
            try:
                os.write(writing, repr(work()).encode())
            except BaseException as error:  # noqa: BLE001  # the parent reports it
                os.write(writing, repr(error).encode())
            finally:
                os.close(writing)
                os.read(waiting, 1)
                os._exit(0)
        os.close(writing)
        os.close(waiting)

    def said(self) -> str:
        """The `repr` of what its work returned, or of what it raised."""
        parts = []
        while select.select([self._reading], [], [], DEADLINE_S)[0] and (part := os.read(self._reading, 65_536)):
            parts.append(part)
        return b"".join(parts).decode() or "nothing in time"

    def end(self) -> None:
        """Let it go."""
        os.close(self._reading)
        os.close(self._letting_go)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def in_a_child(work: Callable[[], object], fork: Callable[[], int] = os.fork) -> str:
    """What a child says that ends at once."""
    child = Child(work, fork)
    try:
        return child.said()
    finally:
        child.end()
