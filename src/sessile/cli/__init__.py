"""The command line: `sessile SUBCOMMAND`.

One file per subcommand, each with the same three names: `HELP` (a line), `add_arguments(parser)` and
`run(arguments) -> int` (the exit status). A failure a user can mend is a `SessileError`: one line on stderr, status 1.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from difflib import get_close_matches
from typing import TYPE_CHECKING, NoReturn

from sessile import __version__
from sessile.errors import SessileError

if TYPE_CHECKING:
    from collections.abc import Sequence

_SECRET_OPTIONS = ("--secret", "--token")
_DASHED = re.compile(r"-[A-Za-z0-9_-]{15,}")
_OPTION = re.compile(r"--[a-z-]+")
SUBCOMMANDS = ("demo", "balance", "status", "simulate", "schema", "keygen")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line as one parser."""
    parser = argparse.ArgumentParser(prog="sessile", description="Sessions that stay put when servers don't.")
    parser.add_argument("--version", action="version", version=f"sessile {__version__}")
    subparsers = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND", required=True)
    for name in SUBCOMMANDS:
        module = importlib.import_module(f"sessile.cli.{name}")
        subparser = subparsers.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run, parser=subparser)
    return parser


def _joined(argv: Sequence[str]) -> list[str]:
    """The command line with each secret joined to its option: one in 64 begins with a dash, as an option does."""
    joined: list[str] = []
    for each in argv:
        if joined and joined[-1] in _SECRET_OPTIONS and _DASHED.fullmatch(each) and not _OPTION.fullmatch(each):
            joined[-1] += f"={each}"
        else:
            joined.append(each)
    return joined


def _refuse_unknown(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> NoReturn:
    """End with the usage of the subcommand, and the nearest option; no value is repeated, since one may be a secret."""
    names = [each.partition("=")[0] for each in unknown if each.startswith("-")] or ["a word that belongs to no option"]
    near = get_close_matches(names[0], [name for name in parser._option_string_actions if name.startswith("--")], 1)  # noqa: SLF001
    hint = f"; did you mean {near[0]}?" if near else ""
    parser.error(f"unrecognized arguments: {' '.join(names)}{hint}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status, 0 only for success."""
    arguments, unknown = build_parser().parse_known_args(_joined(sys.argv[1:] if argv is None else argv))
    if unknown:
        _refuse_unknown(arguments.parser, unknown)
    try:
        return int(arguments.run(arguments))
    except SessileError as error:
        print(f"sessile: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
