"""What no waiting mends: it stops the start, in one line that names the setting and shows no password. On real servers."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import OperationalError

from sessile.engine import Engine
from sessile.errors import SettingsError
from sessile.stores import redis_channel
from sessile.stores.redis_links import COMMANDS, RIGHTS
from sessile.stores.sql_errors import is_setup
from tests.fakes import SECRET
from tests.network.clusters import Tab, ran, until
from tests.stores.redis_server import REDIS, Server, serving
from tests.stores.redis_server import until as waited
from tests.stores.sharing import count

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.stores.postgres import Postgres

DOCS = Path(__file__).parents[2] / "docs"
PASSWORD = "hunter2"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(REDIS) as server:
        yield server


def started(url: str, cluster: str = "sessile") -> str:
    """What a start with this URL is refused with; empty where it is not."""

    async def start() -> str:
        engine = Engine(url=url, secret=SECRET, cluster=cluster, store_timeout="20s", environ={}, sweeps=False)
        assert engine.backend is not None
        try:
            await engine.backend.start()
        except SettingsError as error:
            return str(error)
        finally:
            await engine.backend.stop()
            engine.close()
        return ""

    said: list[str] = []

    async def run() -> None:
        said.append(await start())

    ran(run())
    assert "\n" not in said[0] and PASSWORD not in said[0]
    return said[0]


@pytest.mark.needs(REDIS)
@pytest.mark.parametrize(
    ("scheme", "user", "path", "why"),
    [
        ("redis", f"app:{PASSWORD}@", "", "wants another user or password"),
        ("redis", f"nobody:{PASSWORD}@", "", "wants another user or password"),
        ("redis", "", "/99", "DB index is out of range"),
        ("redis", "keyless:right@", "", "does not let this user do what is needed"),
        ("redis", "app:right@", "/1", "does not let this user do what is needed"),
        ("redis+cluster", "", "", "cluster support disabled"),
        ("redis+sentinel", "", "/main", "unknown command 'SENTINEL'"),
    ],
)
def test_redis_refuses(server: Server, scheme: str, user: str, path: str, why: str) -> None:
    """User, password, database, rights and the kind of URL."""
    server.ask("ACL", "SETUSER", "app", "reset", "on", ">right", *RIGHTS.split())
    server.ask("ACL", "SETUSER", "keyless", "reset", "on", ">right", "+@all")
    refusal = started(f"{scheme}://{user}127.0.0.1:{server.port}{path}")
    assert refusal.startswith("url= names a store that cannot be used: ") and why in refusal
    assert ("%40 for @" in refusal) is ("password" in why), "only where it may be the password"


@pytest.mark.needs(REDIS)
def test_what_comes_back_by_itself_is_no_mistake() -> None:
    """A server that is not there yet: others answer from their copies, and so does this one."""
    with serving(REDIS) as server:
        url = server.url
    assert started(url) == ""


@pytest.mark.needs(REDIS)
def test_a_password_that_is_changed_stops_no_running_server(server: Server) -> None:
    """Then it is an outage, which ends when the password is right again."""

    async def run() -> None:
        server.ask("ACL", "SETUSER", "changing", "reset", "on", ">right", *RIGHTS.split())
        engine = Engine(url=f"redis://changing:right@127.0.0.1:{server.port}", secret=SECRET, environ={}, sweeps=False)
        assert engine.backend is not None
        await engine.backend.start()
        tab = Tab(engine)
        await tab.ask(engine, count)
        server.ask("ACL", "SETUSER", "changing", "resetpass")
        server.ask("CLIENT", "KILL", "USER", "changing")
        await tab.ask(engine, count)
        assert engine.backend.status()["state"] == "away"
        server.ask("ACL", "SETUSER", "changing", ">right")
        await until(lambda: engine.backend is not None and engine.backend.status()["state"] == "ready")
        assert await tab.ask(engine, count) == 3
        await engine.backend.stop()
        engine.close()

    ran(run())


# -- the rights of a user ----------------------------------------------------------------------------------------------


def test_the_list_in_the_docs_is_what_is_used() -> None:
    """As it can be pasted into redis-cli."""
    assert f"ACL SETUSER app on >PASSWORD {RIGHTS}" in " ".join((DOCS / "STORES.md").read_text().split())


async def used(url: str) -> tuple[dict[str, int], str]:
    """Some reads of a session, as leases allow; the counts, and the state of the channel."""
    engine = Engine(url=url, secret=SECRET, environ={}, sweeps=False, store_timeout="20s")
    assert engine.backend is not None
    backend = engine.backend
    await backend.start()
    tab, other = Tab(engine), Tab(engine)
    for _ in range(3):
        await tab.ask(engine, count)
    await tab.ask(engine, lambda session: session.login("ann"))
    await other.ask(engine, count)
    await other.ask(engine, lambda session: session.logout())
    before = 0

    async def is_leased() -> bool:
        nonlocal before
        before = backend.status()["counts"]["trips"]
        assert await tab.look(engine) == {"n": 3}
        return bool(backend.status()["counts"]["trips"] == before)

    for _ in range(10):
        await is_leased()
    status = backend.status()
    if status["channel"] == "up":
        await until_async(is_leased)
    status = backend.status()
    await backend.stop()
    engine.close()
    return status["counts"], status["channel"]


async def until_async(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.needs(REDIS)
def test_a_user_with_these_rights_needs_no_more(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Changes, logins, logouts, leases and beats work, and the server has refused nothing."""
    server.ask("ACL", "SETUSER", "exact", "reset", "on", ">right", *RIGHTS.split())
    server.ask("ACL", "LOG", "RESET")
    server.ask("CONFIG", "RESETSTAT")

    async def run() -> None:
        counts, channel = await used(f"redis://exact:right@127.0.0.1:{server.port}")
        assert channel == "up" and not counts.keys() & {"refused_beats", "store_errors", "outages"}

    with caplog.at_level(logging.WARNING, "sessile"):
        ran(run())
    assert not caplog.records
    assert server.ask("ACL", "LOG") == b"*0\r\n"
    called = {name.upper() for name in re.findall(r"cmdstat_(\w+):calls", server.ask("INFO", "commandstats").decode())}
    assert called - {"AUTH", "ACL", "CONFIG", "INFO"} <= set(COMMANDS)


@pytest.mark.needs(REDIS)
@pytest.mark.parametrize("missing", ["&sessile:*", "+subscribe"])
def test_without_a_channel_one_line_says_what_is_missing(
    server: Server, missing: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is tried: each read asks, no connection is given up, and the pauses between the tries grow."""
    monkeypatch.setattr(redis_channel, "PAUSE_MIN_S", 0.001)
    rights = [right for right in RIGHTS.split() if right != missing]
    server.ask(
        "ACL", "SETUSER", "deaf", "reset", "on", ">right", *rights, "resetchannels" if "&" in missing else "+get"
    )
    server.ask("CONFIG", "RESETSTAT")

    async def run() -> None:
        _, channel = await used(f"redis://deaf:right@127.0.0.1:{server.port}")
        assert channel == "down"

    with caplog.at_level(logging.WARNING, "sessile"):
        ran(run())
    assert [record.getMessage().count("&sessile:* +get") for record in caplog.records] == [1]


@pytest.mark.needs(REDIS)
def test_a_channel_needs_no_ping_to_stay_up(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A refused PING shows that the link works: it is said once, and the channel does not flap."""
    rights = [right for right in RIGHTS.split() if right != "+ping"]
    server.ask("ACL", "SETUSER", "pingless", "reset", "on", ">right", *rights)

    async def run() -> None:
        engine = Engine(url=f"redis://pingless:right@127.0.0.1:{server.port}", secret=SECRET, environ={}, sweeps=False)
        assert engine.backend is not None
        backend = engine.backend
        await backend.start()
        await until(lambda: backend.status()["channel"] == "up")
        server.ask("ACL", "LOG", "RESET")
        await until(lambda: server.ask("ACL", "LOG").count(b"\r\nping\r\n") > 0)
        await until(lambda: any("+ping" in record.getMessage() for record in caplog.records))
        assert backend.status()["channel"] == "up"
        await backend.stop()
        engine.close()

    with caplog.at_level(logging.WARNING, "sessile"):
        ran(run())
    assert len(caplog.records) == 1


@pytest.mark.needs(REDIS)
@pytest.mark.parametrize("is_paused", [False, True])
def test_nothing_waits_for_a_replica_that_is_away(*, is_paused: bool) -> None:
    """Changes are not acknowledged, and say so at once; a replica that is silent is asked again now and then."""

    def waits(primary: Server) -> int:
        found = re.search(rb"cmdstat_wait:calls=(\d+)", primary.ask("INFO", "commandstats"))
        return int(found[1]) if found else 0

    async def run() -> None:
        follow = ("--replicaof", "127.0.0.1", str(primary.port), "--repl-diskless-sync-delay", "0")
        with serving(REDIS, *follow) as replica:
            waited(lambda: b"state=online" in primary.ask("INFO", "replication"))
            engine = Engine(url=primary.url, secret=SECRET, environ={}, sweeps=False)
            assert engine.backend is not None
            backend = engine.backend
            await backend.start()
            tab = Tab(engine)
            await tab.ask(engine, count)
            assert engine.counts["degraded"] == 0
            before = waits(primary)
            assert before > 0
            if is_paused:
                replica.process.send_signal(signal.SIGSTOP)
            else:
                replica.kill()
                waited(lambda: b"connected_slaves:0" in primary.ask("INFO", "replication"))
            for _ in range(30):
                await tab.ask(engine, count)
            assert engine.counts["degraded"] >= 29
            assert waits(primary) - before <= 5, "it was waited for by nearly every change"
            replica.process.send_signal(signal.SIGCONT)
            await backend.stop()
            engine.close()

    with serving(REDIS) as primary:
        ran(run())


# -- databases ---------------------------------------------------------------------------------------------------------


@pytest.mark.needs("postgres")
def test_postgresql_refuses(postgres: Postgres) -> None:
    """Password, user, database, table, and rights on the table."""
    url = postgres.url()
    where = url.rpartition("@")[2]
    for given, why in (
        (f"postgresql://ann:{PASSWORD}@{where}", "password authentication failed"),
        (f"postgresql://nobody:{PASSWORD}@{where}", "password authentication failed"),
        (postgres.url(name="nowhere"), "does not exist"),
    ):
        assert why in started(given)
    assert "`sessile schema postgresql:// --cluster 'a b'` prints it" in started(url, cluster="a b")
    postgres.query(
        "CREATE ROLE reader LOGIN PASSWORD 'right'",
        "CREATE TABLE sessile_sessions_rights (session_key BYTEA PRIMARY KEY, revision BIGINT, digest BIGINT, idle_ms BIGINT,"
        " deadline_ms BIGINT, touched_ms BIGINT, ended_ms BIGINT, due_ms BIGINT, state SMALLINT, record BYTEA)",
        "GRANT SELECT, INSERT, UPDATE ON sessile_sessions_rights TO reader",
    )
    assert "permission denied" in started(f"postgresql://reader:right@{where}", cluster="rights")
    postgres.query("GRANT DELETE ON sessile_sessions_rights TO reader")
    assert started(f"postgresql://reader:right@{where}", cluster="rights") == ""
    postgres.query("DROP TABLE sessile_sessions_rights", "DROP ROLE reader")


def test_sqlite_refuses(tmp_path: Path) -> None:
    """A folder that is not there, a folder for a file, and a file of another kind."""
    (tmp_path / "text").write_text("no database at all, but long enough to be looked at" * 20)
    for path, remedy in (
        (tmp_path / "no" / "s.db", f"the folder {tmp_path / 'no'} does not exist: create it, or correct url="),
        (tmp_path, f"{tmp_path} is a folder: add the name of a file in it to url="),
        (tmp_path / "text", "correct url=, or the store"),
        (tmp_path / "text" / "s.db", f"the folder {tmp_path / 'text'} does not exist: create it, or correct url="),
    ):
        refusal = started(f"sqlite:///{path}")
        assert refusal.startswith(f"url= names a store that cannot be used: sqlite:///{path}: ")
        assert refusal.endswith(f"; {remedy}") and "%40" not in refusal
    assert started(f"sqlite:///{tmp_path / 's.db'}") == ""


@pytest.mark.parametrize(
    ("text", "is_mistake"),
    [
        ("attempt to write a readonly database", True),
        ("database is locked", False),
        ("database or disk is full", False),
    ],
)
def test_what_of_sqlite_heals(text: str, *, is_mistake: bool) -> None:
    """A lock and a full disk do; a file that may not be written does not."""
    assert is_setup(OperationalError("", {}, sqlite3.OperationalError(text))) is is_mistake
