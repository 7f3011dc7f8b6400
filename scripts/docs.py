"""Write the generated parts of the documentation: `make docs`, or `--check` to see whether they are true."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sessile.counts import COUNTED, GAUGES
from sessile.settings import Settings
from sessile.strategies import STRATEGIES

ROOT = Path(__file__).resolve().parent.parent
MARKS = ("<!-- strategies: written by `make docs` -->\n", "<!-- end -->")
SHOWN_FILE = re.compile(r"<!-- (?P<path>[\w/-]+\.[\w]+): written by `make docs` -->\n.*?<!-- end -->", re.DOTALL)
LANGUAGES = {".py": "python", ".conf": "nginx", ".cfg": "haproxy", ".yaml": "yaml"}

SETTINGS_HEAD = """# Settings

Every setting may come from a keyword (`SessionMiddleware(app, idle_timeout="15m")`), from the URL's query
(`sticky://?idle_timeout=15m`), from the environment, or from a TOML file named by `config=`; of two that name the same
setting, the earlier in this list counts. An unknown one is an error that names the nearest. Durations are seconds, or
text with a unit, `ms`, `s`, `m`, `h` or `d`, such as `15m`; sizes are bytes, or text with a unit, `B`, `KiB`, `MiB`, `GiB`, `KB`, `MB`
or `GB`, such as `256MiB`.

| setting | value | default | environment | what it is |
|---|---|---|---|---|
"""

STATISTICS_HEAD = """
## What an engine counts

`engine.stats()` gives these; counts only grow while the process lives.

| name | meaning |
|---|---|
"""


def strategies_table() -> str:
    """The table of strategies and their guarantees."""
    head = "| | " + " | ".join(f"**{strategy.name}**" for strategy in STRATEGIES) + " |\n"
    lines = [head, "|---" * (len(STRATEGIES) + 1) + "|\n"]
    rows = (
        ("in this version", lambda it: "yes" if it.is_available else "not yet"),
        ("URL", lambda it: f"`{it.url}`"),
        ("who holds a session", lambda it: it.holders),
        ("copies", lambda it: it.copies),
        ("crashes survived", lambda it: it.crashes_survived),
        ("messages for a write", lambda it: it.messages_per_write),
        ("trips for a read", lambda it: it.trips_per_read),
        ("routing", lambda it: it.routing),
        ("in a partition", lambda it: it.partition),
        ("suits", lambda it: it.suits),
    )
    lines += [f"| {name} | " + " | ".join(cell(strategy) for strategy in STRATEGIES) + " |\n" for name, cell in rows]
    return "".join(lines)


def settings_page() -> str:
    """The page of all settings."""
    rows = (
        f"| `{it.name}` | {it.type.replace('|', 'or')}{f', {it.bounds}' if it.bounds else ''} | {f'`{it.default}`' if it.default else ''} | "
        f"`{it.environment}` | {it.description} |\n"
        for it in Settings.describe()
    )
    return (
        SETTINGS_HEAD
        + "".join(rows)
        + STATISTICS_HEAD
        + "".join(f"| `{name}` | {meaning} |\n" for name, meaning in (GAUGES | COUNTED).items())
    )


def with_files(page: str) -> str:
    """The page with each file that it shows as that file is; the paths are those of this tree."""

    def shown(mark: re.Match[str]) -> str:
        path = ROOT / mark["path"]
        first, _, _ = mark[0].partition("\n")
        return f"{first}\n```{LANGUAGES[path.suffix]}\n{path.read_text()}```\n<!-- end -->"

    return SHOWN_FILE.sub(shown, page)


def pages() -> dict[Path, str]:
    """Path → what the page must be."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    written = {
        readme: before + MARKS[0] + strategies_table() + MARKS[1] + after,
        ROOT / "docs" / "SETTINGS.md": settings_page(),
    }
    return {path: with_files(written.get(path, path.read_text())) for path in [readme, *(ROOT / "docs").rglob("*.md")]}


def main(arguments: list[str]) -> int:
    """Write the pages, or with `--check` only say which are not true."""
    stale = [path for path, text in pages().items() if not path.is_file() or path.read_text() != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what it describes: run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    for path, text in pages().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
