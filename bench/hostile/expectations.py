"""Whether a vector came out as its author said, apart from what the judge makes of it.

The judge reasons from the grammar and the rules; a vector says its outcome by itself. Two opinions, so that an error in
the one shows in the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.hostile.vector import Expect, Vector

if TYPE_CHECKING:
    from bench.hostile.wire import Answer, Answers

__all__ = ["broken_expectation"]


def broken_expectation(vector: Vector, answers: Answers, reached: bytes) -> str:
    """What is not as the vector says, given the client's answers and the bytes that reached the server."""
    whole = sum(answer.serial is not None for answer in answers.finals)
    own = [answer for answer in answers.finals if answer.serial is None]
    if vector.expect is Expect.REFUSED and not vector.whole and reached:
        return f"must be refused, and the server saw {reached[:1_000]!r}"
    if vector.expect is not Expect.EITHER and whole != vector.whole:
        return f"{whole} requests reached the server whole, {vector.whole} must; the proxy said {_said(own)}"
    if vector.expect is Expect.EITHER and not (whole <= vector.whole and (whole or own)):
        return f"{whole} requests reached the server whole, {vector.whole} may; the proxy said {_said(own)}"
    return _bytes_broken(vector, reached) if whole else ""


def _said(own: list[Answer]) -> str:
    return ", ".join(f"{answer.status} {answer.body[:80]!r}" for answer in own) or "nothing"


def _bytes_broken(vector: Vector, reached: bytes) -> str:
    seen = reached.lower()
    for wanted in vector.must:
        if wanted.lower() not in seen:
            return f"{wanted!r} must reach the server, which saw {reached[:2_000]!r}"
    for unwanted in vector.must_not:
        if unwanted.lower() in seen:
            return f"{unwanted!r} must not reach the server, which saw {reached[:2_000]!r}"
    return ""
