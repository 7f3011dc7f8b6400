"""The time oracle finds what takes more than linear time, and only that; no parser of ours does."""

from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING

import pytest

from bench.hostile import times
from bench.hostile.parsers import PLACES, Place

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLE = 200
FOUND_IN_USE = {
    ("request, Connection", b" ,"),
    ("request, Connection alone", b", ,"),
    ("request, User-Agent", b"_"),
    ("request, Cookie", b"_"),
    ("request, Cookie alone", b"affinity=;a;;"),
    ("request, a line", b"a_b: c\r\n"),
    ("request by trusted, Forwarded alone", b" "),
    ("chunked body, chunks", b"1\r\nx\r\n"),
    ("dripping body, chunks", b"1\r\nx\r\n"),
}


def place(read: Callable[[bytes], object]) -> Place:
    return Place("planted", lambda: read, b"", b"")


def quadratic(data: bytes) -> None:
    sum(1 for _ in data for _ in data[::256])


@pytest.mark.parametrize(
    ("read", "is_slow"),
    [
        (lambda data: re.fullmatch(rb"(?:a*[ \t]*,[ \t]*)*a*", data), True),
        (quadratic, True),
        (lambda data: quadratic(data[: len(data) // 2]), True),
        (lambda data: [data.count(b"a") for _ in range(100)], False),
        (lambda data: bytes(each for each in data), False),
    ],
)
def test_the_oracle_tells_them_apart(*, read: Callable[[bytes], object], is_slow: bool) -> None:
    """Exponential and quadratic are found, by the alarm and by growth; linear is not accused."""
    found = times.sweep([times.Case(place(read), b" ,", b'"')])
    assert bool(found.slow) is is_slow, found


def test_no_parser_takes_more_than_linear_time() -> None:
    """What was found in use, and a sample of all plain cases; the show tries every one of them and more."""
    cases = times.plain_cases()
    known = [case for case in cases if (case.place.name, case.piece) in FOUND_IN_USE]
    assert {(case.place.name, case.piece) for case in known} == FOUND_IN_USE
    found = times.sweep([*known, *Random(7).sample(cases, SAMPLE)])
    assert not found.slow, "\n".join(map(str, found.slow))
    assert found.cases == len(known) + SAMPLE


def test_every_place_is_tried() -> None:
    """All parsers have places, and each is read without an unexpected error where nothing is repeated much."""
    for each in PLACES:
        times.growth(times.Case(each, b"x", b""), 1)
    kinds = {each.name.partition(",")[0] for each in PLACES}
    assert {"request", "request by trusted", "response", "usual response", "chunked body", "session cookies"} <= kinds
