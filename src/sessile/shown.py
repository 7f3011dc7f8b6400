"""Text made fit to be printed or logged. What somebody else wrote becomes one line, of bounded length, that commands no terminal.

A server's name, a reason, an error: each comes from another process, and may hold escape sequences, line ends that forge a
line of a log, or marks that turn the direction of what follows.
"""

from __future__ import annotations

import unicodedata
from typing import Final

__all__ = ["counted", "plain"]

CHARS_MAX: Final = 200
REPLACED: Final = "\N{REPLACEMENT CHARACTER}"
_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode's categories of control and format characters, surrogates, what has no meaning, and separators of lines."""


def plain(text: object, chars_max: int = CHARS_MAX) -> str:
    """The same text, with a mark for each character that is not to be seen, and cut where it is too long.

    Args:
        text: of anything else, what `str` says of it.
        chars_max: the length of the result at the most.
    """
    whole = str(text)
    cut = whole if len(whole) <= chars_max else whole[: chars_max - 1] + "…"
    if cut.isascii() and cut.isprintable():
        return cut
    return "".join(REPLACED if unicodedata.category(one) in _UNPRINTABLE else one for one in cut)


def counted(number: int, noun: str) -> str:
    """A number and its noun, as in `1 session` and `2 sessions`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
