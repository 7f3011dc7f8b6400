"""What an error of a connection means, and what is to be done about it."""

from __future__ import annotations

import socket
import ssl

import pytest

from sessile.network import failures
from sessile.network.troubles import Failure


def tls_error(kind: type[ssl.SSLError], reason: str, why: str = "") -> ssl.SSLError:
    error = kind(1, f"[SSL: {reason}]")
    error.reason = reason
    if why:
        error.verify_message = why  # type: ignore[attr-defined]  # OpenSSL's words, on this kind alone
    return error


UNTRUSTED = tls_error(ssl.SSLCertVerificationError, "CERTIFICATE_VERIFY_FAILED", "self-signed certificate")
REFUSED_OURS = tls_error(ssl.SSLError, "TLSV1_ALERT_UNKNOWN_CA")
NO_TLS = tls_error(ssl.SSLError, "WRONG_VERSION_NUMBER")


@pytest.mark.parametrize(
    ("error", "tls", "kind", "words"),
    [
        (UNTRUSTED, "secret", "secret", ["SESSILE_SECRET", "self-signed certificate"]),
        (REFUSED_OURS, "secret", "secret", ["SESSILE_SECRET"]),
        (UNTRUSTED, "files", "certificate", ["tls_ca", "self-signed certificate"]),
        (NO_TLS, "secret", "tls", ["tls=", "wrong version number"]),
        (ssl.SSLError(1, "odd"), "secret", "tls", ["tls="]),
        (TimeoutError(), "secret", "silent", ["no answer within 2 s", "firewall", "members="]),
        (ConnectionRefusedError(111, "refused"), "off", "refused", ["nobody listens", "members="]),
        (socket.gaierror(-2, "Name or service not known"), "off", "unresolved", ["Name or service", "members="]),
        (None, "off", "hung up", ["closes each connection", "SESSILE_SECRET", "tls="]),
        (ConnectionResetError(), "secret", "hung up", ["closes each connection"]),
        (OSError(113, "No route to host"), "off", "unreachable", ["No route to host", "firewall"]),
        (ValueError("port"), "off", "unreachable", ["port"]),
    ],
)
def test_each_has_a_sentence_and_a_remedy(error: BaseException | None, tls: str, kind: str, words: list[str]) -> None:
    """The remedy names a setting; the sentence keeps what the system said."""
    failure = failures.dialled(error, tls, 2.0)
    assert failure.kind == kind
    for word in words:
        assert word in f"{failure.problem}; {failure.remedy}"


def test_of_strangers_only_those_who_might_be_members_are_worth_a_word() -> None:
    """A health check of the port, which says nothing, is not."""
    told = failures.of_a_stranger(UNTRUSTED, "secret")
    assert isinstance(told, Failure) and "a server of yours" in told.remedy and "SESSILE_SECRET" in told.remedy
    for error in (TimeoutError(), ConnectionResetError(), ssl.SSLEOFError(8, "eof"), ssl.SSLZeroReturnError(6, "over")):
        assert failures.of_a_stranger(error, "secret") is None
