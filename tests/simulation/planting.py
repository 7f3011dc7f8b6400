"""How a bug is planted: a generator that breaks the real code until it goes on, entered into a list by its name."""

from __future__ import annotations

from contextlib import contextmanager
from inspect import getsource
from textwrap import dedent
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from sessile import engine as engine_module
from sessile.replication import pulls as pulls_module
from sessile.replication import replica as replica_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["PLANTED", "edited", "merging", "method", "planting"]

PLANTED: dict[str, Callable[[], AbstractContextManager[None]]] = {}
"""Name → what breaks the real code for as long as it is entered."""


def planting(name: str) -> Callable[[Callable[[], Iterator[None]]], Callable[[], AbstractContextManager[None]]]:
    """Enter a generator that breaks something into the list, as a context manager."""

    def enter(function: Callable[[], Iterator[None]]) -> Callable[[], AbstractContextManager[None]]:
        PLANTED[name] = contextmanager(function)
        return PLANTED[name]

    return enter


def method(owner: Any, name: str, make: Callable[[Any], Any]) -> AbstractContextManager[Any]:
    """Replace a method or a function by what `make` makes of it."""
    return patch.object(owner, name, make(getattr(owner, name)))


@contextmanager
def merging(make: Callable[[Any], Any]) -> Iterator[None]:
    """Replace the merge, wherever records are merged."""
    with (
        method(replica_module, "merge", make),
        method(pulls_module, "merge", make),
        method(engine_module, "merge", make),
    ):
        yield


@contextmanager
def edited(owner: Any, name: str, before: str, after: str) -> Iterator[None]:
    """Change the source of a method or a function in one place, where `before` stands, and nowhere else.

    An edit that finds no place fails: the code has moved on, and the bug has to be planted anew.
    """
    function = getattr(owner, name)
    source = dedent(getsource(function))
    assert source.count(before) == 1, f"{before!r} stands {source.count(before)} times in {function.__qualname__}"
    names: dict[str, Any] = {}
    code = f"from __future__ import annotations\n{source.replace(before, after)}"
    exec(compile(code, f"<{function.__qualname__}, edited>", "exec"), function.__globals__, names)
    with patch.object(owner, name, names[function.__name__]):
        yield
