"""Connections to one server of Redis or Valkey. A trip is one write, and as many replies as it had commands.

The connections are redis-py's (authentication, TLS, parsing); they are kept here, and not in its pool, so that every command
of a trip goes over one of them: WAIT speaks of the writes of its own connection. Before the first trip a connection has to
show that its server is a primary. A refusal by the server is a reply, an exception as a value. A connection that does not
work is `LinkLost`, and so is one whose replies belong to another question. Nothing here has a timeout: the caller of a trip
bounds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sessile.errors import SettingsError
from sessile.forks import call_after_fork, cut_off_transport, keep_forever

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

__all__ = [
    "UNWAITED",
    "Answer",
    "Check",
    "Command",
    "LinkLost",
    "Links",
    "Wait",
    "code_of",
    "dialer",
    "drop",
    "dropped_when_lost",
    "info_of",
    "is_setup",
    "reason_of",
    "receive",
    "send",
]

Command = tuple[Any, ...]
Check = Callable[[list[Any]], bool]
"""Whether replies belong to the commands that were sent; a refusal always does."""
LINKS_MAX: Final = 64
"""So many trips to one server at once; others wait."""
ROLE_FRESH_S: Final = 1.0
"""How long it is believed how many replicas a primary has."""
REPLICA_MEMORY_S: Final = 300.0
"""After a replica was seen, nothing counts as acknowledged without one for this time: a primary that is cut off has none."""
UNHEARD_S: Final = 1.0
"""After replicas did not acknowledge in time, they are not waited for again for this time."""

COMMANDS: Final = (
    *("GET", "SET", "GETRANGE", "SETRANGE", "PEXPIRE", "PEXPIREAT", "ZADD", "ZRANGEBYSCORE", "ZREMRANGEBYSCORE"),
    *("EVAL", "EVALSHA", "PUBLISH", "SUBSCRIBE", "PING", "ECHO", "TIME", "WAIT", "ROLE", "INFO"),
)
"""All that is sent to a server with data, and all that scripts call there. A cluster needs `CLUSTER_COMMANDS` too, and a URL
with a database other than 0 needs SELECT."""
CLUSTER_COMMANDS: Final = ("CLUSTER|SLOTS", "ASKING")
RIGHTS: Final = "~sessile:* &sessile:* " + " ".join(f"+{command.lower()}" for command in COMMANDS)
"""The rights of a user, as ACL SETUSER takes them, where `sessile` is the name of the cluster."""
_CODES: Final = {
    "AskError": "ASK",
    "AuthenticationError": "NOAUTH",
    "BusyLoadingError": "LOADING",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "MovedError": "MOVED",
    "NoPermissionError": "NOPERM",
    "NoScriptError": "NOSCRIPT",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "TryAgainError": "TRYAGAIN",
}
"""What redis-py makes of the first word of an error, and cuts off."""
_REASONS: Final = {
    "BUSY": "is busy with a script",
    "CLUSTERDOWN": "is a cluster that is down: not every part of it has a primary",
    "LOADING": "is loading its data",
    "MASTERDOWN": "is a replica that has lost its primary",
    "MISCONF": "does not take writes, because it cannot save to its disk",
    "DENIED": "is in protected mode: give it a password, or bind it to this server's network",
    "NOAUTH": "wants another user or password",
    "NOPERM": f"does not let this user do what is needed; give it these rights with ACL SETUSER: {RIGHTS}",
    "NOREPLICAS": "does not take writes, because too few replicas are connected",
    "OOM": "is out of memory",
    "READONLY": "is a replica, which takes no writes",
    "TRYAGAIN": "is moving this session to another node",
    "WRONGPASS": "wants another user or password",
}
_SETUPS: Final = {"DENIED", "NOAUTH", "NOPERM", "WRONGPASS"}
_SETUP_TEXTS: Final = (
    *("DB index is out of range", "cluster support disabled", "unknown command 'SENTINEL'", "No such master"),
    *("Protocol Error", "CERTIFICATE_VERIFY_FAILED", "certificate verify failed", "WRONG_VERSION_NUMBER"),
)
"""What no waiting changes, by what redis-py or the server says."""
REASON_CHARS_MAX: Final = 160
_UNREACHED: Final = re.compile(r"Error (.+?) connecting to \S+\.(?: (.+)\.)?")
"""What redis-py makes of an OSError: its number, or what asyncio says where several addresses failed, and its words."""
_ERRNO: Final = re.compile(r"(?:.*?\[Errno )?(\d+)\b")
_ARGUMENTS: Final = ", with args beginning with"


class Wait(NamedTuple):
    """How many replicas are to have what a trip wrote (`none`, `one`, `all`), and for how long to wait for them."""

    ack: str
    at_most_ms: int


UNWAITED: Final = Wait("none", 0)


class Answer(NamedTuple):
    """What a trip brought back."""

    replies: list[Any]
    is_acknowledged: bool
    """As many replicas as were to have it do."""
    since_s: float = 0.0
    """Since when this server has been the primary that is asked, by `time.monotonic`."""


class LinkLost(Exception):
    """A connection was refused, broke, or is to a server that is no primary; another may work.

    Args:
        reason: what is wrong, in words that follow the store's name.
        is_setup: whether it stays so until somebody changes the URL or the server.
    """

    def __init__(self, reason: str = "", *, is_setup: bool = False) -> None:
        super().__init__(reason)
        self.is_setup = is_setup


class Links:
    """Connections to one server.

    Args:
        make: makes a connection of redis-py that is not connected yet.
        must_be_primary: whether its server has to be one.
        replicas_seen_s: when a replica was last seen over earlier connections; 0 for never.
    """

    def __init__(self, make: Callable[[], Any], *, must_be_primary: bool = True, replicas_seen_s: float = 0.0) -> None:
        self.is_closed = False
        self.run_id = ""
        """What the server calls its present life."""
        self.replicas = 0
        """How many replicas it had when it was last asked."""
        self._make = make
        self._must_be_primary = must_be_primary
        self._pid = os.getpid()
        """The process that made the connections; no other process may use them, even if the fork hook does not run."""
        self._made: weakref.WeakSet[Any] = weakref.WeakSet()
        """Every connection, with those that are being made and those that `connected` handed out."""
        self._free: list[Any] = []
        self._room = asyncio.Semaphore(LINKS_MAX)
        call_after_fork(self._after_fork)
        self._asked_s = 0.0
        self._since_s = time.monotonic()
        self._unheard_s, self._unheard = -UNHEARD_S, 0
        """When so many replicas last did not acknowledge in time."""
        self.replicas_seen_s = replicas_seen_s

    async def trip(
        self, commands: Sequence[Command], wait: Wait = UNWAITED, is_answered: Check | None = None
    ) -> Answer:
        """The replies to these commands, sent at once over one connection.

        Args:
            commands: the commands to send.
            wait: how many replicas must have the writes.
            is_answered: whether the replies belong to the commands. If not, another process uses the connection: it is closed,
                with all free connections.

        Raises:
            LinkLost: no connection worked, not even a new one; or the connections belong to another process.
        """
        self._check_process()
        async with self._room:
            while self._free:
                try:
                    return await self._over(self._free.pop(), commands, wait, is_answered)
                except LinkLost:  # it may have been closed long ago, and so may the others
                    await self._drop_free()
            return await self._over(await self.connected(), commands, wait, is_answered)

    async def connected(self) -> Any:
        """A new connection, for whoever keeps it; its server is a primary where it has to be.

        Raises:
            LinkLost: it was refused, or the server is no primary.
        """
        self._check_process()
        connection = self._make()
        self._made.add(connection)
        connection.socket_timeout = None  # a trip is bounded as a whole; a bound of each write costs a task
        async with dropped_when_lost(connection):
            await connection.connect()
            if self._must_be_primary:
                role, info = await exchange(connection, [("ROLE",), ("INFO", "server")])
                self._learn(role)
                self.run_id = info_of(info).get("run_id", "unknown")
        return connection

    def expect_replicas(self) -> None:
        """It is known from elsewhere that the server has some."""
        self.replicas_seen_s = time.monotonic()

    async def close(self) -> None:
        """Close every connection: those under way when their trip is over."""
        self.is_closed = True
        await self._drop_free()

    async def _over(
        self, connection: Any, commands: Sequence[Command], wait: Wait, is_answered: Check | None
    ) -> Answer:
        asks_role = self._must_be_primary and time.monotonic() - self._asked_s > ROLE_FRESH_S
        wanted = self._wanted(wait.ack)
        is_vain = wanted >= self._unheard and time.monotonic() - self._unheard_s < UNHEARD_S
        waits = wanted > 0 and self.replicas > 0 and not is_vain
        sent = [*commands]
        if waits:
            sent.append(("WAIT", wanted, wait.at_most_ms))
        if asks_role:
            sent.append(("ROLE",))
        async with dropped_when_lost(connection):
            replies = await exchange(connection, sent)
            if asks_role:
                self._learn(replies.pop())
            copies = replies.pop() if waits else 0
            if isinstance(copies, Exception):
                raise copies
            if is_answered is not None and not is_answered(replies):
                raise LinkLost("answers another question")
        if waits and copies < wanted:
            self._asked_s, self._unheard_s, self._unheard = 0.0, time.monotonic(), copies + 1
        if self.is_closed:
            await drop(connection)
        else:
            self._free.append(connection)
        return Answer(replies, copies >= wanted, self._since_s)

    def _wanted(self, ack: str) -> int:
        """How many replicas must have a write before it counts as acknowledged."""
        if ack == "none":
            return 0
        is_missed = bool(self.replicas_seen_s) and time.monotonic() - self.replicas_seen_s < REPLICA_MEMORY_S
        fewest = 1 if is_missed or self.replicas else 0
        return max(self.replicas, fewest) if ack == "all" else fewest

    def _learn(self, role: Any) -> None:
        """What the server says of its role."""
        if isinstance(role, Exception):
            raise role
        if role[0] == b"sentinel":
            raise LinkLost("is a Sentinel: write redis+sentinel://h1,h2,h3/NAME", is_setup=True)
        if role[0] != b"master":
            raise LinkLost(_REASONS["READONLY"])
        self._asked_s = time.monotonic()
        self.replicas = len(role[2])
        if self.replicas:
            self.replicas_seen_s = self._asked_s

    def _check_process(self) -> None:
        """Raises LinkLost where this process was forked from the one that made the connections."""
        if self._pid != os.getpid():
            self._after_fork()
            raise LinkLost("was reached by the process that this one was forked from")

    def _after_fork(self) -> None:
        """Close every connection of the parent in this child, without sending anything: no QUIT, no TLS alert."""
        for connection in list(self._made):
            cut_off_transport(_transport_of(connection))
        keep_forever(*self._made, self._room)
        self._made, self._free, self.is_closed = weakref.WeakSet(), [], True

    async def _drop_free(self) -> None:
        free, self._free = self._free, []
        for connection in free:
            await drop(connection)


def _transport_of(connection: Any) -> Any:
    """The transport of a connection of redis-py, while it is connected."""
    writer = getattr(connection, "_writer", None)
    return None if writer is None or writer.transport.is_closing() else writer.transport


async def exchange(connection: Any, commands: Sequence[Command]) -> list[Any]:
    """One write, and the replies; a refusal by the server is one of them."""
    await send(connection, commands)
    return [await receive(connection) for _ in commands]


async def send(connection: Any, commands: Sequence[Command]) -> None:
    """One write."""
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)


async def receive(connection: Any, timeout_s: float | None = None) -> Any:
    """The next reply, pushed messages included where a time is given; None where nothing came in that time."""
    options = {} if timeout_s is None or str(connection.protocol) != "3" else {"push_request": True}
    try:
        return await connection.read_response(disable_decoding=True, timeout=timeout_s, **options)
    except Exception as error:
        # By name: a client that somebody brought may be of a library with classes of its own.
        if any(kind.__name__ == "ResponseError" for kind in type(error).__mro__):
            return error
        raise


@contextlib.asynccontextmanager
async def dropped_when_lost(connection: Any) -> AsyncIterator[None]:
    """Whatever goes wrong, cancelling included, a connection that may have replies outstanding is not used again."""
    try:
        yield
    except LinkLost:
        await drop(connection)
        raise
    except Exception as error:
        await drop(connection)
        raise LinkLost(reason_of(error), is_setup=is_setup(error)) from error
    except BaseException:
        await drop(connection)
        raise


async def drop(connection: Any) -> None:
    """Close it, and do not wait until it is closed."""
    with contextlib.suppress(Exception):
        await connection.disconnect(nowait=True)


def code_of(error: Exception) -> str:
    """The first word of an error that the server sent, such as READONLY."""
    return _CODES.get(type(error).__name__) or str(error).partition(" ")[0]


def reason_of(error: Exception) -> str:
    """What is wrong, in one line that follows the store's name."""
    reason = _REASONS.get(code_of(error))
    if reason is None:
        # A server without AUTH repeats what it was given, the password.
        text = " ".join(str(error).partition(_ARGUMENTS)[0].split()) or type(error).__name__
        unreached = None if "SSL" in text else _UNREACHED.fullmatch(text)  # it was reached, and TLS failed
        text = text if unreached is None else _os_reason(unreached[1], unreached[2] or unreached[1])
        reason = f"{'fails' if unreached is None else 'cannot be reached'}: {text[:REASON_CHARS_MAX]}"
    return reason


def _os_reason(number: str, words: str) -> str:
    """The system's words for an error's number; asyncio's own repeat the address. A name that is not found has none."""
    found = _ERRNO.match(number)
    return words if found is None else os.strerror(int(found[1]))


def is_setup(error: Exception) -> bool:
    """Whether waiting changes nothing about it."""
    return code_of(error) in _SETUPS or any(text in str(error) for text in _SETUP_TEXTS)


def info_of(reply: Any) -> dict[str, str]:
    """The lines of an answer to INFO.

    Raises:
        LinkLost: the server refused to say.
    """
    if isinstance(reply, Exception):
        raise LinkLost(reason_of(reply), is_setup=is_setup(reply)) from reply
    pairs = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {name: value for name, separator, value in pairs if separator}


def dialer(*, is_tls: bool, **options: Any) -> Callable[[str, int], Callable[[], Any]]:
    """What makes, for a host and a port, a function that makes connections to it."""
    try:
        from redis.asyncio import Connection, SSLConnection  # noqa: PLC0415  # an extra, and it takes a while
    except ImportError as error:
        raise SettingsError(f"this store needs redis-py ({error}): pip install 'sessile[redis]'") from None
    kind = SSLConnection if is_tls else Connection
    return lambda host, port: lambda: kind(host=host, port=port, protocol=2, **options)
