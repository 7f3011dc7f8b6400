"""Handshakes in memory between a member and whoever: each end is told what it refused, or what refused it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sessile import network
from sessile.errors import SettingsError
from sessile.network import certificates, tls
from sessile.network.tls import ALPN, TlsContexts, contexts, contexts_from_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

A, B = b"the first secret, thirty-two bytes", b"another secret, of just that length"


class Met(NamedTuple):
    """What became of a handshake: how each end failed, empty where it did not, and the ends."""

    client_error: str
    server_error: str
    client: ssl.SSLObject
    server: ssl.SSLObject

    @property
    def is_refused(self) -> bool:
        """Whether neither end believes in the link."""
        return bool(self.client_error and self.server_error)

    @property
    def is_well(self) -> bool:
        return not self.client_error and not self.server_error


def meet(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> Met:
    """A handshake, and then one look at what the other end says."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    errors = {client: "", server: ""}
    for step in ("do_handshake", "do_handshake", "read", "read"):
        for end in (client, server):
            if not errors[end]:
                try:
                    getattr(end, step)()
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError as error:
                    errors[end] = str(error)
    return Met(errors[client], errors[server], client, server)


def member(*secrets: bytes, cluster: str = "shop", name: str = "web1:7400") -> TlsContexts:
    return contexts(secrets, cluster, name)


def stranger() -> TlsContexts:
    """Who has no secret, believes everybody and shows nothing."""
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return TlsContexts(client, server)


def test_two_who_have_the_secret_meet() -> None:
    """Over TLS 1.3, each with the other's certificate, no ticket left over, and the protocol named."""
    met = meet(member(A).client, member(A, name="web2:7400").server)
    assert met.is_well
    for end in (met.client, met.server):
        assert end.version() == "TLSv1.3"
        assert end.getpeercert()
        assert end.selected_alpn_protocol() == ALPN
        assert end.compression() is None
    assert met.client.session is None or not met.client.session.has_ticket
    assert not met.client.session_reused


STEPS = [(A,), (A, B), (B, A), (B,)]


@pytest.mark.parametrize("step", range(4))
def test_a_secret_is_replaced_in_steps(step: int) -> None:
    """Servers that are at most one step apart are one cluster all the time, whoever dials."""
    before, after = member(*STEPS[max(step - 1, 0)]), member(*STEPS[step])
    assert meet(before.client, after.server).is_well
    assert meet(after.client, before.server).is_well


@pytest.mark.parametrize(
    "other", [member(B), member(A, cluster="mail"), member(B, A)], ids=["secret", "cluster", "two steps apart"]
)
def test_who_has_another_secret_or_cluster_is_refused_at_both_ends(other: TlsContexts) -> None:
    """Whoever dials: the one refuses, the other is told."""
    mine = member(A)
    assert meet(mine.client, other.server).is_refused
    assert meet(other.client, mine.server).is_refused


def test_a_stranger_without_a_certificate_is_refused_at_both_ends() -> None:
    """Even one that believes everything it is shown."""
    met = meet(stranger().client, member(A).server)
    assert met.is_refused
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in met.server_error


def test_a_stranger_that_is_dialled_is_refused_and_shown_nothing() -> None:
    """All it gets beyond the hello is an alert, which is shorter than any certificate."""
    server_context = stranger().server
    with tls._readable(self_signed().pem) as path:
        server_context.load_cert_chain(path)
    assert meet(member(A).client, server_context).is_refused
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = member(A).client.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for end in (client, server):
        with pytest.raises(ssl.SSLWantReadError):
            end.do_handshake()
    with pytest.raises(ssl.SSLCertVerificationError):
        client.do_handshake()
    assert len(to_server.read()) < 40


def test_what_a_stranger_is_shown_names_nobody() -> None:
    """The certificate of a server is all there is, and neither a server's name nor the cluster's stands in it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = stranger().client.wrap_bio(to_client, to_server)
    server = member(A).server.wrap_bio(to_server, to_client, server_side=True)
    for end in (client, server):
        with pytest.raises(ssl.SSLWantReadError):
            end.do_handshake()
    client.do_handshake()
    shown = client.getpeercert(binary_form=True)
    assert shown
    assert not [word for word in (b"shop", b"web1", b"7400", b"sessile") if word in shown.lower()]
    assert client.selected_alpn_protocol() is None


def test_older_tls_is_refused_at_both_ends() -> None:
    """Also from one that has the secret."""
    old = member(A)
    for context in old:
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert meet(old.client, member(A).server).is_refused
    assert meet(member(A).client, old.server).is_refused


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x05hello", bytes(64)])
def test_bytes_that_are_no_tls_are_refused(data: bytes) -> None:
    """At either end; an alert is all that comes back."""
    mine = member(A)
    for is_server in (False, True):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = mine.server if is_server else mine.client
        end = context.wrap_bio(incoming, outgoing, server_side=is_server)
        if not is_server:
            with pytest.raises(ssl.SSLWantReadError):
                end.do_handshake()
            outgoing.read()
        incoming.write(data)
        with pytest.raises(ssl.SSLError):
            end.do_handshake()
        assert len(outgoing.read()) in {0, 7}  # nothing, or RFC 8446 §5.1: a header of five bytes, an alert of two


class Made(NamedTuple):
    """A certificate, its key, and both as PEM."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM) + self.key_pem

    @property
    def key_pem(self) -> bytes:
        return bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


BOTH = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
FOREVER = datetime(9999, 12, 31, tzinfo=UTC)


def certified(
    signer: Made | None,
    *,
    name: str,
    is_ca: bool = False,
    purposes: Sequence[x509.ObjectIdentifier] = BOTH,
    until: datetime = FOREVER,
) -> Made:
    """A certificate as people make them; with no signer it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signs = key if signer is None else signer.key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if signer is None else signer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        .add_extension(x509.KeyUsage(True, False, False, False, False, is_ca, False, False, False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signs.public_key()), critical=False)
    )
    if not is_ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    is_edwards = not isinstance(signs, ec.EllipticCurvePrivateKey)
    return Made(builder.sign(signs, None if is_edwards else hashes.SHA256()), key)


def self_signed() -> Made:
    return certified(None, name="somebody")


def with_chain(*chain: Made) -> TlsContexts:
    """A member's contexts, but with this chain and the key of its first."""
    made = member(A)
    pem = chain[0].pem + b"".join(one.certificate.public_bytes(Encoding.PEM) for one in chain[1:])
    with tls._readable(pem) as path:
        for context in made:
            context.load_cert_chain(path)
    return made


def the_authority() -> Made:
    key = certificates.authority_key(A, "shop")
    return Made(certificates.authority(key), key)


def chain_of_a_member() -> TlsContexts:
    """Somebody who got hold of a member's key, and signs with it."""
    issued = Made(*certificates.issue(A, "shop", "web1:7400"))
    return with_chain(certified(issued, name="somebody"), issued)


def chain_of_an_authority_below() -> TlsContexts:
    """An authority under the authority, which even the secret's owner is not to make."""
    below = certified(the_authority(), name="below", is_ca=True)
    return with_chain(certified(below, name="somebody"), below)


@pytest.mark.parametrize("make", [chain_of_a_member, chain_of_an_authority_below])
def test_only_the_authority_itself_makes_members(make: Callable[[], TlsContexts]) -> None:
    """A member's certificate signs no other, and a chain has no link between."""
    false = make()
    met = meet(false.client, member(A).server)
    assert met.is_refused and "CERTIFICATE_VERIFY_FAILED" in met.server_error
    met = meet(member(A).client, false.server)
    assert met.is_refused and "CERTIFICATE_VERIFY_FAILED" in met.client_error


def test_a_certificate_for_one_end_only_is_good_at_no_other() -> None:
    """What the authority certified for servers does not dial."""
    server_only = with_chain(certified(the_authority(), name="x", purposes=BOTH[1:]))
    assert meet(member(A).client, server_only.server).is_well
    assert meet(server_only.client, member(A).server).is_refused


def test_what_passes_through_a_path_is_gone_at_once() -> None:
    """In memory, where there is such a thing."""
    with tls._readable(b"key") as path:
        assert Path(path).read_bytes() == b"key"
        assert not path.startswith(tempfile.gettempdir())
    assert not Path(path).exists()


def test_without_files_in_memory_a_file_that_only_we_can_read_is_gone_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also when what was to be loaded is no good."""
    monkeypatch.setattr(tls, "_memory", lambda: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail() -> None:
        with tls._readable(b"key") as path:
            assert Path(path).read_bytes() == b"key"
            assert Path(path).parent == tmp_path
            assert Path(path).stat().st_mode & 0o777 == 0o600
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert meet(member(A).client, member(A).server).is_well
    assert not list(tmp_path.iterdir())


def test_a_system_without_files_in_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """No such call, or a sandbox that forbids it."""
    monkeypatch.delattr("os.memfd_create", raising=False)
    assert tls._memory() is None


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the way to do without it."""
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.delitem(sys.modules, "sessile.network.certificates")
    monkeypatch.delattr(network, "certificates")
    with pytest.raises(SettingsError, match=r"^tls=secret needs .*pip install sessile\[cluster\], or set tls=files"):
        contexts([A], "shop", "web1:7400")


def test_on_sockets_a_member_is_answered_and_a_stranger_is_not() -> None:
    """Nothing is read from, or written to, whom the handshake did not prove to be a member."""

    async def play() -> None:
        heard: list[bytes] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.readexactly(5))
            writer.write(b"hello back")
            writer.close()

        acceptor = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=member(A).server)
        port = acceptor.sockets[0].getsockname()[1]

        async def dial(context: ssl.SSLContext, data: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="")
            try:
                writer.write(data)
                return await reader.read()
            finally:
                writer.transport.abort()

        async with acceptor, asyncio.timeout(10):
            assert await dial(member(A, name="web2:7400").client, b"hello") == b"hello back"
            with contextlib.suppress(ConnectionError, ssl.SSLError):  # closed, in one way or another
                assert not await dial(stranger().client, b"false")
            with pytest.raises(ssl.SSLError):
                await dial(member(B).client, b"wrong")
            assert heard == [b"hello"]

    asyncio.run(play())


# -- certificates of one's own -------------------------------------------------------------------------------------------


class Files:
    """A folder with certificates that people made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = certified(None, name="our CA", is_ca=True)
        self.write("ca.pem", self.ca.certificate.public_bytes(Encoding.PEM))
        self.keep("web", certified(self.ca, name="web1"))

    def write(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

    def keep(self, name: str, made: Made) -> None:
        self.write(f"{name}.pem", made.certificate.public_bytes(Encoding.PEM))
        self.write(f"{name}.key", made.key_pem)

    def load(self, cert: str = "web.pem", key: str = "web.key", ca: str = "ca.pem") -> TlsContexts:
        return contexts_from_files(*(self.folder / name for name in (cert, key, ca)))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_whom_the_same_ca_certified_meets(files: Files) -> None:
    """With files, too, both prove themselves, over TLS 1.3 and under the protocol's name."""
    files.keep("other", certified(files.ca, name="web2"))
    met = meet(files.load().client, files.load("other.pem", "other.key").server)
    assert met.is_well
    assert (met.client.version(), met.client.selected_alpn_protocol()) == ("TLSv1.3", ALPN)
    assert met.server.getpeercert()


def test_a_chain_up_to_the_ca_may_stand_in_the_file(files: Files) -> None:
    """A CA of one's own may have others below it."""
    below = certified(files.ca, name="below", is_ca=True)
    leaf = certified(below, name="web3")
    files.keep("web3", leaf)
    files.write("web3.pem", b"".join(one.certificate.public_bytes(Encoding.PEM) for one in (leaf, below)))
    assert meet(files.load("web3.pem", "web3.key").client, files.load().server).is_well


def test_strangers_to_the_ca_are_refused_at_both_ends(files: Files, tmp_path: Path) -> None:
    """One without a certificate, one of another CA, and one that has the secret."""
    (tmp_path / "other").mkdir()
    for other in (Files(tmp_path / "other").load(), member(A)):
        assert meet(other.client, files.load().server).is_refused
        assert meet(files.load().client, other.server).is_refused
    assert meet(stranger().client, files.load().server).is_refused


def break_files(files: Files) -> None:
    """What people put where a certificate, a key or a CA should be."""
    files.write("empty", b"")
    files.write("text", b"not at all\n")
    files.keep("old", certified(files.ca, name="web1", until=datetime(2001, 1, 1, tzinfo=UTC)))
    files.keep("half", certified(files.ca, name="web1", purposes=BOTH[1:]))
    files.keep("foreign", self_signed())
    files.write("locked.key", files_key_encrypted())


def files_key_encrypted() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase"))


@pytest.mark.parametrize(
    ("cert", "key", "ca", "message"),
    [
        ("missing", "web.key", "ca.pem", r"^tls_cert='.*/missing' cannot be read: No such file"),
        ("web.pem", "missing", "ca.pem", r"^tls_key='.*/missing' cannot be read: No such file"),
        ("web.pem", "web.key", "missing", r"^tls_ca='.*/missing' cannot be read: No such file"),
        ("web.pem", "web.key", ".", r"^tls_ca='.*' cannot be read: Is a directory"),
        ("empty", "web.key", "ca.pem", r"^tls_cert='.*/empty' holds no certificate"),
        ("web.key", "web.key", "ca.pem", r"^tls_cert='.*/web.key' holds no certificate"),
        ("web.pem", "text", "ca.pem", r"^tls_key='.*/text' holds no private key"),
        ("web.pem", "web.pem", "ca.pem", r"^tls_key='.*/web.pem' holds no private key"),
        ("web.pem", "web.key", "text", r"^tls_ca='.*/text' holds no certificate"),
        ("web.pem", "old.key", "ca.pem", r"^tls_key='.*/old.key' is not the key of tls_cert='.*/web.pem'$"),
        ("web.pem", "locked.key", "ca.pem", r"^tls_key='.*/locked.key' is encrypted: give the key without"),
        ("old.pem", "old.key", "ca.pem", r"^tls_cert='.*/old.pem' would be refused .*: certificate has expired$"),
        ("half.pem", "half.key", "ca.pem", r"^tls_cert='.*/half.pem' would be refused .* purpose$"),
        ("foreign.pem", "foreign.key", "ca.pem", r"^tls_cert='.*' would be refused .* tls_ca='.*/ca.pem': self.signed"),
    ],
)
def test_files_that_would_not_do_are_refused_at_once(files: Files, cert: str, key: str, ca: str, message: str) -> None:
    """Each message names the setting, the file and what is wrong with it."""
    break_files(files)
    with pytest.raises(SettingsError, match=message):
        files.load(cert, key, ca)
