"""Messages about a store that refuses, cannot be reached, or was restarted: the consequence and the remedy.

A reason is the store's own, and begins with where the store is. `called` is the name under which the user gave the URL.
Nothing here shows a URL.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from sessile.stores.store_url import file_of
from sessile.urls import ESCAPES

__all__ = ["away", "refused", "restarted"]

_CREDENTIALS: Final = ("password", "authentication failed", "Access denied", "not permitted to log in")
_NO_FILE: Final = "unable to open database file"
_NO_DATABASE: Final = "DB index is out of range"
_CONSEQUENCES: Final = {
    "serve": "until it answers, sessions live in the memory of this server only",
    "refuse": "until it answers, requests that need a session are answered 503 (outage=refuse)",
}


def refused(reason: str, called: str, url: str) -> str:
    """That the store refuses, and what to correct.

    Args:
        reason: why.
        called: as what the URL was given: `SESSILE_URL`, or `url=`.
        url: the URL, of which the folder of a file is looked at and nothing is repeated.
    """
    if any(word in reason for word in _CREDENTIALS):
        remedy = f"correct {called} (in a user or password write {ESCAPES}), or the store"
    elif _NO_FILE in reason:
        remedy = _file_remedy(called, url)
    elif _NO_DATABASE in reason:
        remedy = f"give {called} a database that the server has, such as /0"
    else:
        remedy = f"correct {called}, or the store"
    return f"{called} names a store that cannot be used: {reason}; {remedy}"


def away(reason: str, called: str, outage: str) -> str:
    """That the store does not answer, what that means for sessions, and what to look at."""
    return f"{reason}; {_CONSEQUENCES[outage]}; if it should be running, check {called}"


def restarted(where: str, *, is_single: bool) -> str:
    """That another server answers than before, and that this one sees to what follows."""
    what = "it was restarted or replaced" if is_single else "another primary took over"
    return f"{where}: {what}; this server sends it what it lacks, and there is nothing to do"


def _file_remedy(called: str, url: str) -> str:
    with contextlib.suppress(ValueError):
        path = Path(file_of(url)[0])
        if not path.parent.is_dir():
            return f"the folder {path.parent} does not exist: create it, or correct {called}"
        if path.is_dir():
            return f"{path} is a folder: add the name of a file in it to {called}"
    return f"give this process the right to write that file and its folder, or correct {called}"
