from __future__ import annotations

from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from sessile.network.certificates import authorities, authority, authority_key, issue

SECRET = b"a secret of thirty-two bytes, yes"

Kind = TypeVar("Kind", bound=x509.ExtensionType)


def extension(certificate: x509.Certificate, kind: type[Kind]) -> tuple[Kind, bool]:
    found = certificate.extensions.get_extension_for_class(kind)
    return found.value, found.critical


def test_the_key_of_an_authority_is_what_the_secret_says_for_ever() -> None:
    """Another derivation would split a cluster while it is being updated."""
    public = authority_key(SECRET, "shop").public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert public.hex() == "5b1508d92839533af3d6b9f672f0b42a9dfb623c40cec8acea228bd55650ad58"


def test_every_process_makes_the_same_authority() -> None:
    """To the byte: key, name, number and signature."""
    assert authorities([SECRET], "shop") == authorities([SECRET], "shop")
    assert len({authorities([secret], cluster) for secret in (SECRET, b"b") for cluster in ("shop", "mail")}) == 4


def test_authorities_are_one_after_the_other() -> None:
    """As many as there are secrets, in their order."""
    assert authorities([SECRET, b"b"], "shop") == authorities([SECRET], "shop") + authorities([b"b"], "shop")


def test_an_authority_signs_certificates_of_servers_only() -> None:
    """RFC 5280 §4.2.1.3 and §4.2.1.9: certificates and nothing else, none of them another authority's."""
    certificate = authority(authority_key(SECRET, "shop"))
    assert extension(certificate, x509.BasicConstraints) == (x509.BasicConstraints(ca=True, path_length=0), True)
    usage, is_critical = extension(certificate, x509.KeyUsage)
    assert usage.key_cert_sign and is_critical
    assert not (usage.digital_signature or usage.crl_sign or usage.key_agreement or usage.key_encipherment)


def test_a_server_s_certificate_is_for_both_ends_of_tls_and_nothing_else() -> None:
    """It signs handshakes, as a client and as a server, and no certificate."""
    certificate = issue(SECRET, "shop", "web1:7400").certificate
    assert extension(certificate, x509.BasicConstraints) == (x509.BasicConstraints(ca=False, path_length=None), True)
    usage, is_critical = extension(certificate, x509.KeyUsage)
    assert usage.digital_signature and is_critical
    assert not (usage.key_cert_sign or usage.crl_sign or usage.key_agreement or usage.key_encipherment)
    purposes, is_critical = extension(certificate, x509.ExtendedKeyUsage)
    assert is_critical
    assert set(purposes) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}


def test_a_certificate_is_signed_by_its_authority_and_names_its_key() -> None:
    """The identifiers say which of several authorities it was."""
    certificate = issue(SECRET, "shop", "web1:7400").certificate
    signer = authority(authority_key(SECRET, "shop"))
    certificate.verify_directly_issued_by(signer)
    ours, _ = extension(certificate, x509.AuthorityKeyIdentifier)
    theirs, _ = extension(signer, x509.SubjectKeyIdentifier)
    assert ours.key_identifier == theirs.digest


def test_certificates_are_valid_whatever_the_clock_says() -> None:
    """From the time of a machine without a clock to the end of dates."""
    for certificate in (authority(authority_key(SECRET, "shop")), issue(SECRET, "shop", "web1:7400").certificate):
        assert certificate.not_valid_before_utc.isoformat() == "1970-01-01T00:00:00+00:00"
        assert certificate.not_valid_after_utc.isoformat() == "9999-12-31T23:59:59+00:00"


def test_a_certificate_tells_a_stranger_no_name() -> None:
    """It is shown to whoever asks: no server's name stands in it, nor the cluster's."""
    for certificate in (authority(authority_key(SECRET, "shop")), issue(SECRET, "shop", "web1:7400").certificate):
        data = certificate.public_bytes(Encoding.DER)
        assert b"shop" not in data
        assert b"web1" not in data
        assert b"sessile" not in data.lower()


def test_the_subject_is_the_same_for_one_name_and_every_key_is_new() -> None:
    """Who has the secret can tell whose a certificate is; who saw the key of one process has no other's."""
    first, again, other = (issue(SECRET, "shop", name) for name in ("web1:7400", "web1:7400", "web2:7400"))
    assert first.certificate.subject == again.certificate.subject != other.certificate.subject
    keys = {one.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) for one in (first, again, other)}
    assert len(keys) == 3
    assert len({one.certificate.serial_number for one in (first, again, other)}) == 3


def test_as_pem_the_key_is_encrypted() -> None:
    """Where it has to pass through a file, the file alone is worth nothing."""
    issued = issue(SECRET, "shop", "web1:7400")
    pem = issued.pem(b"passphrase")
    assert b"BEGIN CERTIFICATE" in pem and b"BEGIN ENCRYPTED PRIVATE KEY" in pem
    assert b"BEGIN PRIVATE KEY" not in pem
    bare = issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert bare.splitlines()[1] not in pem
