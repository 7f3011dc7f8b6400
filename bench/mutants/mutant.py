"""One edit of one file, with a name that stays the same when other parts of the file change."""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HANDMADE", "ROOT", "Equivalent", "Mutant", "equivalents", "handmade"]

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PACKAGE: Final = "src/sessile/"
HERE: Final = Path(__file__).resolve().parent
HANDMADE: Final = "handmade"
"""The operator of those that are listed in `handmade.toml`."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A span of a file and the text that replaces it."""

    file: str
    """Relative to the tree."""
    operator: str
    line: int
    begin: int
    end: int
    text: str
    title: str = ""
    """What a hand-made mutant does, in words."""
    tests: tuple[str, ...] = ()
    """The tests that must notice a hand-made mutant."""

    @property
    def module(self) -> str:
        return self.file.removeprefix(PACKAGE).removesuffix(".py").replace("/", ".")

    def apply(self) -> str:
        """The file with the edit."""
        source = _text(self.file)
        return f"{source[: self.begin]}{self.text}{source[self.end :]}"

    def _lines(self) -> tuple[str, str]:
        source = _text(self.file)
        begin = source.rfind("\n", 0, self.begin) + 1
        end = source.find("\n", self.end)
        end = len(source) if end < 0 else end
        return source[begin:end], f"{source[begin : self.begin]}{self.text}{source[self.end : end]}"

    @property
    def before(self) -> str:
        """The lines that it changes, with single spaces."""
        return " ".join(self._lines()[0].split())

    @property
    def after(self) -> str:
        """What they become."""
        return " ".join(self._lines()[1].split())

    @property
    def path(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        """The functions whose bodies contain it, the outermost first; empty for code that runs at import."""
        return [node for begin, end, node in _functions(self.file) if begin <= self.begin < end]

    @property
    def function(self) -> str:
        """The qualified name of the innermost of these functions."""
        return _names(self.file)[first_line(self.path[-1])] if self.path else ""

    def code(self) -> list[CodeType]:
        """The mutated code of these functions, the outermost first."""
        wanted = [(node.name, first_line(node)) for node in self.path]
        found = {(code.co_name, code.co_firstlineno): code for code in _codes(compile(self.apply(), self.file, "exec"))}
        return [found[each] for each in wanted]

    def __str__(self) -> str:
        if self.title:
            return f"{self.title} ({self.file.removeprefix(PACKAGE)}:{self.line})"
        return f"{self.module}:{self.line} {self.function}: {self.before}  =>  {self.after}"

    def as_data(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def first_line(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """As in `co_firstlineno`."""
    return min([node.lineno, *(each.lineno for each in node.decorator_list)])


@cache
def _text(file: str) -> str:
    return (ROOT / file).read_text()


@cache
def _functions(file: str) -> list[tuple[int, int, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Where the body of each function begins and ends, the outer ones first."""
    text = _text(file)
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found = [
        (starts[node.body[0].lineno - 1], starts[node.end_lineno or node.lineno], node)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    return sorted(found, key=lambda each: (each[0], -each[1]))


@cache
def _names(file: str) -> dict[int, str]:
    """The qualified name of each function by its first line."""
    return {
        code.co_firstlineno: code.co_qualname.replace(".<locals>", "")
        for code in _codes(compile(_text(file), file, "exec"))
        if not code.co_name.startswith("<")
    }


def _codes(code: CodeType) -> Iterator[CodeType]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield each
            yield from _codes(each)


# -- what is listed by hand ----------------------------------------------------------------------------------------------


def handmade(path: Path = HERE / "handmade.toml") -> list[Mutant]:
    """The mutants of `handmade.toml`.

    Raises:
        ValueError: the list is stale: a search text is not found exactly once, or none of its test files exists.
    """
    return [_found(entry) for entry in tomllib.loads(path.read_text())["mutant"]]


def _found(entry: dict[str, Any]) -> Mutant:
    title, search = entry["name"], entry["search"]
    # The formatter decides the layout, so any white space stands for any other.
    pattern = r"\s+".join(map(re.escape, search.split()))
    files = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob(entry["file"]))]
    places = [(file, found) for file in files for found in re.finditer(pattern, _text(file))]
    if len(places) != 1:
        raise ValueError(f"{title!r}: its text is found {len(places)} times in {entry['file']}: {search!r}")
    tests = [test for pattern in entry["tests"] for test in _tests(pattern)]
    if not tests:
        raise ValueError(f"{title!r} names test files that are not there: {entry['tests']}")
    file, found = places[0]
    begin, end = found.span()
    line = _text(file).count("\n", 0, begin) + 1
    return Mutant(file, HANDMADE, line, begin, end, entry["replace"], title, tuple(tests))


def _tests(pattern: str) -> list[str]:
    """The test files that match, each with the test that the pattern names after them."""
    files, colons, name = pattern.partition("::")
    return [f"{path.relative_to(ROOT)}{colons}{name}" for path in sorted(ROOT.glob(files))]


@dataclass(frozen=True, slots=True)
class Equivalent:
    """Mutants that cannot be told from the original, and the reason."""

    module: str
    function: str
    before: str
    after: tuple[str, ...]
    """Empty: every edit of the line."""
    reason: str

    def is_of(self, mutant: Mutant) -> bool:
        same = (mutant.module, mutant.function, mutant.before) == (self.module, self.function, self.before)
        return same and (not self.after or mutant.after in self.after)


def equivalents(path: Path = HERE / "equivalent.toml") -> list[Equivalent]:
    """The list; `ValueError` for an entry without a reason."""
    found = []
    for entry in tomllib.loads(path.read_text()).get("equivalent", []):
        after = entry.get("after", [])
        after = tuple([after] if isinstance(after, str) else after)
        one = Equivalent(entry["module"], entry["function"], entry["before"], after, entry["reason"])
        if len(one.reason) < 10:
            raise ValueError(f"an equivalent mutant of {one.module} has no reason: {one.before}")
        found.append(one)
    return found
