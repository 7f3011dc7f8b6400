"""A child process that does not outlive its parent, however the parent ends.

On Linux the kernel kills the child (`prctl(2)`, PR_SET_PDEATHSIG): that also ends a child that is stopped and could
notice nothing by itself. Elsewhere a thread waits for the end of standard input, a pipe that only the parent holds.

Run as a module it ties itself to its parent and then is `sessile SUBCOMMAND`:
`python -m sessile.lab.lifeline PARENT_PID balance --config FILE`. With `exec PROGRAM ...` it becomes that program, which
on Linux stays tied.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from typing import Final

__all__ = ["tie_to_parent"]

_PR_SET_PDEATHSIG: Final = 1


def tie_to_parent(parent_pid: int) -> None:
    """End this process as soon as its parent has ended; at once if it already has."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    else:
        threading.Thread(target=watch_input, name="lifeline", daemon=True).start()
    if os.getppid() != parent_pid:  # it ended before the request was in place
        _end()


def watch_input() -> None:
    """Wait until standard input ends, then end this process."""
    while os.read(0, 4096):
        pass
    _end()


def _end() -> None:
    """Nobody is left who could wait for anything: no clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(argv: list[str]) -> int:
    if argv[:1] == ["exec"]:
        os.execv(argv[1], argv[1:])  # noqa: S606 - it is not to run beside us
    from sessile.cli import main as run_cli  # noqa: PLC0415 - tie first: imports take a while

    return run_cli(argv)


if __name__ == "__main__":
    tie_to_parent(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
