"""Laws of the wire: cuts make no difference, and whatever arrives is a message or a WireError, in bounded memory."""

from __future__ import annotations

import itertools
import tracemalloc

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sessile.errors import WireError
from sessile.replication.messages import Beat, Digest, Goodbye, Hello, MemberInfo, Members, Message
from sessile.replication.wire import FRAME_BYTES_MAX, HELLO_BYTES_MAX, LENGTH_BYTES, Frames, decode, encode
from tests.replication.samples import KINDS, USUAL, any_message

HELLO = USUAL[0]
PAYLOADS = tuple(encode(message)[LENGTH_BYTES:] for message in USUAL)


def prefixed(payload: bytes) -> bytes:
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def read(payload: bytes) -> Message | None:
    """What becomes of a frame; None for a refusal. Any exception but WireError passes through."""
    for is_greeting in (False, True):
        try:
            message = decode(payload, is_greeting=is_greeting)
        except WireError as error:
            problem = str(error)
        else:
            assert isinstance(message, KINDS) and isinstance(message, Hello) is is_greeting
            return message
        assert 0 < len(problem) <= 200
    return None


# -- frames ------------------------------------------------------------------------------------------------------------


@given(payloads=st.lists(st.binary(min_size=1, max_size=300)), places=st.lists(st.integers(0, 5_000)))
def test_cuts_make_no_difference(payloads: list[bytes], places: list[int]) -> None:
    """However a stream comes in pieces, the same frames come out, in order, each as soon as it is whole."""
    stream = b"".join(map(prefixed, payloads))
    frames = Frames()
    found: list[bytes] = []
    fed = 0
    for piece in cut(stream, places):
        found += frames.feed(piece)
        fed += len(piece)
        ends = itertools.accumulate(LENGTH_BYTES + len(payload) for payload in payloads)
        assert len(found) == sum(end <= fed for end in ends)
    assert found == payloads


def test_byte_by_byte() -> None:
    """The slowest sender there is."""
    stream = b"".join(map(encode, USUAL))
    frames = Frames()
    found = [frame for place in range(len(stream)) for frame in frames.feed(stream[place : place + 1])]
    assert tuple(found) == PAYLOADS


@given(data=st.binary(max_size=2_000), places=st.lists(st.integers(0, 5_000)))
def test_any_bytes_are_frames_or_refused(data: bytes, places: list[int]) -> None:
    """And what is kept of them is never more than what came."""
    frames = Frames()
    try:
        for piece in cut(data, places):
            for frame in frames.feed(piece):
                assert frame
                read(frame)
            assert len(frames._buffer) <= len(data)
    except WireError:
        pass


@pytest.mark.parametrize("length", [0, HELLO_BYTES_MAX + 1, FRAME_BYTES_MAX])
def test_a_stranger_s_first_frame_is_short_and_not_empty(length: int) -> None:
    """Its announcement is refused before any of it is taken."""
    with pytest.raises(WireError, match=f"announces {length} bytes"):
        Frames().feed(length.to_bytes(LENGTH_BYTES, "big"))


@pytest.mark.parametrize("first", [1, HELLO_BYTES_MAX])
def test_after_the_first_frame_longer_ones_are_taken(first: int) -> None:
    """Up to the longest that can be announced; one of no length is refused all the same."""
    frames = Frames()
    assert frames.feed(prefixed(b"h" * first)) == (b"h" * first,)
    long = bytes(FRAME_BYTES_MAX)
    assert frames.feed(prefixed(long)[:-1]) == ()
    assert frames.feed(b"\0") == (long,)
    with pytest.raises(WireError, match="announces 0 bytes"):
        frames.feed(bytes(LENGTH_BYTES))


def test_what_is_not_whole_yet_is_bounded() -> None:
    """A stranger makes nobody hold more than its first frame."""
    frames = Frames()
    announced = HELLO_BYTES_MAX.to_bytes(LENGTH_BYTES, "big")
    frames.feed(announced)
    for _ in range(HELLO_BYTES_MAX // 1_024 - 1):
        assert frames.feed(b"x" * 1_024) == ()
        assert len(frames._buffer) <= LENGTH_BYTES + HELLO_BYTES_MAX
    assert len(frames.feed(b"x" * 1_024)) == 1 and frames._buffer == b""


# -- messages ----------------------------------------------------------------------------------------------------------


@given(payload=st.binary(max_size=200))
@example(b"")
@example(b"\x91\x03")  # a Beat without its field
@example(b"\x92\x03\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00")  # a Beat with an infinite view
@example(b"\xdd\xff\xff\xff\xff\x03")  # an array of four thousand million
@example(b"\x91" * 5_000)  # arrays in arrays
@example(b"\x92\x03\x01\x00")  # something behind the end
@example(b"\x92\x81\x01\x02\x03")  # no number where the number stands
@example(b"\x92\x02\x91\x94\xa1\xff\xa0\x00\x00")  # a name that is no text
def test_any_frame_is_a_message_or_refused(payload: bytes) -> None:
    """Never anything else."""
    read(payload)


@given(
    payload=st.sampled_from(PAYLOADS),
    changes=st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), min_size=1, max_size=4),
    end=st.none() | st.integers(0, 10**4),
)
def test_a_mutated_frame_is_a_message_or_refused(
    payload: bytes, changes: list[tuple[int, int]], end: int | None
) -> None:
    """Some bytes of a good one changed, or its tail cut off; what is still a message can be sent on."""
    mutated = bytearray(payload)
    for place, byte in changes:
        mutated[place % len(mutated)] = byte
    message = read(bytes(mutated if end is None else mutated[: end % len(mutated)]))
    if message is not None:
        assert decode(encode(message)[LENGTH_BYTES:], is_greeting=isinstance(message, Hello)) == message


@given(message=any_message(), junk=st.binary(min_size=1, max_size=9))
def test_nothing_stands_behind_a_message(message: Message, junk: bytes) -> None:
    """A frame holds one message and no byte more."""
    assert read(encode(message)[LENGTH_BYTES:] + junk) is None


@pytest.mark.parametrize("message", USUAL, ids=lambda message: type(message).__name__)
def test_a_link_begins_with_a_hello_and_has_one(message: Message) -> None:
    """Whoever begins with anything else, or greets again, breaks the protocol."""
    payload = encode(message)[LENGTH_BYTES:]
    is_hello = isinstance(message, Hello)
    assert decode(payload, is_greeting=is_hello) == message
    with pytest.raises(WireError, match=f"one Hello, and {type(message).__name__} came"):
        decode(payload, is_greeting=not is_hello)


@pytest.mark.parametrize("tag", [-1, 0, len(KINDS) + 1, 2**64 - 1])
def test_a_number_that_is_no_message_s(tag: int) -> None:
    """A later release's message is refused, not guessed at: its number tells releases apart when they greet."""
    assert read(msgspec.msgpack.encode([tag])) is None


def test_what_cannot_be_decoded_is_refused_whatever_is_wrong_with_it() -> None:
    """Nested too deeply, in a field that a later release may have; a text that is none; too short."""
    beat = encode(Beat(1))[LENGTH_BYTES:]
    assert read(bytes([beat[0] + 1]) + beat[1:] + b"\x91" * 100_000 + b"\x01") is None
    rejected = encode(Goodbye())[LENGTH_BYTES:] + b"\xa1\xff"
    assert read(rejected) is None and read(beat[:-1]) is None
    hello = encode(Hello(1, "cluster", "strategy", MemberInfo("b", "h", 1), 1, True, ()))[LENGTH_BYTES:]
    assert read(hello) is not None and read(hello.replace(b"cluster", b"\xff" * 7)) is None


def test_a_small_frame_costs_little_memory() -> None:
    """What a frame announces inside itself is not believed before it is there."""
    claims = [
        b"\x92\x02\xdd\xff\xff\xff\xff",
        b"\x92\x0d\xc6\xff\xff\xff\xff",
        b"\x94\x05\xc4\x01k\x01\x00\xdf\xff\xff\xff\xff",
    ]
    tracemalloc.start()
    try:
        for claim in claims:
            assert read(claim) is None
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_what_does_not_fit_a_frame_is_the_sender_s_mistake() -> None:
    """Senders bound what they send; the longest that fits goes through."""
    room = FRAME_BYTES_MAX - len(encode(Digest(bytes(2**17)))) + LENGTH_BYTES + 2**17
    assert len(encode(Digest(bytes(room)))) == LENGTH_BYTES + FRAME_BYTES_MAX
    with pytest.raises(WireError, match="a Digest of 16777216 bytes is over the limit"):
        encode(Digest(bytes(room + 1)))


def test_the_shortest_messages() -> None:
    """Three bytes of length, one of the array, one or two of its number."""
    assert encode(Goodbye()) == b"\x00\x00\x02\x91\x15"
    assert encode(Beat(0)) == b"\x00\x00\x03\x92\x03\x00"
    assert encode(Members(())) == b"\x00\x00\x03\x92\x02\x90"


def test_a_long_frame_is_joined_once() -> None:
    """It comes in hundreds of reads: memory that is copied grows with its length, and not with the square of it."""
    payload = bytes(2**20)
    frame = len(payload).to_bytes(LENGTH_BYTES, "big") + payload
    frames = Frames()
    frames.feed(encode(Beat(1)) + frame[:1_024])
    begun = frames._buffer
    last = 2**20 - 1_024
    for at in range(1_024, last, 1_024):
        assert frames.feed(frame[at : at + 1_024]) == ()
        assert frames._buffer is begun, "what came is added to, and not made anew"
    assert frames.feed(frame[last:] + encode(Beat(2))) == (payload, encode(Beat(2))[LENGTH_BYTES:])
    assert not frames._buffer
