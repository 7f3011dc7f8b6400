"""Mutations of requests, by the thousand and by seed: what goes wrong once can be sent again.

A mutation is bytes and the pieces they are sent in. Some change nothing but the pieces, so that a request must pass
however TCP cuts it; most change a byte, a line end, a field line or a length. The same seed and the same vectors give the
same mutations, whatever the machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from bench.hostile.vector import Vector, head, post

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

__all__ = ["Mutation", "mutations"]

ODD: Final = (
    b"\r",
    b"\n",
    b"\0",
    b"\t",
    b"\x0b",
    b"\x0c",
    b"\x85",
    b"\xa0",
    b"\x1c",
    b"\x7f",
    b" ",
    b":",
    b";",
    b",",
    b"\r\n",
    b"\n\n",
    b"\r\r\n",
    b"\xff",
)
LENGTHS: Final = (
    b"+5",
    b"-1",
    b"05",
    b"0x5",
    b"5,5",
    b"5 ",
    b"\t5",
    b"",
    b"5\x0b",
    b"4294967296",
    b"18446744073709551616",
    b"6",
    b"1",
    b"0",
    b"5;",
)
BROWSER_LINES: Final = (
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    b"Accept-Language: ko-KR,ko;q=0.8,en-US;q=0.5",
    b"Accept-Encoding: gzip, deflate, br, zstd",
    b"Referer: http://a.example/v",
    b"Sec-Fetch-Site: same-origin",
    b"Priority: u=0, i",
    b'If-None-Match: "x"',
    b"Cache-Control: max-age=0",
)
PIECES_MAX: Final = 12
MUTATED_BYTES_MAX: Final = 6_000
"""Longer vectors are about their length; mutating them costs time and finds nothing else."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One case: its name tells the vector, the seed's number and what was done to it."""

    name: str
    raw: bytes
    pieces: tuple[bytes, ...]


def mutations(random: Random, vectors: Sequence[Vector], count: int, affinity: bytes) -> Iterator[Mutation]:
    """So many mutations of these vectors and of valid requests."""
    usable = [vector for vector in vectors if len(vector.raw) <= MUTATED_BYTES_MAX]
    for number in range(count):
        marker = b"marker-m%d" % number
        kind = random.random()
        if kind < 0.25:
            name, raw = "valid", _valid(random, marker)
        elif kind < 0.55:
            name, raw = "browser", _browser(random, marker, affinity)
        else:
            vector = random.choice(usable)
            name, raw = vector.name, vector.filled(marker, affinity).raw
        done = []
        for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
            change = random.choice(CHANGES)
            raw = change(random, raw)
            done.append(change.__name__.strip("_"))
        pieces = _cut(random, raw) if random.random() < 0.5 else (raw,)
        yield Mutation(f"#{number} {name} {'+'.join(done) or 'unchanged'}", raw, pieces)


def _valid(random: Random, marker: bytes) -> bytes:
    """A request that breaks no rule, or two of them."""
    lines = [b"X-%d: %d" % (number, random.randrange(1000)) for number in range(random.randrange(12))]
    lines += random.sample(
        [b"Cookie: a=1; b=2", b"Accept: */*", b"X-Forwarded-For: 10.9.9.9", b"Connection: keep-alive", b"TE: trailers"],
        2,
    )
    random.shuffle(lines)
    body = random.randbytes(random.choice((0, 1, 5, 300)))
    made = (
        head(*lines),
        post(*lines, b"Content-Length: %d" % len(body), body=body),
        post(*lines, b"Transfer-Encoding: chunked", body=_chunks(random, body)),
    )
    raw = b"".join(random.choices(made, k=random.choice((1, 1, 2))))
    return raw.replace(b"@M@", marker)


def _browser(random: Random, marker: bytes, affinity: bytes) -> bytes:
    """What most requests look like, and what a proxy may therefore have a short way for."""
    before = random.sample(BROWSER_LINES, random.randrange(len(BROWSER_LINES)))
    after = random.sample(BROWSER_LINES, random.randrange(3))
    cookies = random.sample([b"a=1", b"theme=dark", affinity, b"id=%d" % random.randrange(10**9)], random.randint(1, 4))
    lines = [*before, b"Connection: keep-alive", b"Cookie: " + b"; ".join(cookies), *after]
    if random.random() < 0.2:
        lines.remove(b"Connection: keep-alive")
    return head(*lines, line=random.choice((b"GET", b"GET", b"HEAD", b"POST")) + b" /v/" + marker + b" HTTP/1.1")


def _chunks(random: Random, body: bytes) -> bytes:
    parts = []
    while body:
        size = random.randint(1, len(body))
        parts.append(b"%x\r\n%b\r\n" % (size, body[:size]))
        body = body[size:]
    return b"".join(parts) + b"0\r\n\r\n"


def _cut(random: Random, raw: bytes) -> tuple[bytes, ...]:
    """The same bytes in up to a dozen pieces, sometimes cut within a line end."""
    places = {random.randrange(len(raw) + 1) for _ in range(random.randint(1, PIECES_MAX - 2))}
    ends = [match.start() + 1 for match in re.finditer(rb"\r\n", raw)]
    if ends:
        places.add(random.choice(ends))
    if random.random() < 0.5:  # a head by itself may be read otherwise than one that its body follows at once
        places = {raw.find(b"\r\n\r\n") + 4}
    bounds = [0, *sorted(places), len(raw)]
    return tuple(raw[start:stop] for start, stop in pairwise(bounds) if stop > start) or (raw,)


def flip_bit(random: Random, raw: bytes) -> bytes:
    at = random.randrange(len(raw)) if raw else 0
    return raw[:at] + bytes([raw[at] ^ (1 << random.randrange(8))]) + raw[at + 1 :] if raw else raw


def insert_odd(random: Random, raw: bytes) -> bytes:
    at = random.randrange(len(raw) + 1)
    return raw[:at] + random.choice(ODD) + raw[at:]


def insert_odd_at_edge(random: Random, raw: bytes) -> bytes:
    """Beside a line end, a colon or a blank, where parsers differ most."""
    edges = [at for match in re.finditer(rb"\r\n|:|[ ,;]", raw) for at in match.span()]
    at = random.choice(edges) if edges else 0
    return raw[:at] + random.choice(ODD) + raw[at:]


def replace_byte(random: Random, raw: bytes) -> bytes:
    at = random.randrange(len(raw)) if raw else 0
    return raw[:at] + random.choice(ODD) + raw[at + 1 :]


def drop_bytes(random: Random, raw: bytes) -> bytes:
    at = random.randrange(len(raw)) if raw else 0
    return raw[:at] + raw[at + random.randint(1, 4) :]


def truncate(random: Random, raw: bytes) -> bytes:
    return raw[: random.randrange(1, len(raw) + 1)] if raw else raw


def duplicate_line(random: Random, raw: bytes) -> bytes:
    lines = raw.split(b"\r\n")
    lines.insert(random.randrange(len(lines)), random.choice(lines))
    return b"\r\n".join(lines)


def swap_lines(random: Random, raw: bytes) -> bytes:
    lines = raw.split(b"\r\n")
    first, second = random.randrange(len(lines)), random.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\r\n".join(lines)


def drop_line(random: Random, raw: bytes) -> bytes:
    lines = raw.split(b"\r\n")
    del lines[random.randrange(len(lines))]
    return b"\r\n".join(lines)


def recase_line(random: Random, raw: bytes) -> bytes:
    lines = raw.split(b"\r\n")
    at = random.randrange(len(lines))
    lines[at] = bytes(byte ^ 0x20 if 65 <= byte & ~0x20 <= 90 and random.random() < 0.5 else byte for byte in lines[at])
    return b"\r\n".join(lines)


def change_line_end(random: Random, raw: bytes) -> bytes:
    ends = [match.start() for match in re.finditer(rb"\r\n", raw)]
    at = random.choice(ends) if ends else 0
    return raw[:at] + random.choice((b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b"\0\r\n")) + raw[at + 2 :]


def change_length(random: Random, raw: bytes) -> bytes:
    return re.sub(
        rb"(?i)(content-length:[ \t]*)[^\r\n]*", lambda match: match[1] + random.choice(LENGTHS), raw, count=1
    )


def add_framing(random: Random, raw: bytes) -> bytes:
    """A second opinion on where the body ends, after the request line or before the end of the head."""
    line = random.choice(
        (
            b"Content-Length: %b" % random.choice(LENGTHS),
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: x",
            b"Connection: close, content-length",
        )
    )
    at = raw.find(b"\r\n") if random.random() < 0.5 else raw.find(b"\r\n\r\n")
    return raw[: at + 2] + line + b"\r\n" + raw[at + 2 :] if at >= 0 else raw


def change_chunk(random: Random, raw: bytes) -> bytes:
    """Another chunk size, extension or line end, somewhere in the body."""
    new = random.choice(
        (
            b"\r\n0x1\r\n",
            b"\r\n-1\r\n",
            b"\r\n1;\nx\r\n",
            b"\r\n 1\r\n",
            b"\r\n1\n",
            b"\r\nffffffffffffffff1\r\n",
            b"\r\n00\r\n",
            b"\r\n1;a=\r\n",
        )
    )
    starts = list(re.finditer(rb"\r\n[0-9a-f]+\r\n", raw))
    if not starts:
        return raw
    match = random.choice(starts)
    return raw[: match.start()] + new + raw[match.end() :]


def join_another(random: Random, raw: bytes) -> bytes:
    another = head(line=b"GET /v/marker-joined HTTP/1.1")
    return raw + another if random.random() < 0.7 else another + raw


CHANGES: Final[tuple[Callable[[Random, bytes], bytes], ...]] = (
    flip_bit, insert_odd, insert_odd_at_edge, insert_odd_at_edge, replace_byte, drop_bytes, truncate, duplicate_line, swap_lines,
    drop_line, recase_line, change_line_end, change_length, add_framing, change_chunk, join_another,
)  # fmt: skip
