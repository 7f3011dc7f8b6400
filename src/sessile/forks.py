"""What a process must not share with the one it was forked from.

`os.register_at_fork` keeps what it is given for ever; here a hook lasts as long as the object it belongs to.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["call_after_fork"]


def call_after_fork(method: Callable[[], None]) -> None:
    """Call this bound method in every child that is forked while its object lives, where there are forks."""
    find = weakref.WeakMethod(method)

    def call() -> None:
        found = find()
        if found is not None:
            found()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)
