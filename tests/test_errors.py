"""The tree of exceptions is the one its docstring draws, and handlers that catch by kind get what they expect."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Final

import pytest

from sessile import errors

CLASSES: Final = {
    name: found
    for name, found in vars(errors).items()
    if isinstance(found, type) and issubclass(found, BaseException) and found.__module__ == errors.__name__
}


def drawn() -> dict[str, tuple[str, ...]]:
    """Name → the names of its bases, as the docstring draws them: its parent in the tree, then what stands in brackets."""
    tree: dict[str, tuple[str, ...]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+)(?: \((\w+)\))?", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            tree[found[2]] = tuple(filter(None, (path[depth - 1] if depth else "Exception", found[3])))
    return tree


def test_the_docstring_draws_the_tree() -> None:
    """Every exception stands in the drawing under its base, with the builtin it also is; and nothing else does."""
    assert drawn() == {name: tuple(base.__name__ for base in found.__bases__) for name, found in CLASSES.items()}


def test_everything_is_exported() -> None:
    """Whoever imports the module's names gets them all, in order."""
    assert sorted(CLASSES) == sorted(errors.__all__) == list(errors.__all__)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_error_is_one_of_ours_and_carries_its_message(name: str) -> None:
    """One `except SessileError` catches all, each says when it is raised, and it survives the way between processes."""
    kind = CLASSES[name]
    error = kind("what, and the remedy")
    assert isinstance(error, errors.SessileError) and str(error) == "what, and the remedy"
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind and copy.args == error.args
    assert inspect.getdoc(kind) != inspect.getdoc(kind.__bases__[0])


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.SettingsError, ValueError),
        (errors.EncodeError, TypeError),
        (errors.EncodeError, ValueError),
        (errors.DecodeError, ValueError),
        (errors.RecordError, ValueError),
        (errors.SessionTooLarge, ValueError),
    ],
)
def test_code_that_knows_only_builtins_catches_them(kind: type[Exception], builtin: type[Exception]) -> None:
    """A value of the wrong kind is a TypeError or ValueError, whoever raises it."""
    assert issubclass(kind, builtin)
