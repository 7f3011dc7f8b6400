"""Bodies: where they end, in whatever pieces they come, and what is no body."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessile.balancer.bodies import (
    CHUNK_LINE_BYTES_MAX,
    TRAILER_BYTES_MAX,
    BodyError,
    BodyReader,
    ChunkedReader,
    LengthReader,
    UntilCloseReader,
    chunk,
    reader_for,
)


def read(reader: BodyReader, data: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """Feed `data` cut at `cuts`; returns payload and what lies beyond the end."""
    edges = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    payload = b""
    for start, stop in pairwise(edges):
        if reader.is_done:
            return payload, reader.rest + data[start:]
        payload += reader.feed(data[start:stop])
        while reader.is_behind:
            payload += reader.feed(b"")
    return payload, reader.rest


cuts = st.lists(st.integers(0, 4000), max_size=30)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=6), st.binary(max_size=20), cuts)
def test_chunked_in_any_pieces(payloads: list[bytes], beyond: bytes, where: list[int]) -> None:
    """Whatever the cuts, the payload comes out whole and what follows the end is told apart."""
    data = b"".join(b"%X;ext=1\r\n%b\r\n" % (len(one), one) for one in payloads) + b"0\r\nT: x\r\n\r\n" + beyond
    reader = ChunkedReader()
    assert read(reader, data, where) == (b"".join(payloads), beyond)
    assert reader.is_done


@given(st.binary(max_size=300), st.binary(max_size=20), cuts)
def test_length_in_any_pieces(payload: bytes, beyond: bytes, where: list[int]) -> None:
    """A counted body ends at its count."""
    reader = LengthReader(len(payload))
    assert read(reader, payload + beyond, where) == (payload, beyond) if payload else reader.is_done


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_chunk_and_read_are_inverse(payloads: list[bytes]) -> None:
    """What we chunk is read back."""
    data = b"".join(chunk(one, is_last=False) for one in payloads) + chunk(b"", is_last=True)
    assert read(ChunkedReader(), data, [7, 50]) == (b"".join(payloads), b"")


@pytest.mark.parametrize(
    "data",
    [
        b"0x5\r\nhello\r\n", b"+5\r\nhello\r\n", b" 5\r\nhello\r\n", b"5_0\r\n", b"\r\n", b";a\r\n", b"5\nhello\r\n",
        b"5\r\nhelloX\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello\rX", b"f" * 16 + b"\r\n", b"5;\x00\r\n", b"5;a\r;\r\n",
        b"5;" + b"a" * 300 + b"\r\n", b"5" * 400, b"0\r\nbad trailer\r\n\r\n", b"0\r\n x: y\r\n\r\n", b"0\r\nA: b\n\r\n",
        b"0\r\n" + b"A: b\r\n" * 2000 + b"\r\n", b"5 \r\nhello\r\n", b"0\r\nA" + b"a" * 9000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [1, 3, 10_000])
def test_broken_chunks(data: bytes, step: int) -> None:
    """Whatever is not strictly the chunked coding raises, in one piece or in many."""
    reader = ChunkedReader()
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    with pytest.raises(BodyError):
        list(map(reader.feed, pieces))


@given(st.binary(max_size=400), cuts)
def test_random_bytes_end_or_raise(data: bytes, where: list[int]) -> None:
    """Nothing but BodyError is ever raised, and nothing comes out that did not go in."""
    try:
        payload, _ = read(ChunkedReader(), data, where)
    except BodyError:
        return
    assert len(payload) <= len(data)


def test_little_is_kept() -> None:
    """Between two pieces only an unfinished line is kept, never payload."""
    reader = ChunkedReader()
    reader.feed(b"ffffff\r\n" + b"x" * 100_000)
    assert len(reader._buffer) == 0
    with pytest.raises(BodyError):
        ChunkedReader().feed(b"1" * 300)


@pytest.mark.parametrize(
    ("before", "line", "most"),
    [
        (b"", b"5;", CHUNK_LINE_BYTES_MAX),
        (b"0\r\n", b"A:", TRAILER_BYTES_MAX),
        (b"0\r\nA: b\r\n", b"A:", TRAILER_BYTES_MAX - 6),
    ],
)
def test_a_line_is_as_long_as_it_may_be(before: bytes, line: bytes, most: int) -> None:
    """One of the greatest length is read, and of a longer one no byte is waited for beyond that length and a line's end."""
    longest = line.ljust(most, b"x")
    assert ChunkedReader().feed(before + longest + b"\r\n") == b""
    assert ChunkedReader().feed(before + longest + b"\r") == b""
    with pytest.raises(BodyError, match="too long"):
        ChunkedReader().feed(before + longest + b"xx")


def test_readers_by_kind() -> None:
    """A length, -1 and -2 give the three readers."""
    assert isinstance(reader_for(5), LengthReader)
    assert isinstance(reader_for(-1), ChunkedReader)
    until_close = reader_for(-2)
    assert isinstance(until_close, UntilCloseReader) and until_close.feed(b"x") == b"x" and not until_close.is_done
    assert LengthReader(0).is_done
