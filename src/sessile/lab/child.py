"""One process that the demo started: its last words, its signals, its bounded end.

A child runs in a session of its own, so that Ctrl-C in a terminal reaches the demo alone, which then ends it in order.
What it says is read to the end, so that it never blocks on it: the last lines of standard error are kept, and standard
output goes line by line to whoever asked for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Child", "run_module"]

LINES_KEPT: Final = 20
LINE_CHARACTERS_MAX: Final = 400
READ_S: Final = 1.0

OnLine = Callable[[str], None]


class Child:
    """A running or ended process. Make one with `run_module`."""

    def __init__(self, process: asyncio.subprocess.Process, on_error: OnLine, on_output: OnLine | None) -> None:
        self._process = process
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._on_error = on_error
        self._reading = [asyncio.create_task(_read(process.stderr, self._note))]
        if on_output is not None:
            self._reading.append(asyncio.create_task(_read(process.stdout, on_output)))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    def last_words(self, count: int = 3) -> str:
        """Its last lines on standard error, as one line; empty when it said nothing."""
        said = [line for line in self._lines if line.strip("^~ ")]  # the marks in a traceback mark nothing here
        return " / ".join(said[-count:])

    def how_it_ended(self) -> str:
        """`ended by SIGKILL`, `ended with status 1`; empty while it runs."""
        code = self._process.returncode
        if code is None:
            return ""
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        return f"ended with status {code}"

    def send(self, signal_number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.is_alive:
            # Not by way of subprocess, which would look first whether it has ended, and take its status from asyncio.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal_number)

    async def ended(self) -> None:
        """Wait until it has ended and everything it said was read."""
        await self._process.wait()
        # Someone else may hold its standard error open, a grandchild for example: do not wait for them.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.gather(*self._reading)), READ_S)

    async def kill(self) -> None:
        """End it now, stopped or not."""
        self.send(signal.SIGKILL)
        await self.ended()

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, wait so long, then end it."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)  # a stopped process acts on SIGTERM only when it goes on
        try:
            await asyncio.wait_for(self.ended(), grace_s)
        except TimeoutError:
            await self.kill()

    def _note(self, line: str) -> None:
        self._lines.append(line)
        self._on_error(line)


async def _read(stream: asyncio.StreamReader | None, on_line: OnLine) -> None:
    """Read to the end, however long the lines are."""
    assert stream is not None, "asked for as a pipe"
    rest = ""
    while chunk := await stream.read(65_536):
        *lines, rest = (rest + chunk.decode(errors="replace")).split("\n")
        for line in lines:
            if line := line.strip()[:LINE_CHARACTERS_MAX]:
                on_line(line)
        rest = rest[:LINE_CHARACTERS_MAX]
    if rest := rest.strip():
        on_line(rest)


async def run_module(
    module: str,
    arguments: Sequence[str] = (),
    *,
    first_line: bytes = b"",
    descriptors: Sequence[int] = (),
    on_error: OnLine,
    on_output: OnLine | None = None,
) -> Child:
    """Start `python -m MODULE ARGUMENTS`.

    Args:
        module: what to run.
        arguments: its command line; everybody on the machine can read that, so no secrets.
        first_line: given on standard input, which then stays open as long as this process lives.
        descriptors: file descriptors that the child gets under the same numbers.
        on_error: called with each line of its standard error.
        on_output: called with each line of its standard output.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # whatever lies in the current folder is not to be imported
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL if on_output is None else asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=tuple(descriptors),
        start_new_session=True,
    )
    child = Child(process, on_error, on_output)
    if first_line:
        assert process.stdin is not None, "asked for above"
        with contextlib.suppress(ConnectionError):  # it ended already; whoever waits for it is told
            process.stdin.write(first_line + b"\n")
            await process.stdin.drain()
    return child
