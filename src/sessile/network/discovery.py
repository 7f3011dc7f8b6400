"""Which addresses the members have: those that were given, and those that DNS names have now and later.

A name is asked for again and again, since servers come and go. A name service that fails, or says nothing, takes nobody away:
the last answer stands until there is another one. What names say of this machine, and which address is its own, is
found out here too. Nothing here knows who is a member; connecting tells.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from typing import TYPE_CHECKING, Final

from sessile.addresses import DNS, Address, split
from sessile.errors import SettingsError
from sessile.forks import dropped_by
from sessile.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

__all__ = ["Discovery", "find_me", "is_mine", "resolve_name"]

_LOG: Final = logging.getLogger("sessile.cluster")
EVERY_S: Final = 5.0
TIMEOUT_S: Final = 2.0
"""So long one round waits for its names. What comes later counts in the next round."""
JITTER: Final = 0.2
"""Servers that were started together do not go on asking together."""
LISTED: Final = 8
"""So many addresses are named in a message."""
EAGER: Final = 8
"""So many times sooner a name that has had no answer yet is asked for again; then twice as late each time."""


async def resolve_name(name: str) -> list[str]:
    """The IP addresses of a name, IPv4 and IPv6, of the families that this machine has.

    Raises:
        OSError: the name service fails or does not know the name.
        ValueError: it is no name (RFC 1035 §2.3.4).
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        name, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    hosts = (str(where[0]) for *_, where in found)
    return [host for host in hosts if "%" not in host]  # a link-local one means something else on every machine


@dropped_by("Cluster", "in a child the task that runs this is never finalised, and Cluster makes another one")
class Discovery:
    """Turns `members` into addresses, and keeps on doing so.

    Args:
        members: `host:port`, passed on as they are; or `dns:NAME:port`, every address of a name.
        found: called with all addresses, `host:port` each, IPv6 in brackets, sorted, each once; when they have changed.
        resolve: the IP addresses of a name, or OSError or ValueError.
        every_s: how often names are asked for, in seconds, give or take a fifth.
        timeout_s: how long a round waits for answers, in seconds.
    """

    def __init__(
        self,
        members: Sequence[str],
        found: Callable[[tuple[str, ...]], None],
        *,
        resolve: Callable[[str], Awaitable[Iterable[str]]] = resolve_name,
        every_s: float = EVERY_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        names = [split(member.removeprefix(DNS)) for member in members if member.startswith(DNS)]
        self._static = frozenset(member for member in members if not member.startswith(DNS))
        self._known: dict[Address, frozenset[str]] = dict.fromkeys(names, frozenset())
        self._troubles = dict.fromkeys(self._known, "")
        self._asking: dict[Address, asyncio.Task[Iterable[str]]] = {}
        self._found = found
        self._told: tuple[str, ...] = ()
        self._resolve = resolve
        self._every_s = every_s
        self._timeout_s = timeout_s

    async def run(self) -> None:
        """Tell what is found until cancelled; with no names, once.

        The first telling waits for every name, `timeout_s` at the most; where nothing at all is found, nothing is told.
        """
        self._told = ()
        pause_s = self._every_s / EAGER
        try:
            while True:
                await self._ask()
                self._tell()
                if not self._known:
                    return
                if all(self._known.values()):
                    pause_s = self._every_s
                await asyncio.sleep(pause_s * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - no secret
                pause_s = min(2 * pause_s, self._every_s)
        finally:
            asking, self._asking = self._asking.values(), {}
            await end_tasks(asking)

    def _tell(self) -> None:
        addresses = tuple(sorted(self._static.union(*self._known.values())))
        if addresses != self._told:
            self._told = addresses
            self._found(addresses)

    async def _ask(self) -> None:
        """One round. A name that is still being asked for is not asked for twice, however long that takes."""
        for name in self._known:
            if name not in self._asking:
                self._asking[name] = asyncio.ensure_future(self._resolve(name.host))
        if not self._asking:
            return
        answered, _ = await asyncio.wait(self._asking.values(), timeout=self._timeout_s)
        for name, task in list(self._asking.items()):
            if task in answered:
                del self._asking[name]
                self._take(name, task)
            else:
                self._note(name, f"no answer within {self._timeout_s:g} s")

    def _take(self, name: Address, task: asyncio.Task[Iterable[str]]) -> None:
        try:
            hosts = task.result()
        except (OSError, ValueError) as error:
            self._note(name, getattr(error, "strerror", None) or str(error))
            return
        addresses = frozenset(str(Address(host, name.port)) for host in hosts)
        if addresses:
            self._known[name] = addresses
        self._note(name, "" if addresses else "it has no address")

    def _note(self, name: Address, trouble: str) -> None:
        """What is wrong with a name, or that nothing is, said once."""
        before, self._troubles[name] = self._troubles[name], trouble
        if trouble == before:
            return
        if trouble:
            kept = len(self._known[name])
            _LOG.warning("%s%s cannot be resolved: %s; going on with %d known addresses", DNS, name, trouble, kept)
        else:
            _LOG.warning("%s%s is resolved again: %d addresses", DNS, name, len(self._known[name]))


def is_mine(address: str) -> bool:
    """Whether `host:port` is an address of this machine: only such an IP address can be bound. Looks a host name up.

    A machine that lets processes bind any address (`ip_nonlocal_bind`) cannot be asked so: there, all seem to be its own.
    """
    try:
        found = socket.getaddrinfo(split(address).host, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return False
    return any(_can_bind(family, where) for family, _, _, _, where in found)


def find_me(addresses: Iterable[str]) -> str:
    """The one of these `host:port` addresses that is this machine's own. Looks host names up, and waits for them.

    An IPv4 and an IPv6 address with one port are those of one server; it goes by the IPv4 one.

    Raises:
        SettingsError: none is, or several are, as where several servers run on one machine.
    """
    given = list(dict.fromkeys(addresses))
    mine = [address for address in given if is_mine(address)]
    if len(mine) == 1:
        return mine[0]
    if not mine:
        shown = f"none of the addresses found, {_list(given)}, is" if given else "no addresses were found, so none is"
        raise SettingsError(
            f"{shown} this machine's own: set me= (SESSILE_ME) to the host:port at which the others reach this server"
        )
    first, *others = sorted(map(split, mine), key=lambda one: ":" in one.host)
    if len(others) == 1 and first.port == others[0].port and (":" in first.host) is not (":" in others[0].host):
        return str(first)
    raise SettingsError(
        f"{_list(mine)} are all this machine's own: set me= (SESSILE_ME) to the one that is this server's"
    )


def _list(addresses: Sequence[str]) -> str:
    more = f" and {len(addresses) - LISTED} more" if len(addresses) > LISTED else ""
    return ", ".join(addresses[:LISTED]) + more


def _can_bind(family: int, where: tuple[str | int | bytes, ...]) -> bool:
    """Whether a socket can be bound to this IP address, at some port."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((where[0], 0, *where[2:]))
    except OSError:
        return False
    return True
