"""Kinds of settings: how a value is read from what people write, and shown again.

A `Kind` reads keywords and text alike (1800, "1800", "30m"), always into one form (seconds, bytes, `bool`, tuples), and
reads what it has read as itself. A refusal is a `ValueError` that ends the sentence which began with the setting's name
and value: it says what is wanted and the remedy, and never repeats a value that may be a secret.

This module knows no setting by name and no source.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, NamedTuple

from sessile import addresses
from sessile.strength import BITS_MIN, bits_of

__all__ = [
    "CLUSTER_NAME",
    "COOKIE_NAME",
    "FILE",
    "LISTENING",
    "MEMBERS",
    "PREFIXES",
    "REACHABLE",
    "SECRETS",
    "SECRET_BYTES_MIN",
    "Kind",
    "choice",
    "duration",
    "items",
    "nearest",
    "number",
    "size",
    "text",
]

SECRET_BYTES_MIN: Final = 16
SECRETS_MAX: Final = 8
"""Each secret costs one MAC for every cookie that none of those before it signed."""

_QUANTITY: Final = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?([a-z]*)", re.ASCII)
_AMOUNT_MAX: Final = 10**15
SECRET_BYTES_MAX: Final = 4_096
PATH_CHARS_MAX: Final = 4_096
"""The longest path on Linux."""
PREFIXES_MAX: Final = 256
"""Every request's path is compared with each of them."""
PREFIX_CHARS_MAX: Final = 1_024
_SECONDS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_BYTES: Final = {"gib": 2.0**30, "mib": 2.0**20, "kib": 2.0**10, "gb": 1e9, "mb": 1e6, "kb": 1e3, "b": 1.0}
_FLAGS: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_BLANKS: Final = " \t\n\r\v\f"
"""What `bytes.strip` strips; `str.strip` would strip more."""
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_COOKIE_PREFIX: Final = re.compile(r"__(host|secure|http|host-http)-", re.IGNORECASE)


class Kind(NamedTuple):
    """How the values of a setting are read and shown."""

    words: str
    """What documentation calls it."""
    read: Callable[[object], object]
    """Raises ValueError with the end of the sentence."""
    show: Callable[[Any], str] = str
    is_list: bool = False
    """Whether commas separate several values where a source has only text."""
    is_hidden: bool = False
    """Whether a value may never be shown, nor stand in a URL, which is logged."""
    bounds: str = ""
    """The least and the most there may be, for documentation."""


def nearest(name: object, candidates: Sequence[str]) -> str:
    """The one of the right names that looks most like a wrong one."""
    return get_close_matches(str(name)[:80].lower(), candidates, n=1, cutoff=0)[0]


def items(listed: str) -> list[str]:
    """The items of a list with commas between them. White space is that of ASCII, as around a secret in bytes."""
    return [item.strip(_BLANKS) for item in listed.split(",")]


def duration(low: str, high: str) -> Kind:
    """Seconds as a float, from `low` to `high`; also read from a timedelta."""
    at_least, at_most = _amount(low, _SECONDS), _amount(high, _SECONDS)

    def read(value: object) -> float:
        seconds = value.total_seconds() if isinstance(value, timedelta) else _amount(value, _SECONDS)
        if not at_least <= seconds <= at_most:
            raise ValueError(f"is no duration from {low} to {high}: give seconds, or a number with ms, s, m, h or d")
        return seconds

    return Kind("duration", read, _show_duration, bounds=f"{low} to {high}")


def size(at_most: int, instead: str = "") -> Kind:
    """Bytes as an int, from 1 to `at_most`; `instead` says what to do if that is too little."""

    def read(value: object) -> int:
        amount = _amount(value, _BYTES)
        if not (1 <= amount <= at_most and amount.is_integer()):
            raise ValueError(
                f"is no size from 1 byte to {_show_size(at_most)}: "
                + (instead if amount > at_most and instead else "give bytes, or a number with KiB, MiB or GiB")
            )
        return int(amount)

    return Kind("size", read, _show_size, bounds=f"1B to {_show_size(at_most)}")


def number(at_most: int, at_least: int = 1, instead: str = "") -> Kind:
    """A whole number from `at_least` to `at_most`; `instead` says what to do if that is too little."""

    def read(value: object) -> int:
        amount = _amount(value, {})
        if not (at_least <= amount <= at_most and amount.is_integer()):
            raise ValueError(
                f"is no whole number from {at_least} to {at_most}: "
                + (instead if amount > at_most and instead else "give one that is")
            )
        return int(amount)

    return Kind("number", read, bounds=f"{at_least} to {at_most}")


def choice(*choices: str | bool) -> Kind:
    """One of some words; where True and False are among them, also any word that means these."""
    words = [str(each).lower() for each in choices]
    flags = _FLAGS if True in choices else {}

    def read(value: object) -> str | bool:
        word = value.strip().lower() if isinstance(value, str) else value
        if isinstance(word, str):
            word = flags.get(word, word)
        if isinstance(word, str | bool) and word in choices:
            return word
        raise ValueError(f"is none of {', '.join(words)}; did you mean {nearest(value, words)}?")

    return Kind(" | ".join(words), read, lambda value: str(value).lower())


def text(pattern: str, wanted: str) -> Kind:
    """Text of which the whole matches `pattern`; `wanted` is the end of the refusal."""
    matches = re.compile(pattern).fullmatch

    def read(value: object) -> str:
        if not isinstance(value, str) or not matches(value):
            raise ValueError(wanted)
        return value

    return Kind("text", read)


def _amount(value: object, units: Mapping[str, float]) -> float:
    """A number, or text that is one with a unit; NaN, which lies in no range, for anything else."""
    if isinstance(value, str):
        found = _QUANTITY.fullmatch(value.strip().lower())
        return float(found[1]) * {"": 1.0, **units}.get(found[2], math.nan) if found else math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_AMOUNT_MAX < value < _AMOUNT_MAX:
        return math.nan
    return float(value)


def _show_duration(seconds: float) -> str:
    """In the largest unit up to hours that gives a whole number, and in ms at least."""
    milliseconds = round(seconds * 1_000, 6)
    for unit, amount in (("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if milliseconds % amount == 0 and (milliseconds or unit == "s"):
            return f"{milliseconds / amount:.0f}{unit}"
    return f"{milliseconds:.15g}ms"


def _show_size(amount: int) -> str:
    """In the largest unit that gives a whole number."""
    units = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 1))
    return next(f"{amount // unit_bytes}{unit}" for unit, unit_bytes in units if amount % unit_bytes == 0)


def _read_cookie_name(value: object) -> str:
    """A token (RFC 6265 §4.1.1, RFC 9110 §5.6.2) without any of the prefixes that promise something to browsers."""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ValueError(
            "is no cookie name: give up to 64 letters, digits and any of !#$%&'*+-.^_`|~ (RFC 6265 §4.1.1)"
        )
    if _COOKIE_PREFIX.match(value):
        raise ValueError("begins with a prefix, which is added where it is due: leave it out")
    return value


def _read_prefixes(value: object) -> tuple[str, ...]:
    paths = (value,) if isinstance(value, str) else value
    if not isinstance(paths, Sequence) or not all(isinstance(path, str) and path.startswith("/") for path in paths):
        raise ValueError("is no list of path prefixes: each begins with /, as in /static/")
    if len(paths) > PREFIXES_MAX or any(len(path) > PREFIX_CHARS_MAX for path in paths):
        raise ValueError(
            f"has more than {PREFIXES_MAX} path prefixes, or one of more than {PREFIX_CHARS_MAX} characters: put what "
            "needs no session under fewer, shorter ones"
        )
    return tuple(paths)


def _read_secrets(value: object) -> tuple[bytes, ...]:
    """White space around a secret, a line end above all, is no part of it."""
    several = (value,) if isinstance(value, str | bytes) else value
    if not isinstance(several, Sequence) or not all(isinstance(one, str | bytes) for one in several):
        raise ValueError("is neither text nor a list of texts: draw one with `sessile keygen`")
    secrets = tuple(_secret_bytes(one).strip(_BLANKS.encode()) for one in several)
    if len(secrets) > SECRETS_MAX:
        raise ValueError(f"holds more than {SECRETS_MAX} secrets: drop the oldest")
    for why in filter(None, map(_weakness, secrets)):
        raise ValueError(f"{why}: draw one with `sessile keygen`")
    for one in several:
        if isinstance(one, str) and "," in one and not any(_weakness(_secret_bytes(part)) for part in items(one)):
            raise ValueError(
                "is several secrets with commas between them, which only the environment may hold: give a list"
            )
    return secrets


def _weakness(secret: bytes) -> str:
    """Why it is no good; empty for one that is."""
    if len(secret) < SECRET_BYTES_MIN:
        return f"is shorter than {SECRET_BYTES_MIN} bytes"
    if len(secret) > SECRET_BYTES_MAX:
        return f"is longer than {SECRET_BYTES_MAX} bytes"
    return "is made of words or repetitions, and may be guessed" if bits_of(secret) < BITS_MIN else ""


def _secret_bytes(secret: str | bytes) -> bytes:
    if isinstance(secret, bytes):
        return secret
    try:
        # What the environment holds as other than UTF-8 arrives as surrogates (PEP 383), and goes back to its bytes.
        return secret.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("is no Unicode text: draw one with `sessile keygen`") from None


def _read_file(value: object) -> Path | None:
    path = fspath(value) if isinstance(value, PathLike) else value
    if path is None or path == "":
        return None
    if not isinstance(path, str) or not path.isprintable():
        raise ValueError("is no path of a file: give one in printable text")
    if len(path) > PATH_CHARS_MAX:
        raise ValueError(f"is longer than {PATH_CHARS_MAX} characters: put the file elsewhere")
    return Path(path)


def _show_file(path: Path | None) -> str:
    return "" if path is None else str(path)


def _show_members(members: Sequence[object]) -> str:
    return ",".join(map(str, members))


CLUSTER_NAME: Final = text(r"[!-~]([ -~]{0,62}[!-~])?", "is no name: give up to 64 printable ASCII characters")
COOKIE_NAME: Final = Kind("text", _read_cookie_name)
FILE: Final = Kind("file", _read_file, _show_file)
"""A path, None for none; nobody looks whether the file is there."""
MEMBERS: Final = Kind("addresses", addresses.read_members, _show_members)
"""Servers, as a tuple of `Address` and `DnsName`. Commas separate them in text from any source."""
REACHABLE: Final = Kind("address", addresses.read_reachable)
"""`host:port` as text, empty for none."""
LISTENING: Final = Kind("address", addresses.read_listening)
"""The same, every interface allowed."""
PREFIXES: Final = Kind("paths", _read_prefixes, ",".join, is_list=True)
"""Path prefixes, as a tuple."""
SECRETS: Final = Kind("secrets", _read_secrets, lambda _: "", is_list=True, is_hidden=True)
"""One secret or several, as a tuple of bytes."""
