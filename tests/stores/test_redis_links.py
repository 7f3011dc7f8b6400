from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sessile.stores.redis_links import LINKS_MAX, LinkLost, Links, Wait, code_of, dialer, info_of, reason_of
from tests.network.clusters import ran
from tests.stores.redis_server import REDIS, Server, free_ports, serving, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(REDIS) as server:
        yield server


@contextlib.asynccontextmanager
async def linked(server: Server, *, must_be_primary: bool = True, **options: Any) -> AsyncIterator[Links]:
    links = Links(dialer(is_tls=False, **options)("127.0.0.1", server.port), must_be_primary=must_be_primary)
    try:
        yield links
    finally:
        await links.close()


@pytest.mark.needs(REDIS)
def test_a_trip_brings_a_reply_for_each_command(server: Server) -> None:
    """A refusal is one of them, and harms neither the others nor the connection."""

    async def test() -> None:
        async with linked(server) as links:
            for _ in range(3):
                replies, is_acknowledged, _ = await links.trip([("SET", "a", b"\xff"), ("LPUSH", "a", 1), ("GET", "a")])
                assert replies[0] == b"OK" and code_of(replies[1]) == "WRONGTYPE" and replies[2] == b"\xff"
                assert is_acknowledged
            assert len(links._free) == 1 and len(links.run_id) == 40

    ran(test())


@pytest.mark.needs(REDIS)
def test_trips_at_once_have_connections_of_their_own(server: Server) -> None:
    """As many as there may be; the others wait."""

    async def test() -> None:
        async with linked(server) as links:
            answers = await asyncio.gather(*(links.trip([("ECHO", str(at))]) for at in range(3 * LINKS_MAX)))
            assert [answer.replies for answer in answers] == [[b"%d" % at] for at in range(3 * LINKS_MAX)]
            assert len(links._free) <= LINKS_MAX

    ran(test())


@pytest.mark.needs(REDIS)
def test_connections_that_were_closed_meanwhile_are_replaced(server: Server) -> None:
    """A server that was started anew costs no failure."""

    async def test() -> None:
        with serving(REDIS) as other:
            async with linked(other) as links:
                await asyncio.gather(*(links.trip([("PING",)]) for _ in range(5)))
                before = links.run_id
                other.kill()
                with pytest.raises(LinkLost, match=r"^cannot be reached: Connection refused$"):
                    await links.trip([("PING",)])
                other.again()
                assert (await links.trip([("PING",)])).replies == [b"PONG"]
                assert links.run_id != before
                other.ask("CLIENT", "KILL", "TYPE", "normal")
                assert (await links.trip([("PING",)])).replies == [b"PONG"]

    ran(test())


@pytest.mark.needs(REDIS)
def test_a_trip_given_up_leaves_no_reply_for_the_next(server: Server) -> None:
    """A connection on which something is still to come is not used again."""

    async def test() -> None:
        async with linked(server) as links:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await links.trip([("BLPOP", "nothing", "1"), ("ECHO", "old")])
            assert (await links.trip([("ECHO", "new")])).replies == [b"new"]

    ran(test())


@pytest.mark.needs(REDIS)
def test_a_replica_is_no_primary(server: Server) -> None:
    """It is refused when it is connected to, and one that was demoted when it is next asked for its role."""

    async def test() -> None:
        with serving(REDIS, "--replicaof", "127.0.0.1", str(server.port)) as replica:
            async with linked(replica) as links:
                with pytest.raises(LinkLost, match="is a replica, which takes no writes"):
                    await links.trip([("PING",)])
                replica.ask("REPLICAOF", "NO", "ONE")
                await links.trip([("PING",)])
                replica.ask("REPLICAOF", "127.0.0.1", str(server.port))
                links._asked_s = 0.0
                with pytest.raises(LinkLost, match="is a replica"):
                    await links.trip([("PING",)])
            async with linked(replica, must_be_primary=False) as links:
                assert (await links.trip([("PING",)])).replies == [b"PONG"]

    ran(test())


@pytest.mark.needs(REDIS)
def test_replicas_acknowledge(server: Server) -> None:
    """One, or all; one that is missed is waited for, since a primary that is cut off has none; `none` waits for nobody."""

    async def test() -> None:
        with serving(REDIS) as primary:
            async with linked(primary) as links:
                assert (await links.trip([("SET", "a", 1)], Wait("all", 100))).is_acknowledged, "alone"
                follow = ("--replicaof", "127.0.0.1", str(primary.port), "--repl-diskless-sync-delay", "0")
                with serving(REDIS, *follow), serving(REDIS, *follow) as other:
                    until(lambda: primary.ask("INFO", "replication").count(b"state=online") == 2)
                    links._asked_s = 0.0
                    await links.trip([("PING",)])
                    assert links.replicas == 2
                    for ack in ("one", "all"):
                        assert (await links.trip([("SET", "a", 1)], Wait(ack, 10_000))).is_acknowledged
                    other.process.send_signal(signal.SIGSTOP)
                    try:
                        assert not (await links.trip([("SET", "a", 2)], Wait("all", 100))).is_acknowledged
                        assert (await links.trip([("SET", "a", 2)], Wait("one", 10_000))).is_acknowledged
                    finally:
                        other.process.send_signal(signal.SIGCONT)
                until(lambda: b"connected_slaves:0" in primary.ask("INFO", "replication"))
                links._asked_s = 0.0
                await links.trip([("PING",)])
                assert links.replicas == 0
                for ack, is_acknowledged in (("one", False), ("all", False), ("none", True)):
                    assert (await links.trip([("SET", "a", 3)], Wait(ack, 50))).is_acknowledged is is_acknowledged

    ran(test())


@pytest.mark.needs(REDIS)
def test_a_wrong_password_is_told_in_a_line(server: Server) -> None:
    """Which one it was is not."""

    async def test() -> None:
        with serving(REDIS, password="right") as closed:
            wrong: list[dict[str, Any]] = [{}, {"password": "wrong"}, {"username": "nobody", "password": "wrong"}]
            for options in wrong:
                async with linked(closed, **options) as links:
                    with pytest.raises(LinkLost, match=r"^wants another user or password$"):
                        await links.trip([("PING",)])
            async with linked(closed, password="right") as links:
                assert (await links.trip([("PING",)])).replies == [b"PONG"]

    ran(test())


def test_nobody_there() -> None:
    """A refused connection is told as such."""

    async def test() -> None:
        links = Links(dialer(is_tls=False)("127.0.0.1", free_ports(1)[0]))
        with pytest.raises(LinkLost, match=r"^cannot be reached: Connection refused$"):
            await links.trip([("PING",)])

    ran(test())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'. script: f, on @user_script:1.", "is out of memory"),
        ("READONLY You can't write against a read only replica.", "is a replica, which takes no writes"),
        ("ERR something\nodd", "fails: ERR something odd"),
        ("x" * 1_000, "fails: " + "x" * 160),
        ("", "fails: Exception"),
        ("Error 113 connecting to h:1. Connect call failed ('h', 1).", "cannot be reached: No route to host"),
        ("Error -2 connecting to no.h:1. Name or service not known.", "cannot be reached: Name or service not known"),
        ("Error odd connecting to h:1.", "cannot be reached: odd"),
        (
            "Error Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 111] … connecting to localhost:1.",
            "cannot be reached: Connection refused",
        ),
    ],
)
def test_a_reason_is_one_short_line(text: str, reason: str) -> None:
    """Whatever a server says."""
    assert reason_of(Exception(text)) == reason


def test_info_is_read_line_by_line() -> None:
    """Headings and empty lines are nothing; a refusal is told."""
    assert info_of(b"# Server\r\nredis_version:7.0.15\r\n\r\na:b:c\r\n") == {"redis_version": "7.0.15", "a": "b:c"}
    with pytest.raises(LinkLost, match="fails: NO"):
        info_of(Exception("NO"))


@pytest.mark.needs(REDIS)
def test_over_tls_a_server_shows_who_it_is(readable: Path) -> None:
    """One whose certificate the given authority did not issue is refused."""
    own, others = certificate(readable / "own"), certificate(readable / "others")
    (port,) = free_ports(1)
    options = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(own[0])]
    options += ["--tls-cert-file", str(own[0]), "--tls-key-file", str(own[1])]

    async def test() -> None:
        links = [Links(dialer(is_tls=True, ssl_ca_certs=str(ca))("127.0.0.1", port)) for ca in (own[0], others[0])]
        assert (await links[0].trip([("PING",)])).replies == [b"PONG"]
        with pytest.raises(LinkLost, match=r"fails: .*certificate"):
            await links[1].trip([("PING",)])
        for each in links:
            await each.close()

    with serving(REDIS, *options):
        ran(test())


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that the user may read as whom a server runs."""
    with tempfile.TemporaryDirectory(prefix="sessile-test-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that vouches for itself, and its key, in files that every user may read."""
    folder.mkdir(mode=0o755)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    for path in paths:
        path.chmod(0o644)
    return paths
