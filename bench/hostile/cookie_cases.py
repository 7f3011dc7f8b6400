"""Session cookies nobody issued: random, mutated, mixed, moved, oversized and malformed ones, by seed.

The material is what a thief could have: the two cookies of two users, those of a service with another secret and of one
with another cookie name, and any bytes. `owner` says whose session a case may open: nobody's, but for the few cases
in which a user's own cookie stands beside rubbish.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

__all__ = ["CookieCase", "Jar", "Material", "cookie_cases"]

URLSAFE: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@dataclass(frozen=True, slots=True)
class Jar:
    """The two cookies of one user."""

    id: bytes
    version: bytes


@dataclass(frozen=True, slots=True)
class Material:
    """What the cases are made of; `name` is the id cookie's, the version's ends in `_v`."""

    name: bytes
    victim: Jar
    other: Jar
    foreign: tuple[Jar, ...]


@dataclass(frozen=True, slots=True)
class CookieCase:
    """The values of a request's Cookie fields, and whose session they may open: `victim`, or nobody's."""

    name: str
    fields: tuple[bytes, ...]
    owner: str = ""


def cookie_cases(random: Random, material: Material, count: int) -> Iterator[CookieCase]:
    """So many cases."""
    for number in range(count):
        make = random.choice(MAKERS)
        case = make(random, material)
        yield CookieCase(f"#{number} {make.__name__}", case.fields, case.owner)


def _pair(material: Material, jar_id: bytes, version: bytes = b"") -> tuple[bytes, ...]:
    pair = b"%b=%b" % (material.name, jar_id)
    return (pair + b"; %b_v=%b" % (material.name, version),) if version else (pair,)


def _case(fields: tuple[bytes, ...], owner: str = "") -> CookieCase:
    return CookieCase("", fields, owner)


def random_text(random: Random, material: Material) -> CookieCase:
    text = bytes(random.choices(URLSAFE, k=random.choice((1, 16, 43, 44, 45, 88, 200))))
    return _case(_pair(material, text, text if random.random() < 0.5 else material.victim.version))


def random_bytes(random: Random, material: Material) -> CookieCase:
    return _case(_pair(material, random.randbytes(random.randint(0, 80)), random.randbytes(random.randint(0, 80))))


def flipped(random: Random, material: Material) -> CookieCase:
    """One to three bits of the decoded value; every bit is under the MAC, or is the MAC."""
    raw = bytearray(base64.urlsafe_b64decode(material.victim.id))
    for place in random.sample(range(len(raw) * 8), random.randint(1, 3)):
        raw[place // 8] ^= 1 << place % 8
    return _case(_pair(material, base64.urlsafe_b64encode(bytes(raw)), material.victim.version))


def changed_character(random: Random, material: Material) -> CookieCase:
    text = bytearray(material.victim.id)
    at = random.randrange(len(text))
    text[at] = random.choice(URLSAFE.replace(bytes([text[at]]), b""))
    return _case(_pair(material, bytes(text), material.victim.version))


def truncated(random: Random, material: Material) -> CookieCase:
    return _case(_pair(material, material.victim.id[: random.randrange(len(material.victim.id))]))


def extended(random: Random, material: Material) -> CookieCase:
    tail = random.choice((b"A", b"==", b"=", b"AAAA", b".x", b"%00", b"\0"))
    return _case(_pair(material, material.victim.id + tail))


def swapped_halves(random: Random, material: Material) -> CookieCase:
    """The MAC of one user with the id of another, cut wherever."""
    mine, theirs = material.victim.id, material.other.id
    mixes = {theirs[:cut] + mine[cut:] for cut in range(1, len(mine))} - {mine, theirs}  # where ends happen to be equal
    return _case(_pair(material, random.choice(sorted(mixes)), material.victim.version))


def recased(random: Random, material: Material) -> CookieCase:
    text = material.victim.id.swapcase() if random.random() < 0.5 else material.victim.id.upper()
    return _case(_pair(material, text))


def other_service(random: Random, material: Material) -> CookieCase:
    """Rightly signed, by another secret, another cluster or for another cookie name."""
    jar = random.choice(material.foreign)
    return _case(_pair(material, jar.id, random.choice((jar.version, material.victim.version))))


def version_as_id(random: Random, material: Material) -> CookieCase:
    del random
    return _case(_pair(material, material.victim.version, material.victim.id))


def oversized(random: Random, material: Material) -> CookieCase:
    return _case(_pair(material, material.victim.id + b"A" * random.choice((100, 5_000, 100_000))))


def wrong_alphabet(random: Random, material: Material) -> CookieCase:
    text = bytearray(material.victim.id)
    text[random.randrange(len(text))] = random.choice(b"+/=!*.~%\\\"' \t,")
    return _case(_pair(material, bytes(text)))


def not_ascii(random: Random, material: Material) -> CookieCase:
    at = random.randrange(len(material.victim.id))
    odd = random.choice((b"\xff", b"\xc3\xa9", b"\xef\xbc\xa1", b"\x80", b"\xed\xa0\x80", b"\xf0\x9f\x8d\xaa"))
    return _case(_pair(material, material.victim.id[:at] + odd + material.victim.id[at + 1 :]))


def many_of_one_name(random: Random, material: Material) -> CookieCase:
    values = [bytes(random.choices(URLSAFE, k=44)) for _ in range(random.choice((9, 50, 500)))]
    return _case((b"; ".join(b"%b=%b" % (material.name, value) for value in values),))


def many_fields(random: Random, material: Material) -> CookieCase:
    pairs = [_pair(material, bytes(random.choices(URLSAFE, k=44)))[0] for _ in range(random.choice((2, 20)))]
    return _case(tuple(pairs))


def injected(random: Random, material: Material) -> CookieCase:
    """Line ends and attributes that would be seen if any of it came back in a field."""
    tail = random.choice(
        (b"\r\nSet-Cookie: evil=1", b"\nX-Evil: 1", b"%0d%0aSet-Cookie: evil=1", b"; Path=/; Domain=evil", b"\0")
    )
    text = bytes(random.choices(URLSAFE, k=44))
    return _case(_pair(material, text + tail, text + tail))


def malformed_field(random: Random, material: Material) -> CookieCase:
    text = material.victim.id
    field = random.choice(
        (
            material.name + b" = " + text, material.name + text, b"=" + text, b";" * 1_000 + material.name, material.name + b"==" + text,
            b"x" + material.name + b"=" + text, material.name + b"x=" + text, material.name.upper() + b"=" + text, b"",
            b"a=" + material.name + b"=" + text, b'a="; ' + material.name + b'"' + text, material.name + b"=" + text[:20] + b";" + text[20:],
        )
    )  # fmt: skip
    return _case((field,))


def own_beside_rubbish(random: Random, material: Material) -> CookieCase:
    """A user's own cookies still count when somebody planted others of the same name."""
    rubbish = b"%b=%b" % (material.name, bytes(random.choices(URLSAFE, k=44)))
    own = _pair(material, material.victim.id, material.victim.version)[0]
    return _case((random.choice((rubbish + b"; " + own, own + b"; " + rubbish)),), "victim")


def own_with_others_version(random: Random, material: Material) -> CookieCase:
    """A version that belongs to another id is ignored."""
    version = random.choice((material.other.version, *(jar.version for jar in material.foreign), b"A" * 44, b""))
    return _case(_pair(material, material.victim.id, version), "victim")


MAKERS: Final[tuple[Callable[[Random, Material], CookieCase], ...]] = (
    random_text, random_bytes, flipped, changed_character, truncated, extended, swapped_halves, recased, other_service, version_as_id,
    oversized, wrong_alphabet, not_ascii, many_of_one_name, many_fields, injected, malformed_field, own_beside_rubbish,
    own_with_others_version,
)  # fmt: skip
