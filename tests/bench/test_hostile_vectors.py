"""The vectors and the rules they are held against: two opinions on every case, which must be one."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from bench.hostile import policy
from bench.hostile.answers import all_answers
from bench.hostile.grammar import End, read_requests
from bench.hostile.mutator import CHANGES, mutations
from bench.hostile.vector import Expect, Vector, head
from bench.hostile.vectors import all_vectors

VECTORS = [vector.filled(b"marker-1", b"affinity=good") for vector in all_vectors()]
WITHOUT_END = {
    "line-all-lf",
    "line-cr-cr-lf",
    "limit-head-endless",
    "unfinished-head",
    "unfinished-line",
    "unfinished-crlf",
}
"""Refused because their head never ends, which no reading of their bytes can tell."""
CLASSES = ("CL.TE", "TE.TE", "TE in HTTP/1.0", "CL.CL", "CL.0", "obs-fold", "bare LF", "no blank before the colon", "CR, LF and NUL", "chunk-ext", "chunk-size", "trailers", "Expect", "H2 downgrade", "Host", "hop-by-hop")  # fmt: skip


def allowed(vector: Vector) -> int:
    """How many of its requests the rules let pass before the first that they do not."""
    count = 0
    for request in read_requests(vector.raw).requests:
        if policy.refusal(request):
            break
        count += 1
    return count


@pytest.mark.parametrize("vector", VECTORS, ids=[vector.name for vector in VECTORS])
def test_author_and_rules_agree(vector: Vector) -> None:
    """What a vector's author expects is what grammar and rules make of its bytes."""
    reading = read_requests(vector.raw)
    if vector.expect is Expect.FORWARDED:
        assert reading.end is not End.FAULT
        assert allowed(vector) == len(reading.requests) == vector.whole
    elif vector.expect is Expect.CUT:
        assert allowed(vector) == 0
        assert reading.begun is not None or reading.end is not End.FAULT
    elif vector.expect is Expect.REFUSED and vector.name not in WITHOUT_END:
        assert allowed(vector) == vector.whole
        assert reading.end is End.FAULT or len(reading.requests) > vector.whole


def test_every_name_is_used_once() -> None:
    """A name finds one vector, one answer."""
    for names in ([vector.name for vector in VECTORS], [answer.name for answer in all_answers()]):
        assert not [name for name, count in Counter(names).items() if count > 1]


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_has_vectors(name: str) -> None:
    """Each known way of smuggling has more than one vector of its own."""
    assert sum(name.lower() in vector.rule.lower() for vector in VECTORS) > 1


def test_what_may_pass_is_rewritten_by_the_rules() -> None:
    """The rules cut what a client says of itself and add ours, and keep the order of equal names."""
    raw = head(
        b"X-A: 1", b"X-Forwarded-For: 9", b"Connection: X-B", b"X-B: 2", b"x-a: 3", b"Cookie: a=1; affinity=x; b=2"
    )
    [request] = read_requests(raw).requests
    assert policy.forwarded_fields(request, b"affinity") == {
        b"host": [b"a.example"],
        b"x-a": [b"1", b"3"],
        b"cookie": [b"a=1", b"b=2"],
        b"x-forwarded-for": [policy.CLIENT_ADDRESS],
        b"x-forwarded-proto": [b"http"],
        b"x-forwarded-host": [b"a.example"],
    }


def test_a_seed_gives_the_same_mutations_again() -> None:
    """A failing case can be sent again, by its seed and its number."""
    first, second = (list(mutations(Random(7), VECTORS, 300, b"affinity=good")) for _ in range(2))
    assert first == second
    assert first != list(mutations(Random(8), VECTORS, 300, b"affinity=good"))


def test_mutations_are_of_every_kind_and_lose_no_byte_in_pieces() -> None:
    """Every change is made, some are cut into pieces, some left as they were; the pieces are the whole."""
    made = list(mutations(Random(7), VECTORS, 2_000, b"affinity=good"))
    assert all(b"".join(each.pieces) == each.raw for each in made if each.raw)
    assert any(len(each.pieces) > 5 for each in made)
    for change in CHANGES:
        assert any(change.__name__ in each.name for each in made)
    valid = [
        read_requests(each.raw)
        for each in made
        if " unchanged" in each.name and each.name.split()[1] in {"valid", "browser"}
    ]
    assert valid
    assert all(reading.end is End.BOUNDARY and reading.requests for reading in valid)
