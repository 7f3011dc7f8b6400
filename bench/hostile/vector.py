"""What a vector is, and short ways to write one.

A vector is a request (or several) as bytes, the rule it stands for with its source, and what must come of it. Three
words in its bytes are filled in when it is sent: `@M@` is a marker that the answer echoes, `@AFFINITY@` a valid affinity
cookie `name=value`, `@COOKIE@` the name of that cookie alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

__all__ = ["Expect", "Vector", "cut", "either", "forwarded", "head", "post", "refused"]


class Expect(Enum):
    """What must come of a vector."""

    REFUSED = "4xx, and no byte of it reached a server"
    FORWARDED = "reached the server whole, once, rewritten by the rules"
    CUT = "never whole at the server: refused, or cut off when the fault showed"
    EITHER = "refused, or forwarded by the rules"


@dataclass(frozen=True, slots=True)
class Vector:
    """One case; `whole` is how many requests must reach the server whole."""

    name: str
    raw: bytes
    rule: str
    expect: Expect
    whole: int
    must: tuple[bytes, ...] = ()
    """What must be in the bytes that reached the server; compared without regard to case."""
    must_not: tuple[bytes, ...] = ()

    def filled(self, marker: bytes, affinity: bytes) -> Vector:
        """The same with its three words filled in."""

        def fill(text: bytes) -> bytes:
            text = text.replace(b"@M@", marker).replace(b"@AFFINITY@", affinity)
            return text.replace(b"@COOKIE@", affinity.partition(b"=")[0])

        must, must_not = tuple(map(fill, self.must)), tuple(map(fill, self.must_not))
        return replace(self, raw=fill(self.raw), must=must, must_not=must_not)


def head(*lines: bytes, line: bytes = b"GET /v/@M@ HTTP/1.1", host: bytes = b"Host: a.example") -> bytes:
    """A request head; a `host` of nothing leaves the Host field out."""
    return b"\r\n".join([line, *([host] if host else []), *lines, b"", b""])


def post(*lines: bytes, body: bytes = b"", host: bytes = b"Host: a.example") -> bytes:
    """A POST with these field lines and this body, whatever they say about each other."""
    return head(*lines, line=b"POST /v/@M@ HTTP/1.1", host=host) + body


def refused(name: str, raw: bytes, rule: str, *, whole: int = 0) -> Vector:
    """Nothing of it may reach a server; `whole` requests before it may."""
    return Vector(name, raw, rule, Expect.REFUSED, whole)


def cut(name: str, raw: bytes, rule: str) -> Vector:
    """It may never reach a server whole."""
    return Vector(name, raw, rule, Expect.CUT, 0)


def either(name: str, raw: bytes, rule: str, *, must_not: tuple[bytes, ...] = ()) -> Vector:
    """Refused, or forwarded once."""
    return Vector(name, raw, rule, Expect.EITHER, 1, (), must_not)


def forwarded(
    name: str, raw: bytes, rule: str, *, must: tuple[bytes, ...] = (), must_not: tuple[bytes, ...] = (), whole: int = 1
) -> Vector:
    """It reaches a server whole, with and without these bytes."""
    return Vector(name, raw, rule, Expect.FORWARDED, whole, must, must_not)
