"""What is left, in one worker, for what its clients have sent and no server has taken yet.

One connection is bounded by the limits of the settings; this bounds all of them together, however many there are. Who keeps
something takes it from here and gives it back: bodies in memory and in temporary files, and what was read ahead of answers.
A number below zero says that there is too much: what to do then, those decide who keep it.
"""

from __future__ import annotations

import tempfile
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Room"]

MEMORY_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of bodies; beyond it they go to files sooner."""
AHEAD_BYTES_MAX: Final = 64 * 1024 * 1024
"""Read ahead of answers; beyond it connections that send more are closed after their answer."""


class Room:
    """What may still be kept; `warn(reason)` hears of each file that cannot be written."""

    __slots__ = ("_warn", "ahead_bytes", "disk_bytes", "files", "memory_bytes")

    def __init__(self, disk_bytes: int, files: int, warn: Callable[[str], object]) -> None:
        self.memory_bytes = MEMORY_BYTES_MAX
        self.ahead_bytes = AHEAD_BYTES_MAX
        self.disk_bytes = disk_bytes
        self.files = files
        self._warn = warn

    def file(self, size: int) -> IO[bytes] | None:
        """A new temporary file for so many bytes; None where that is too much."""
        if self.files <= 0 or self.disk_bytes < size:
            return None
        try:
            file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - open for as long as the request is under way
        except OSError as error:
            self.write_failed(error)
            return None
        self.files -= 1
        return file

    def write_failed(self, error: OSError) -> None:
        self._warn(
            f"request bodies over the bound in memory cannot be collected in {tempfile.gettempdir()}: {error.strerror}; "
            "they are passed on as they come: make room there, or name another folder in TMPDIR"
        )
