"""What a forked process must not share with its parent: sockets, threads, event loops, and locks.

The parent's connections are there in the child, as numbers of open files and as objects. One byte that the child writes to
one of them, even the `close_notify` with which TLS says goodbye, is one that the parent appears to have sent; one reply
that it reads is one that the parent waits for. So whatever owns such a thing registers here (`call_after_fork`), and lets go
of it in the child without a word: `cut_off` closes the child's half of a socket, `keep_forever` keeps a finaliser from
running. What a registered object owns and drops needs no registration; it says so with `dropped_by`.

There is one registration with the interpreter. Methods are called in the order in which they were registered, and are held
weakly: an object is gone when its users let go of it. Some forks bypass Python (uWSGI forks in C); `notice_fork`, called
before anything is used, finds out by the process id.

Not covered: a connection that is being set up at the very moment of a fork. The child does not use it, but has it open
until it exits.
"""

from __future__ import annotations

import itertools
import os
import socket
import stat
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    Release = Callable[[], None]
    Method = tuple[weakref.ref[Any], Callable[[Any], Any]]
    """An object, held weakly, and one of its functions. A `weakref.WeakMethod` complains when a process ends."""

__all__ = ["call_after_fork", "cut_off", "cut_off_transport", "dropped_by", "keep_forever", "notice_fork", "taken"]

HOLD_S: Final = 0.5
"""How long a fork waits for a lock that is held for microseconds. In vain where the thread that forks holds it itself."""

T = TypeVar("T")


class _Registry:
    """Everything in this process that must be forgotten in a child."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        """The process in which everything registered here is at home."""
        self._numbers = itertools.count()
        self._after: dict[int, Method] = {}
        self._before: dict[int, Method] = {}
        self._noticing = threading.Lock()
        self._held = threading.local()

    def register(self, after: Callable[[], None], before: Callable[[], Release | None] | None) -> None:
        number = next(self._numbers)
        self._after[number] = _weak(after, lambda _: self._after.pop(number, None))
        if before is not None:
            self._before[number] = _weak(before, lambda _: self._before.pop(number, None))

    def hold(self) -> None:
        """Before a fork: keep other threads from what is copied, as far as it can be had soon."""
        self._held.releases = releases = []
        for find, before in list(self._before.values()):
            owner = find()
            release = None if owner is None else before(owner)
            if release is not None:
                releases.append(release)

    def release(self) -> None:
        """In the parent, after the fork."""
        for release in reversed(self._held.__dict__.pop("releases", [])):
            release()

    def forget(self) -> None:
        """In the child, once. One that fails keeps no other from forgetting."""
        self._noticing = threading.Lock()
        self._held = threading.local()
        self._forget()

    def notice(self) -> None:
        """The same, of a fork that this module has not been told of; whoever comes meanwhile waits."""
        with self._noticing:
            if self.pid != os.getpid():
                self._forget()

    def _forget(self) -> None:
        failures: list[Exception] = []
        for find, after in list(self._after.values()):
            owner = find()
            try:
                if owner is not None:
                    after(owner)
            except Exception as error:  # noqa: BLE001  # the others must forget all the same
                failures.append(error)
        self.pid = os.getpid()
        if failures:
            raise ExceptionGroup("what belongs to the parent process could not all be forgotten", failures)

    @property
    def size(self) -> int:
        """How many methods are called in a child."""
        return len(self._after)


def _weak(method: Callable[[], Any], gone: Callable[[weakref.ref[Any]], object]) -> Method:
    bound: Any = method
    return weakref.ref(bound.__self__, gone), bound.__func__


_registry: Final = _Registry()
_kept: Final[list[object]] = []
_getpid: Final = os.getpid

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_registry.hold, after_in_parent=_registry.release, after_in_child=_registry.forget)


def call_after_fork(after: Callable[[], None], *, before: Callable[[], Release | None] | None = None) -> None:
    """Call a bound method in every child that is forked while its object lives.

    Args:
        after: called in the child, in the thread that forked, before anything else of the child runs. It must not wait.
        before: a bound method called in the parent just before, which may wait for `HOLD_S`. What it returns is called
            in the parent when the fork is over.
    """
    _registry.register(after, before)


def notice_fork() -> None:
    """Make sure that everything has been forgotten, should this be a child. Costs a system call."""
    if _registry.pid != _getpid():
        _registry.notice()


def taken(lock: threading.Lock) -> Release | None:
    """For `before`: take a lock, so that what it guards is copied between two changes. None where it is not to be had."""
    return lock.release if lock.acquire(timeout=HOLD_S) else None


def dropped_by(owner: str, reason: str) -> Callable[[type[T]], type[T]]:
    """Say of a class that it owns such a thing and is not registered, since its owner drops it in a child.

    Args:
        owner: the name of the class that does, which is registered, or dropped itself.
        reason: how. For readers: tests/test_forks.py sees to it that every class is one or the other.
    """
    del owner, reason
    return lambda kind: kind


def cut_off(descriptor: int) -> None:
    """In a child: close its half of an inherited socket, so that nothing in this process can use or end the connection.

    In its place stands one whose other end is closed, under the same number: whoever still holds it, in Python or in C, can
    write to nobody, and closing it later closes no file of somebody else. The parent's connection goes on. What is no open
    socket is left alone.
    """
    try:
        if descriptor < 0 or not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return
        ours, theirs = socket.socketpair()
        with ours, theirs:
            os.dup2(ours.fileno(), descriptor, inheritable=False)
    except OSError:  # no descriptor is left to do it with, or it is closed
        return


def cut_off_transport(transport: Any) -> None:
    """The same for the socket of a transport of an event loop that still has it; None and others are left alone."""
    found = None if transport is None else transport.get_extra_info("socket")
    if found is not None:
        cut_off(found.fileno())


def keep_forever(*things: object) -> None:
    """In a child: never finalise these, not even when the process ends.

    An event loop that is closed takes its sockets from a set that the kernel shares with the parent; a task that is
    destroyed runs its `finally`.
    """
    found = [thing for thing in things if thing is not None]
    if not found:
        return
    import ctypes  # noqa: PLC0415  # only a child that has something to keep needs it

    for thing in found:
        _kept.append(thing)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
