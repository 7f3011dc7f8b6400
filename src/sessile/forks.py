"""What a forked process must not share with its parent: sockets, threads, event loops, and locks.

A child inherits the parent's connections, as file descriptors and as objects. To the peer, a byte that the child writes to one
comes from the parent, even the `close_notify` that ends TLS. A reply that the child reads never reaches the parent. So every
object that owns a socket, thread, event loop or lock registers a method here (`call_after_fork`) that drops it in the child
without sending anything: `cut_off` closes the child's half of a socket, `keep_forever` prevents a finaliser from running. A class
whose owner is registered and drops it needs no registration, and says so with `dropped_by`.

This module registers once with the interpreter. It calls the methods in the order in which they were registered, and holds
them weakly, so that it keeps no object alive. Some forks bypass Python (uWSGI forks in C). `notice_fork`, which is called
before a connection is used, detects them by the process id.

Not covered: a connection that is being set up during the fork. The child does not use it, but keeps it open until it exits.
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
    """A weak reference to an object, and one of its functions. (`weakref.WeakMethod` prints an error when a process ends.)"""

__all__ = ["call_after_fork", "cut_off", "cut_off_transport", "dropped_by", "keep_forever", "notice_fork", "taken"]

HOLD_S: Final = 0.5
"""How long a fork waits for a lock, which is usually held for microseconds. If the forking thread itself holds the lock, it
waits in vain."""

T = TypeVar("T")


class _Registry:
    """The methods to call in a child, and those to call before a fork."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        """The process to which the registered objects belong."""
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
        """Before a fork: take the locks of what is copied, as far as they are free within `HOLD_S`."""
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
        """In the child, once: call every method, even if some of them raise."""
        self._noticing = threading.Lock()
        self._held = threading.local()
        self._forget()

    def notice(self) -> None:
        """The same after a fork that bypassed the hooks; other threads that notice it wait until it is done."""
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
            except Exception as error:  # noqa: BLE001  # the other methods must be called all the same
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
    """In a child whose fork bypassed the hooks: call every registered method. Costs a system call."""
    if _registry.pid != _getpid():
        _registry.notice()


def taken(lock: threading.Lock) -> Release | None:
    """For `before`: take a lock, so that the fork copies what it guards between two changes. None if it is not free in time."""
    return lock.release if lock.acquire(timeout=HOLD_S) else None


def dropped_by(owner: str, reason: str) -> Callable[[type[T]], type[T]]:
    """Declare that a class owns a socket, thread, loop or lock but is not registered, since its owner drops it in a child.

    Args:
        owner: the name of the class that drops it, which is registered or is itself dropped by another one.
        reason: why that is enough. For readers; tests/test_forks.py checks that each such class is registered or declared.
    """
    del owner, reason
    return lambda kind: kind


def cut_off(descriptor: int) -> None:
    """In a child: close its half of an inherited socket, so that nothing in this process can use or end the connection.

    A socket whose other end is closed replaces it under the same descriptor. So code that still holds the descriptor, in
    Python or in C, reaches no peer, and closing it later closes no unrelated file. The parent's connection is not affected. A
    descriptor that is not an open socket is left alone.
    """
    try:
        if descriptor < 0 or not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return
        ours, theirs = socket.socketpair()
        with ours, theirs:
            os.dup2(ours.fileno(), descriptor, inheritable=False)
    except OSError:  # no descriptor is left for the replacement, or this one is closed
        return


def cut_off_transport(transport: Any) -> None:
    """The same for the socket of an event loop's transport; does nothing for None, or for a transport without a socket."""
    found = None if transport is None else transport.get_extra_info("socket")
    if found is not None:
        cut_off(found.fileno())


def keep_forever(*things: object) -> None:
    """In a child: never finalise these, not even when the process ends.

    An event loop that is closed removes its sockets from an epoll set that the kernel shares with the parent. A task that is
    destroyed runs its `finally`.
    """
    found = [thing for thing in things if thing is not None]
    if not found:
        return
    import ctypes  # noqa: PLC0415  # only a forked child needs it

    for thing in found:
        _kept.append(thing)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
