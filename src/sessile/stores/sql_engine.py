"""From a URL to an engine: which driver, which hosts, which settings each connection has. No session is known here.

Every connection commits by itself, so an idle one has nothing to roll back, and no trip is made but the statement's own.
None is asked whether it is still alive before it is used: one that turns out not to be takes the whole pool with it, and
the statement is repeated on a fresh one.

SQLite: write-ahead log, so that readers wait for no writer; `synchronous=FULL`, so that what was confirmed is on the
disk and survives a power cut (`?synchronous=normal` makes a change some ten times as fast and may lose the last ones to a
power cut, never to a crash of the process). PostgreSQL: the URL is libpq's. Its hosts are tried one after the other,
beginning with the one that answered last, each for its part of the timeout, and only one that takes writes will do, unless
`target_session_attrs` says otherwise. MySQL and MariaDB: one host; `?ssl=true` or `?ssl_ca=FILE` for TLS.
"""

from __future__ import annotations

import ssl
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sessile.errors import SettingsError
from sessile.forks import dropped_by
from sessile.kinds import nearest
from sessile.stores.patience import STRETCH_MAX, Starved, within
from sessile.stores.sql_forks import Inheritance
from sessile.stores.sql_schema import dialect_of
from sessile.stores.store_url import StoreUrl, file_of, shown_hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from psycopg import AsyncConnection
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["CONNECTIONS_MAX", "Connections", "Target", "target_of"]

CONNECTIONS_MAX: Final = 10
"""To a server. So many of its connections are one process's at the most."""
SQLITE_CONNECTIONS_MAX: Final = 4
"""Each is a thread."""
BUSY_PART: Final = 0.8
"""Which part of the timeout SQLite may wait for another process's lock: then it says so itself."""
IDLE_MAX_S: Final = 1_800
DRIVERS: Final = {
    "sqlite": ("sql", ("sqlalchemy", "aiosqlite")),
    "postgresql": ("postgresql", ("sqlalchemy", "psycopg")),
    "mysql": ("mysql", ("sqlalchemy", "asyncmy")),
}
"""Dialect → the extra that brings what it needs, and what that is."""
MYSQL_PARAMETERS: Final = ("ssl", "ssl_ca", "unix_socket")
_LIVELINESS: Final = {"keepalives": "1", "keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}


class Connections(NamedTuple):
    """Connections to a database, made when they are needed."""

    engine: AsyncEngine
    distrust: Callable[[], None]
    """A server that is silent on one of them is so on all: none that is there now is used again."""
    inheritance: Inheritance
    """The connections that a forked child drops."""


class Target(NamedTuple):
    """A database, as its URL says it."""

    dialect: str
    where: str
    """For people, without user and password."""
    secrets: tuple[str, ...]
    """Passwords, to be kept out of messages."""
    is_single: bool
    make: Callable[[float], Connections]
    """What gives connections that give up after so many seconds. No IO is done."""

    def __repr__(self) -> str:
        return f"<Target {self.where}>"


def target_of(url: str) -> Target:
    """What a URL asks for.

    Raises:
        SettingsError: it is malformed, or a driver it needs is not installed. The URL is never repeated.
    """
    dialect = dialect_of(url)
    extra, packages = DRIVERS[dialect]
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        names = " and ".join(missing)
        verb = "is" if len(missing) == 1 else "are"
        raise SettingsError(
            f"url={dialect}://… needs {names}, which {verb} not installed: pip install 'sessile[{extra}]'"
        )
    return {"sqlite": _sqlite, "postgresql": _postgresql, "mysql": _mysql}[dialect](url)


# -- SQLite ------------------------------------------------------------------------------------------------------------


def _sqlite(url: str) -> Target:
    try:
        path, parameters = file_of(url)
    except ValueError as error:
        raise SettingsError(f"url=sqlite://… {error}") from None
    _check_names("sqlite", parameters, ("synchronous",))
    synchronous = parameters.get("synchronous", "full").lower()
    if path in {"", ":memory:"}:
        raise SettingsError(
            "url=sqlite://… names no file: write sqlite:///sessions.db or sqlite:////var/lib/app/sessions.db"
        )
    if synchronous not in {"full", "normal"}:
        raise SettingsError("url=sqlite://… has an unknown synchronous: write full or normal")

    def make(timeout_s: float) -> Connections:
        from sqlalchemy import URL  # noqa: PLC0415  # an extra

        from sessile.stores.sqlite_calls import connect  # noqa: PLC0415  # it needs an extra

        address = URL.create("sqlite+aiosqlite", database=path)
        waits_s = BUSY_PART * timeout_s

        async def opened() -> Any:
            connection = connect(path, timeout_s=waits_s)
            try:
                await connection
                for pragma in ("journal_mode = WAL", f"synchronous = {synchronous}"):
                    await connection.once(f"PRAGMA {pragma}", ())
            except BaseException:
                await connection.give_up()
                raise
            return connection

        return _connections(address, SQLITE_CONNECTIONS_MAX, timeout_s, async_creator=opened)

    return Target("sqlite", f"sqlite:///{path}", (), is_single=True, make=make)


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


def _postgresql(url: str) -> Target:
    from psycopg.pq import Conninfo  # noqa: PLC0415  # an extra

    options = Conninfo.get_defaults()
    known = [option.keyword.decode() for option in options]
    secret = {option.keyword.decode() for option in options if option.dispchar == b"*"}
    try:
        given = _of_libpq(StoreUrl.read(url))
        hosts = _hosts(given)
    except ValueError as error:
        raise SettingsError(
            f"url=postgresql://… is malformed: it {error}; write postgresql://user@host1:5432,host2:5432/name?parameter=value "
            "with the parameters of libpq"
        ) from None
    _check_names("postgresql", given, known)
    named = [(host.get("host") or host.get("hostaddr", ""), int(host.get("port") or 0) or None) for host in hosts]
    where = f"postgresql://{shown_hosts(named)}/{given.get('dbname', '')}"
    secrets = tuple(value for name, value in given.items() if name in secret)

    def make(timeout_s: float) -> Connections:
        return _connections(
            "postgresql+psycopg://",
            CONNECTIONS_MAX,
            timeout_s,
            async_creator=Hosts(hosts, timeout_s).connect,
            use_native_hstore=False,
        )

    return Target("postgresql", where, secrets, is_single=len(hosts) == 1, make=make)


def _of_libpq(said: StoreUrl) -> dict[str, str]:
    """What a URL says, as libpq's parameters; those in its query count."""
    given = {
        "user": said.username,
        "password": said.password,
        "host": ",".join(host for host, _ in said.hosts),
        "port": ",".join(str(port or "") for _, port in said.hosts),
        "dbname": "/".join(said.path),
        **said.parameters,
    }
    if given.get("ssl") == "true":  # as libpq reads it
        del given["ssl"]
        given.setdefault("sslmode", "require")
    return {name: value for name, value in given.items() if value.strip(",")}


def _hosts(given: dict[str, str]) -> list[dict[str, str]]:
    """The parameters of libpq for each of the hosts alone."""
    lists = {name: given[name].split(",") for name in ("host", "hostaddr", "port") if given.get(name)}
    number = max((len(values) for name, values in lists.items() if name != "port"), default=1)
    if any(len(values) not in {1, number} for values in lists.values()):
        raise ValueError("has more ports than hosts, or fewer: write one port, or one for each host")
    if not all(port == "" or (port.isascii() and port.isdigit()) for port in lists.get("port", ())):
        raise ValueError("names a port that is no number")
    if not all(given.get(name, "").isprintable() for name in ("host", "hostaddr", "dbname")):
        raise ValueError("holds a character that cannot be printed")
    return [
        {**given, **{name: values[at] if len(values) > 1 else values[0] for name, values in lists.items()}}
        for at in range(number)
    ]


@dropped_by("Inheritance", "it keeps none of the connections that it makes")
class Hosts:
    """The hosts of a PostgreSQL database, one of which takes writes.

    libpq itself would wait for a silent host for two seconds at least, and begin with the first one each time.
    """

    def __init__(self, hosts: list[dict[str, str]], timeout_s: float) -> None:
        self._timeout_s = BUSY_PART * timeout_s / len(hosts)
        defaults = {
            "target_session_attrs": "read-write",
            "application_name": "sessile",
            "tcp_user_timeout": str(round(1_000 * timeout_s)),
            **_LIVELINESS,
        }
        self._hosts: list[dict[str, Any]] = [{**defaults, **host} for host in hosts]
        self._first = 0

    async def connect(self) -> AsyncConnection[Any]:
        """A connection to the first that will do.

        Raises:
            psycopg.OperationalError: none of them does; the message says why, of each.
        """
        import psycopg  # noqa: PLC0415  # an extra

        failures: list[str] = []
        number = len(self._hosts)
        for at in [(self._first + step) % number for step in range(number)]:
            host = self._hosts[at]
            try:
                async with within(self._timeout_s):
                    connection = await psycopg.AsyncConnection.connect(**host, cursor_factory=_binary_cursor())
            except Starved:
                raise
            except TimeoutError:
                failures.append(f"{host.get('host', 'the server')} does not answer")
            except psycopg.Error as error:
                failures.append(str(error).partition("\n")[0])
            else:
                self._first = at
                return connection
        raise psycopg.OperationalError("; ".join(failures))


def _binary_cursor() -> Any:
    """A cursor whose results come as they are: bytes are half as long as in text."""
    import psycopg  # noqa: PLC0415  # an extra

    class BinaryCursor(psycopg.AsyncCursor[Any]):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            self.format = psycopg.pq.Format.BINARY

    return BinaryCursor


# -- MySQL and MariaDB -------------------------------------------------------------------------------------------------


def _mysql(url: str) -> Target:
    from sqlalchemy import URL  # noqa: PLC0415  # an extra

    try:
        said = StoreUrl.read(url)
        if len(said.path) != 1 or len(said.hosts) > 1:
            raise ValueError("names no database, or several hosts")  # noqa: TRY301
    except ValueError as error:
        raise SettingsError(
            f"url=mysql://… is malformed: it {error}; write mysql://user@host:3306/name, with one host"
        ) from None
    parameters = said.parameters
    _check_names("mysql", parameters, MYSQL_PARAMETERS)
    host, port = next(iter(said.hosts), ("", None))
    address = URL.create("mysql+asyncmy", said.username or None, host=host or None, port=port, database=said.path[0])

    def make(timeout_s: float) -> Connections:
        connect_args: dict[str, Any] = {
            "connect_timeout": max(1, STRETCH_MAX * timeout_s),  # a trip as a whole is bounded, by another rule
            "binary_prefix": True,
            "password": said.password.encode(),  # the driver would write text as Latin-1
            # Plain reads and locks of single rows are all that is wanted, not of the gaps between them.
            "init_command": "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        }
        if "ssl_ca" in parameters or parameters.get("ssl", "").lower() in {"true", "1"}:
            connect_args["ssl"] = ssl.create_default_context(cafile=parameters.get("ssl_ca"))
        if "unix_socket" in parameters:
            connect_args["unix_socket"] = parameters["unix_socket"]
        return _connections(address, CONNECTIONS_MAX, timeout_s, connect_args=connect_args)

    where = f"mysql://{shown_hosts(said.hosts)}/{said.path[0]}"
    return Target("mysql", where, (said.password,) if said.password else (), is_single=True, make=make)


# -- for all of them ---------------------------------------------------------------------------------------------------


def _check_names(dialect: str, parameters: Iterable[str], known: Sequence[str]) -> None:
    for name in parameters:
        if name not in known:
            raise SettingsError(f"url={dialect}://… has an unknown parameter; did you mean {nearest(name, known)}?")


def _connections(address: Any, connections_max: int, timeout_s: float, **keywords: Any) -> Connections:
    from sqlalchemy import event  # noqa: PLC0415  # an extra
    from sqlalchemy.exc import DisconnectionError  # noqa: PLC0415
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415
    from sqlalchemy.pool import AsyncAdaptedQueuePool  # noqa: PLC0415

    from sessile.stores.sql_errors import is_read_only  # noqa: PLC0415

    engine = create_async_engine(
        address,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=connections_max,
        max_overflow=0,
        pool_use_lifo=True,
        pool_recycle=IDLE_MAX_S,
        pool_reset_on_return=None,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        hide_parameters=True,
        **keywords,
    )
    trusted_from_s = 0.0

    @event.listens_for(engine.sync_engine, "connect")
    def made(_: object, entry: Any) -> None:
        entry.info["made_s"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def taken(_: object, entry: Any, __: object) -> None:
        if entry.info["made_s"] < trusted_from_s:
            raise DisconnectionError("the server was silent since")  # which replaces it

    @event.listens_for(engine.sync_engine, "handle_error")
    def judge(context: Any) -> None:
        if context.sqlalchemy_exception is not None and is_read_only(context.sqlalchemy_exception):
            context.is_disconnect = True  # it was demoted: every connection to it is worthless

    def distrust() -> None:
        nonlocal trusted_from_s
        trusted_from_s = time.monotonic()

    return Connections(engine, distrust, Inheritance(engine, timeout_s))
