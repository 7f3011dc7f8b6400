"""This process as a member of a cluster: the engine's other holders, however they are reached.

Nothing happens when one is made. `start` finds out who this server is, binds the node's port, joins, and returns when
requests may come. Where it runs, and how it is asked from elsewhere, is said in `service.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from sessile.addresses import Address, split
from sessile.backend import Acknowledged, Ended, Pulled, PullStatus
from sessile.blocking import running_loop
from sessile.errors import SettingsError
from sessile.network.config import node_config
from sessile.network.discovery import Discovery, find_me
from sessile.network.runtime import JOIN_S, Runtime
from sessile.record import LIVE
from sessile.replication.events import ChangePushed, PullAsked, SessionTouched
from sessile.replication.holding import Holding
from sessile.service import Service
from sessile.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from sessile.backend import Change
    from sessile.network.runtime import Owner as Engine
    from sessile.network.tls import TlsContexts
    from sessile.record import Heads, Record
    from sessile.replication.events import Input
    from sessile.replication.node import Node
    from sessile.settings import Settings
    from sessile.table import Table
    from sessile.token import SessionKey

    class Owner(Engine, Protocol):
        """The engine, as far as its cluster needs it."""

        settings: Settings


__all__ = ["Cluster"]

_LOG: Final = logging.getLogger("sessile.cluster")
SAMPLED: Final = 500
"""So many sessions are looked at, at the most, to tell how many of them are whose."""
RESOLVE_S: Final = 5.0
"""So long the first answer of a name service is waited for, where this server is to be found in it."""


class Cluster(Holding, Service):
    """The other servers, as a `Backend` of the engine.

    Args:
        owner: the engine. Its settings name the members.
    """

    def __init__(self, owner: Owner) -> None:
        super().__init__()
        self._owner = owner
        self._settings = owner.settings
        self._runtime: Runtime | None = None
        self._discovering: asyncio.Task[None] | None = None

    # -- life --------------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Join the cluster.

        Raises:
            SettingsError: it cannot be found out which member this is, or the node's port cannot be had.
        """
        settings = self._settings
        contexts = self._contexts()
        addresses: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        runtime: Runtime | None = None

        def found(named: tuple[str, ...]) -> None:
            if not addresses.done():
                addresses.set_result(named)
            elif runtime is not None:
                runtime.found(named)

        members = [str(member) for member in settings.members]
        discovering = asyncio.create_task(Discovery(members, found).run())
        try:
            async with asyncio.timeout(JOIN_S if settings.me else RESOLVE_S):
                named = await addresses
        except TimeoutError:
            named = ()
            addresses.cancel()
        try:
            me = split(settings.me or await asyncio.to_thread(find_me, named))
            given = settings.node_listen
            listener = _bind(split(given) if given else _where(me), "node_listen" if given else "me")
            config = node_config(
                settings,
                name=str(me),
                host=settings.host_id or socket.gethostname(),
                incarnation=time.time_ns() // 1_000_000,
            )
            runtime = Runtime(self._owner, config, contexts, tls_setting=settings.tls)
            try:
                await runtime.listen(listener)
            except BaseException:
                listener.close()
                raise
        except BaseException:
            discovering.cancel()
            raise
        self._discovering = discovering
        runtime.found(named)
        await runtime.joined()
        self.node = runtime.node
        self._runtime = runtime
        _LOG.info("%s: joined %d other members", me, len(runtime.node.peers))

    def _contexts(self) -> TlsContexts | None:
        settings = self._settings
        if settings.tls == "off":
            return None
        from sessile.network import tls  # noqa: PLC0415  # cryptography takes a while, and is not always needed

        if settings.tls == "files":
            cert, key, ca = settings.tls_cert, settings.tls_key, settings.tls_ca
            assert cert and key and ca, "settings see to that"  # noqa: PT018
            return tls.contexts_from_files(cert, key, ca)
        return tls.contexts(settings.secrets, settings.cluster, str(settings.me or socket.gethostname()))

    async def end(self) -> None:
        """Leave in good order: hand over what only this server holds, say goodbye, close every connection."""
        runtime = self._runtime
        assert runtime is not None, "it began"
        if not await runtime.leave() and self._owner.table.sessions:
            self._warn_of_losses(runtime.node)
        if self._discovering is not None:
            await end_tasks([self._discovering])
        await runtime.close()
        self._runtime = None

    def _warn_of_losses(self, node: Node) -> None:
        sessions = self._owner.table.sessions
        if node.peers:
            _LOG.warning(
                "%s: stopped before the other members had everything; up to %d sessions are lost", node.name, sessions
            )
            return
        _LOG.warning(
            "%s: stopped as the only live member; %d sessions are lost: let another member join before the last one stops, "
            "also where a server restarts its workers by itself (--max-requests)",
            node.name,
            sessions,
        )

    def abandon(self) -> None:
        """Nobody can be told, and nothing may be left that takes connections."""
        if self._runtime is not None:
            self._runtime.abandon()
            self._runtime = None

    def forget(self) -> None:
        """Leave the node to the parent: a forked child has no node, and answers nothing from the parent's."""
        if self._runtime is not None:
            self.node = cast("Node", _ParentsNode())
        self._runtime = self._discovering = None

    # -- what is told ------------------------------------------------------------------------------------------------

    def is_trusting(self) -> bool:
        """False also while the node's loop does not run, whatever the node knew when it last ran."""
        return super().is_trusting() and not self.node.has_stopped(self._owner.clock_ms())

    def touched(self, key: SessionKey, touched_ms: int) -> None:
        runtime = self._runtime
        if runtime is None:
            return
        event = SessionTouched(key, touched_ms)
        if running_loop() is runtime.loop:
            runtime.feed(event)
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                runtime.loop.call_soon_threadsafe(runtime.feed, event)

    # -- what waits --------------------------------------------------------------------------------------------------

    async def pull(self, key: SessionKey, have: Record | None, heads: Heads) -> Pulled:
        del have  # the node looks into the same table
        answer = await self._ask(lambda ticket: PullAsked(ticket, key, heads), self._settings.pull_timeout)
        return answer if isinstance(answer, Pulled) else Pulled(PullStatus.UNREACHABLE)

    async def push(self, key: SessionKey, change: Change | None, ack: str) -> Acknowledged:
        timeout_s = self._settings.ack_timeout
        if isinstance(change, Ended):
            timeout_s = max(timeout_s, self.node.end_timeout_ms / 1000)
        answer = await self._ask(lambda ticket: ChangePushed(ticket, key, change, ack), timeout_s)
        return answer if isinstance(answer, Acknowledged) else Acknowledged.NO

    async def _ask(self, make: Callable[[int], Input], timeout_s: float) -> Any:
        """Ask the node; None where its loop is gone."""
        runtime = self._runtime
        return None if runtime is None else await self.ask(lambda: runtime.ask(make), timeout_s)

    # -- what can be looked at ---------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """This member and how it sees the others; plain values, for `sessile status`, dashboards and logs."""
        runtime = self._runtime
        if runtime is None:
            return {"state": "stopped"}
        node = runtime.node
        membership, placement = node.membership, node.placement
        with self._owner.lock:  # the node's loop may be another thread's
            return {
                "state": "leaving" if node.is_leaving else "ready",
                "name": node.name,
                "members": {name: membership.standing(name).name.lower() for name in _names(node)},
                "unmet": {
                    one.address: runtime.troubles.problem_of(one.address)
                    for one in membership.unlinked()
                    if not one.is_met
                },
                "holders": placement.number,
                "linked": len(node.peers),
                **_roles(node, self._owner.table),
                "bytes_sent": runtime.bytes_sent,
                "bytes_received": runtime.bytes_received,
                "lag_ms": max((round(peer.usual_ms, 1) for peer in node.peers.values()), default=0.0),
                **node.waiting,
                "directory": len(node.directory) if self._settings.directory == "keys" else None,
                "counts": dict(sorted(node.counts.items())),
            }


class _ParentsNode:
    """Stands for the parent's node in a forked child: every use raises."""

    def __getattr__(self, name: str) -> NoReturn:
        raise SettingsError(
            "this process was forked from a member of the cluster and is not a member itself, since the node's port is its "
            "parent's: run one worker for each server (--workers 1), fork before the server starts, or give every process a "
            "me= of its own"
        )


def _names(node: Node) -> list[str]:
    return sorted(info.name for info in node.membership.infos() if info.name != node.name)


def _roles(node: Node, table: Table) -> dict[str, int]:
    """Of how many sessions this server is the primary, a backup, or holds a copy for the moment; of many, by a sample."""
    keys = list(table)
    keys = [key for key in keys[:: len(keys) // SAMPLED + 1] if table.state(key) == LIVE]
    primary = sum(node.placement.is_first(key) for key in keys)
    backup = sum(node.placement.is_holder(key) for key in keys) - primary
    share = table.sessions / len(keys) if keys else 0.0
    primary, backup = round(primary * share), round(backup * share)
    return {"primary": primary, "backup": backup, "other": max(table.sessions - primary - backup, 0)}


def _where(me: Address) -> Address:
    """Where a node that is reached at this address listens: there if that is loopback, else on every interface."""
    return me if me.is_loopback else Address("::" if ":" in me.host else "0.0.0.0", me.port)  # noqa: S104  # peers come from anywhere


def _bind(address: Address, setting: str) -> socket.socket:
    """A socket bound to the node's port.

    Raises:
        SettingsError: the port is taken, mostly by a sibling worker, or may not be used.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise SettingsError(f"{setting}={address} cannot be resolved: {error.strerror or error}") from None
    family, kind, protocol, _, where = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"{setting}={address}: the node's port cannot be had ({error.strerror}); another process has it, such as a "
            "sibling worker: run one worker for each server (--workers 1), or give every process a me= of its own"
        ) from None
    listener.setblocking(False)
    return listener
