"""Listening addresses on loopback: bound here, so that a taken port is told before anything is started.

A bound socket that does not listen yet refuses connections: it can be handed to the process that will serve on it, and
nobody is kept waiting meanwhile. With SO_REUSEADDR, which a port needs that was in use a moment ago, Linux lets several
sockets bind one port as long as none listens; so whoever hands out several says which ones are given away.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

from sessile.errors import LabError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["HOST", "bind", "bind_near", "listen", "require_free"]

HOST: Final = "127.0.0.1"
SERVERS_FROM: Final = 1001
"""The servers of a demo on port 8080 are on 9081, 9082, …: out of its way, and easy to guess."""
TRIES_MAX: Final = 200
PORT_MAX: Final = 65_535
BACKLOG: Final = 128


def bind(port: int, setting: str = "--port") -> socket.socket:
    """A socket bound to this port on loopback, not listening.

    Raises:
        SettingsError: the port is taken, or may not be used.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
    except OSError as error:
        bound.close()
        why = "is taken by another process" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise SettingsError(f"port {port} {why}; choose another with {setting}") from None
    return bound


def listen(port: int, setting: str = "--port") -> socket.socket:
    """The same, listening: connections wait in it until somebody takes them."""
    bound = bind(port, setting)
    try:
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise SettingsError(f"port {port} is taken by another process; choose another with {setting}") from None
    return bound


def require_free(port: int) -> None:
    """Raises SettingsError when nobody can listen on the port now."""
    listen(port).close()


def bind_near(port: int, given: Collection[int] = ()) -> socket.socket:
    """A socket bound to the first free port of those where the servers of a demo on `port` are looked for.

    Ports in `given` are passed over.
    """
    first = port + SERVERS_FROM
    if first + TRIES_MAX > PORT_MAX:
        first = port - SERVERS_FROM - TRIES_MAX
    for candidate in range(first, first + TRIES_MAX):
        if candidate in given:
            continue
        try:
            return bind(candidate)
        except SettingsError:
            continue
    raise LabError(f"no free port for a server between {first} and {first + TRIES_MAX - 1}")
