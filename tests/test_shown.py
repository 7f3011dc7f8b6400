"""What others wrote, as it is shown."""

from __future__ import annotations

import pytest

from sessile.shown import counted, plain

MARK = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s1", "s1"),
        ("Köln 서울 🙂", "Köln 서울 🙂"),
        ("a\x1b[2Jb", f"a{MARK}[2Jb"),
        ("a\r\nb\tc\x00", f"a{MARK}{MARK}b{MARK}c{MARK}"),
        ("\x9b31m", f"{MARK}31m"),
        ("a\N{RIGHT-TO-LEFT OVERRIDE}b\N{LINE SEPARATOR}c", f"a{MARK}b{MARK}c"),
        ("\ud800", MARK),
        (12, "12"),
        (None, "None"),
    ],
)
def test_only_what_is_seen_is_shown(text: object, shown: str) -> None:
    """Letters of every language are; what a terminal obeys, and what forges a line, is marked."""
    assert plain(text) == shown


def test_it_is_cut() -> None:
    """And says so."""
    assert plain("x" * 300) == "x" * 199 + "…"
    assert plain("\n" * 300, 3) == MARK * 2 + "…"


def test_one_is_not_several() -> None:
    """The noun follows the number."""
    assert [counted(number, "session") for number in (0, 1, 2)] == ["0 sessions", "1 session", "2 sessions"]
