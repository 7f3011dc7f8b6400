"""The certificates of a cluster, made from its secret: who has the secret is a member, and nobody else.

Every process derives the same CA key and makes the same CA certificate, to the byte. It issues itself a certificate for
a key drawn afresh, which no other process has and no file keeps. Both certificates are valid as long as dates go, so a
wrong clock keeps nobody out; what ends them is another secret.

A server shows its certificate before it knows to whom (RFC 8446 §2), so what stands in one tells a stranger nothing: keys,
and names that are hashes. A guess of the secret can be checked against it, as against a cookie: secrets are drawn, not
thought up. Needs `cryptography`.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sessile.token import derive_key

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Issued", "authorities", "authority", "authority_key", "issue"]

_NOT_BEFORE: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC; the time of a machine that does not know it
_NOT_AFTER: Final = datetime(9999, 12, 31, 23, 59, 59)  # noqa: DTZ001 - "no well-defined expiration", RFC 5280 §4.1.2.5
_NAME_BYTES: Final = 16
_SERIAL_BYTES: Final = 16
"""RFC 5280 §4.1.2.2 allows twenty."""


class Issued(NamedTuple):
    """A process's own certificate and its key."""

    certificate: x509.Certificate
    key: Ed25519PrivateKey

    def pem(self, passphrase: bytes) -> bytes:
        """Both in one PEM text, the key encrypted."""
        kept = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))
        return self.certificate.public_bytes(Encoding.PEM) + kept


def authority_key(secret: bytes, cluster: str) -> Ed25519PrivateKey:
    """The key with which this secret's servers in this cluster certify themselves: the same in every process."""
    return Ed25519PrivateKey.from_private_bytes(derive_key(secret, "cluster authority", cluster))


def authority(key: Ed25519PrivateKey) -> x509.Certificate:
    """The CA certificate of such a key, named by the key: it signs certificates of servers, none of other CAs."""
    public = key.public_key()
    number = x509.SubjectKeyIdentifier.from_public_key(public).digest
    builder = (
        _builder(_subject(number), public, key)
        .serial_number(int.from_bytes(number[:_SERIAL_BYTES], "big"))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return builder.sign(key, None)


def authorities(secrets: Iterable[bytes], cluster: str) -> bytes:
    """The CA certificates of these secrets, as DER, one after the other."""
    return b"".join(authority(authority_key(secret, cluster)).public_bytes(Encoding.DER) for secret in secrets)


def issue(secret: bytes, cluster: str, name: str) -> Issued:
    """A certificate for a new key, good for both ends of a TLS connection and nothing else.

    Args:
        secret: whose CA signs it.
        cluster: the cluster's name.
        name: the process's. Who has the secret can tell that the certificate is this one's, by its subject.
    """
    key = Ed25519PrivateKey.generate()
    signer = authority_key(secret, cluster)
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = (
        _builder(_subject(derive_key(secret, "cluster certificate", cluster, name)), key.public_key(), signer)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=True)
    )
    return Issued(builder.sign(signer, None), key)


def _builder(subject: x509.Name, public: Ed25519PublicKey, signer: Ed25519PrivateKey) -> x509.CertificateBuilder:
    """What both kinds have: names, validity, and the identifiers by which a chain is put together (RFC 5280 §4.2.1.1-2)."""
    issuer = signer.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_subject(x509.SubjectKeyIdentifier.from_public_key(issuer).digest))
        .public_key(public)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
    )


def _subject(digest: bytes) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, digest[:_NAME_BYTES].hex())])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """RFC 5280 §4.2.1.3: a CA signs certificates, a server signs the handshakes of its own."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
