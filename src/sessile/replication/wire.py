"""Messages as frames: three bytes of length, then msgpack. Nothing that arrives is believed before it is checked.

`Frames` cuts a stream of bytes into frames; `decode` turns one into a message or raises `WireError`. Both are bounded
whatever is sent. Pure: no IO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from sessile.errors import WireError
from sessile.replication.messages import Hello, Message

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FRAME_BYTES_MAX", "HELLO_BYTES_MAX", "LENGTH_BYTES", "Frames", "decode", "encode"]

LENGTH_BYTES: Final = 3
FRAME_BYTES_MAX: Final = 2**24 - 1
HELLO_BYTES_MAX: Final = 1024 * 2**10
"""A stranger's first frame may be no longer: nobody is made to hold more by somebody who has not greeted yet. A list
of as many members as there may be fits."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final[Callable[[bytes], Message]] = msgspec.msgpack.Decoder(Message).decode


def encode(message: Message) -> bytes:
    """One frame, length prefix included.

    Raises:
        WireError: it is longer than any receiver accepts.
    """
    payload = _encode(message)
    if len(payload) > FRAME_BYTES_MAX:
        raise WireError(f"a {type(message).__name__} of {len(payload)} bytes is over the limit of {FRAME_BYTES_MAX}")
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def decode(payload: bytes, *, is_greeting: bool = False) -> Message:
    """The message of one frame, without its length prefix.

    Raises:
        WireError: it is no message, or with `is_greeting` no Hello.
    """
    try:
        message = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise WireError(f"a frame of {len(payload)} bytes is no message: {error}"[:200]) from None
    if is_greeting is not isinstance(message, Hello):
        raise WireError(f"a link begins with one Hello, and {type(message).__name__} came")
    return message


class Frames:
    """Cuts what a socket brings into frames."""

    __slots__ = ("_awaited", "_buffer", "_limit")

    def __init__(self) -> None:
        self._buffer = bytearray()
        """The incomplete frame at the end of what was received."""
        self._awaited = 0
        """The length that `_buffer` must reach before it is parsed again."""
        self._limit = HELLO_BYTES_MAX

    def feed(self, data: bytes) -> tuple[bytes, ...]:
        """The frames that are whole now, without their prefixes. After the first frame longer ones are allowed.

        Raises:
            WireError: a frame announces a length of zero or beyond the limit.
        """
        if self._buffer:
            self._buffer += data  # parsed once the frame is whole: a long one comes in hundreds of reads
            if len(self._buffer) < self._awaited:
                return ()
            data = bytes(self._buffer)
        frames = []
        at, end = 0, len(data)
        while end - at >= LENGTH_BYTES:
            length = int.from_bytes(data[at : at + LENGTH_BYTES], "big")
            if not 0 < length <= self._limit:
                raise WireError(f"a frame announces {length} bytes; at most {self._limit} are taken here")
            past = at + LENGTH_BYTES + length
            if past > end:
                self._awaited = past - at
                break
            frames.append(data[at + LENGTH_BYTES : past])
            self._limit = FRAME_BYTES_MAX
            at = past
        else:
            self._awaited = LENGTH_BYTES
        self._buffer = bytearray(data[at:])
        return tuple(frames)
