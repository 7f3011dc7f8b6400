"""What is said of a store that refuses, is away or was restarted: the setting as it was given, what follows, the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessile.stores.remedies import away, refused, restarted

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("redis://h wants another user or password", "correct SESSILE_URL (in a user or password write %40 for @, "),
        ("mysql://h/a: Access denied for user 'a'@'h'", "correct SESSILE_URL (in a user or password write %40 for @, "),
        ("redis://h/99 fails: DB index is out of range", "give SESSILE_URL a database that the server has, such as /0"),
        ("redis://h has version 5, and 6.0 is the oldest that will do", "correct SESSILE_URL, or the store"),
    ],
)
def test_a_refusal_names_what_to_correct(reason: str, remedy: str) -> None:
    """A password is spoken of only where the store did not let us in."""
    line = refused(reason, "SESSILE_URL", "redis://h")
    assert line.startswith(f"SESSILE_URL names a store that cannot be used: {reason}; {remedy}")
    assert ("%40" in line) is ("password" in remedy)


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    """Its folder is looked at."""
    ends = {
        tmp_path / "no" / "s.db": f"the folder {tmp_path / 'no'} does not exist: create it, or correct url=",
        tmp_path: f"{tmp_path} is a folder: add the name of a file in it to url=",
        tmp_path / "s.db": "give this process the right to write that file and its folder, or correct url=",
    }
    for path, end in ends.items():
        assert refused("unable to open database file", "url=", f"sqlite:///{path}").endswith(f"; {end}")


def test_a_store_that_is_away() -> None:
    """What it means, by `outage`, and which setting has the address."""
    reason = "redis://127.0.0.1:6390 cannot be reached: Connection refused"
    assert away(reason, "SESSILE_URL", "serve") == (
        f"{reason}; until it answers, sessions live in the memory of this server only; if it should be running, check SESSILE_URL"
    )
    assert "are answered 503 (outage=refuse); if it should be running, check url=" in away(reason, "url=", "refuse")


def test_a_store_that_was_restarted() -> None:
    """One server has no other primary."""
    end = "; this server sends it what it lacks, and there is nothing to do"
    assert restarted("redis://h", is_single=True) == f"redis://h: it was restarted or replaced{end}"
    assert restarted("redis+sentinel://h/m", is_single=False) == f"redis+sentinel://h/m: another primary took over{end}"
