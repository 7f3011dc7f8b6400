"""The body of one request on its way: what has come of it, what is kept, what was sent.

Collected before a server is asked, a body lies in memory up to a bound and in a temporary file beyond it; passed on as it
comes, only as much is kept as another try may need. The file holds the beginning of the body, memory the rest. Where the
worker has no room left (`room.py`) a body is no longer collected, but passed on, and nothing is kept of what was sent.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Final

from sessile.balancer.bodies import CHUNKED, BodyError, chunk, reader_for

if TYPE_CHECKING:
    from sessile.balancer.room import Room

__all__ = ["PIECE_BYTES", "RequestBody"]

PIECE_BYTES: Final = 64 * 1024
"""Read from the file, and sent, at a time."""


class RequestBody:
    """The bytes of one request's body. `take` as they arrive, `next` for what to send; `close` when the request is done."""

    __slots__ = (
        "_file", "_in_file", "_is_chunked", "_is_ended", "_is_kept", "_memory", "_memory_at", "_memory_max", "_reader",
        "_room", "_sent", "can_rewind",
    )  # fmt: skip

    def __init__(self, body: int, room: Room, memory_max: int) -> None:
        self._reader = reader_for(body)
        self._is_chunked = body == CHUNKED
        self._room = room
        self._memory_max = memory_max
        self._memory = bytearray()
        self._memory_at = 0
        """Where in the body the bytes in memory begin: those before are in the file, or forgotten."""
        self._file: IO[bytes] | None = None
        self._in_file = 0
        self._sent = 0
        self._is_ended = False
        """The last chunk has been sent; or, with a length, all of it."""
        self._is_kept = True
        self.can_rewind = True
        """All that has come is still here."""

    # --- receiving

    @property
    def is_whole(self) -> bool:
        """All of it has come."""
        return self._reader.is_done

    @property
    def is_behind(self) -> bool:
        """There is more to read in what was taken: take nothing, in another turn."""
        return self._reader.is_behind

    @property
    def rest(self) -> bytes:
        """What came beyond the end."""
        return self._reader.rest

    @property
    def size(self) -> int:
        """How much of it has come."""
        return self._memory_at + len(self._memory)

    @property
    def in_memory(self) -> int:
        return len(self._memory)

    def take(self, data: bytes) -> None:
        """Bytes from the client; raises BodyError where they are no body as the head announced it."""
        payload = self._reader.feed(data)
        self._memory += payload
        self._room.memory_bytes -= len(payload)

    def make_room(self) -> bool:
        """Move to the file what is too much for memory; False when it cannot be kept there: pass it on."""
        size, room = len(self._memory), self._room
        if size <= self._memory_max and room.memory_bytes >= 0:
            return True
        if self._file is None:
            self._file = room.file(size)
        if self._file is None or room.disk_bytes < size:
            return False
        try:
            self._file.seek(self._in_file)
            left = memoryview(self._memory)
            while left:
                written = self._file.write(left)
                left = left[written:]
        except OSError as error:
            room.write_failed(error)
            return False
        self._in_file += size
        room.disk_bytes -= size
        self._forget_memory()
        return True

    # --- sending

    @property
    def is_sent(self) -> bool:
        """Nothing of it is left to send, now or later."""
        return self._is_ended

    def next(self) -> bytes:
        """The next piece to send, framed; nothing when more must come first. Raises BodyError where the file fails."""
        if self._is_ended:
            return b""
        if self._sent < self._in_file:
            payload = self._from_file()
        else:
            payload = bytes(memoryview(self._memory)[self._sent - self._memory_at :])
        self._sent += len(payload)
        is_too_much = len(self._memory) > self._memory_max or self._room.memory_bytes < 0
        if self._sent == self.size and (is_too_much or not self._is_kept):
            self.can_rewind = self.can_rewind and not self._memory
            self._forget_memory()
        self._is_ended = self.is_whole and self._sent == self.size
        return chunk(payload, is_last=self._is_ended) if self._is_chunked else payload

    def _from_file(self) -> bytes:
        assert self._file is not None
        try:
            self._file.seek(self._sent)
            payload = self._file.read(min(PIECE_BYTES, self._in_file - self._sent))
        except OSError as error:
            raise BodyError(f"the collected body cannot be read again: {error.strerror}") from None
        if not payload:
            raise BodyError("the collected body cannot be read again")
        return payload

    def rewind(self) -> None:
        """From the beginning, for another server."""
        assert self.can_rewind or not self._sent, "the beginning of the body is forgotten"
        self._sent = 0
        self._is_ended = False

    def forget(self) -> None:
        """It will be sent once only: what has been sent need not be kept."""
        self._is_kept = False

    def close(self) -> None:
        """Give back all that it takes; nothing else may be called after it."""
        self._forget_memory()
        self._room.disk_bytes += self._in_file
        self._in_file = 0
        if self._file is not None:
            self._file.close()
            self._file = None
            self._room.files += 1

    def _forget_memory(self) -> None:
        size = len(self._memory)
        self._room.memory_bytes += size
        self._memory_at += size
        self._memory = bytearray()
