"""The scripts that run inside Redis or Valkey: each is one file of `lua/`, or several files joined."""

from __future__ import annotations

from hashlib import sha1
from importlib import resources
from typing import Final

__all__ = ["Script"]


class Script:
    """One script, and the commands that call it.

    Args:
        names: the files of `lua/` to join, in this order.
        is_frugal: whether the script may run when the server's memory is full, since it frees memory or takes next to none.
    """

    def __init__(self, *names: str, is_frugal: bool = False) -> None:
        folder = resources.files("sessile.stores").joinpath("lua")
        head = ["#!lua flags=allow-oom\n"] if is_frugal else []
        text = "".join([*head, *(folder.joinpath(f"{name}.lua").read_text() for name in names)])
        self.ways: Final = (("EVALSHA", sha1(text.encode()).hexdigest()), ("EVAL", text))  # noqa: S324  # Redis' choice
        """First by its hash, then with its whole text for a server that does not have it yet."""
