"""The scripts that run inside Redis or Valkey: a file of `lua/` each, or several one behind the other."""

from __future__ import annotations

from hashlib import sha1
from importlib import resources
from typing import Final

__all__ = ["Script"]


class Script:
    """A script by its parts, as it is called.

    Args:
        names: files of `lua/`, in this order.
        is_frugal: it frees memory, or takes none: it runs when the server has none left.
    """

    def __init__(self, *names: str, is_frugal: bool = False) -> None:
        folder = resources.files("sessile.stores").joinpath("lua")
        head = ["#!lua flags=allow-oom\n"] if is_frugal else []
        text = "".join([*head, *(folder.joinpath(f"{name}.lua").read_text() for name in names)])
        self.ways: Final = (("EVALSHA", sha1(text.encode()).hexdigest()), ("EVAL", text))  # noqa: S324  # Redis' choice
        """By its hash, and as a whole for a server that has not seen it yet."""
