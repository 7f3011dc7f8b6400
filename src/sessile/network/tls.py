"""TLS between servers: 1.3 only, and both sides prove that they are members before a byte of ours is read.

A member is who has the cluster's secret (`sessile.network.certificates`), or, with certificates of one's own, whom
`tls_ca` has certified: that CA should certify nobody else. Names are not compared: addresses change, and every member may
do everything. There are no tickets, so no key outlives its link, and every link is proven anew (RFC 8446 §2.2, §4.6.1).

A dialler verifies first and tells a stranger nothing of itself (§4.4.2.4). It takes the handshake for done before the
acceptor has verified it in turn: a refusal then comes as the first thing that is read, and nothing was answered.
"""

from __future__ import annotations

import contextlib
import os
import secrets as randomness
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from sessile.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["ALPN", "TlsContexts", "contexts", "contexts_from_files"]

ALPN: Final = "sessile"
"""What both sides say they speak (RFC 7301). A peer that names something else or nothing is not refused by TLS."""
_OPEN_FILES: Final = "/proc/self/fd"


class TlsContexts(NamedTuple):
    """How a process proves itself and verifies others, on links it dials and on links it accepts."""

    client: ssl.SSLContext
    server: ssl.SSLContext


def contexts(secrets: Sequence[bytes], cluster: str, name: str) -> TlsContexts:
    """Contexts by which all who have one of these secrets know each other, and nobody else.

    Args:
        secrets: the cluster's secrets, at least one. With the first this process proves itself; it takes proof by any,
            so a secret is replaced in steps: A; A,B; B,A; B.
        cluster: its name. Clusters of different names are strangers even if their secret is the same.
        name: this process's, for those who have the secret; it cannot be read from the certificate.

    Raises:
        SettingsError: `cryptography` is not installed.
    """
    try:
        from sessile.network import certificates  # noqa: PLC0415 - needs an extra, and takes a while to load
    except ImportError as error:
        raise SettingsError(
            f"tls=secret needs the package cryptography ({error}): pip install sessile[cluster], or set tls=files and "
            "give certificates of your own"
        ) from None
    made = _unloaded()
    trusted = certificates.authorities(secrets, cluster)
    passphrase = randomness.token_hex()
    issued = certificates.issue(secrets[0], cluster, name)
    with _readable(issued.pem(passphrase.encode())) as path:
        for context in made:
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            context.load_verify_locations(cadata=trusted)
            context.load_cert_chain(path, password=passphrase)
    return made


def contexts_from_files(cert: Path, key: Path, ca: Path) -> TlsContexts:
    """Contexts with certificates of one's own, all as PEM. What the others would refuse is refused here already.

    Args:
        cert: this server's certificate, for clients and servers both, and the chain up to the CA.
        key: its private key, without a passphrase.
        ca: whose certificates are taken from others; several while the CA is being replaced.

    Raises:
        SettingsError: a file cannot be read or holds something else; the key is another one's; the certificate has
            expired, is for one end of a connection only, or was not signed by `ca`.
    """
    for setting, path in (("tls_cert", cert), ("tls_key", key), ("tls_ca", ca)):
        try:
            path.read_bytes()
        except OSError as error:
            raise SettingsError(f"{setting}={str(path)!r} cannot be read: {error.strerror}") from None
    _check_certificates("tls_cert", cert)
    _check_certificates("tls_ca", ca)

    def refuse_encrypted() -> NoReturn:
        raise SettingsError(f"tls_key={str(key)!r} is encrypted: give the key without a passphrase")

    made = _unloaded()
    for context in made:
        context.load_verify_locations(ca)
        try:
            context.load_cert_chain(cert, key, password=refuse_encrypted)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise SettingsError(f"tls_key={str(key)!r} is not the key of tls_cert={str(cert)!r}") from None
            raise SettingsError(
                f"tls_key={str(key)!r} holds no private key in PEM form, or none that TLS 1.3 allows, for "
                f"tls_cert={str(cert)!r} ({error.reason})"
            ) from None
    try:
        _meet_oneself(made)
    except ssl.SSLError as error:
        reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
        raise SettingsError(
            f"tls_cert={str(cert)!r} would be refused by every server with tls_ca={str(ca)!r}: {reason}"
        ) from None
    return made


def _unloaded() -> TlsContexts:
    """Contexts that have no certificate yet and trust nobody."""
    made = TlsContexts(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    for context in made:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.options |= ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols([ALPN])
    made.server.num_tickets = 0
    return made


@contextlib.contextmanager
def _readable(data: bytes) -> Iterator[str]:
    """A path under which OpenSSL, which takes certificates no other way, reads this; gone when the block is left.

    It is memory with a path where there is such a thing, else a file that only this user can open.
    """
    file = _memory()
    if file is not None:
        with os.fdopen(file, "wb", buffering=0) as memory:
            path = f"{_OPEN_FILES}/{file}"
            if os.access(path, os.R_OK):
                memory.write(data)
                yield path
                return
    file, path = tempfile.mkstemp()
    try:
        with os.fdopen(file, "wb") as kept:
            kept.write(data)
        yield path
    finally:
        Path(path).unlink()


def _memory() -> int | None:
    """An open file that is on no disk; None where there is no such thing or it is forbidden."""
    try:
        return os.memfd_create("sessile")
    except (AttributeError, OSError):
        return None


def _check_certificates(setting: str, path: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        raise SettingsError(f"{setting}={str(path)!r} holds no certificate in PEM form ({error.reason})") from None


def _meet_oneself(made: TlsContexts) -> None:
    """One handshake in memory, oneself at both ends.

    Raises:
        ssl.SSLError: one end refuses the other.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = made.client.wrap_bio(to_client, to_server)
    server = made.server.wrap_bio(to_server, to_client, server_side=True)
    for end in (client, server, client, server):  # hello; hello and proof; proof; verified
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
