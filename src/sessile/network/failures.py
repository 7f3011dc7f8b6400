"""What an error of a connection between servers means, in words, and what a person does about it.

An error of a socket or of TLS names a symptom. Of the few causes that people meet, each has a kind, a sentence and a remedy here.
Says nothing of when somebody is told: `troubles.py` does.
"""

from __future__ import annotations

import socket
import ssl
from typing import Final

from sessile.network.troubles import Failure

__all__ = ["HANDSHAKES", "dialled", "of_a_stranger"]

HANDSHAKES: Final = frozenset({"secret", "certificate", "tls"})
"""The kinds of failures in which TLS had the last word."""

SECRET: Final = "give every server the same secret (SESSILE_SECRET) and the same cluster="  # noqa: S105 - a sentence
FILES: Final = "give every server a certificate that is valid and that the others' tls_ca has signed"
MODE: Final = "set tls= alike on every server, and see that members= names the port of a node"
SILENT: Final = "see whether its server runs, whether members= names it rightly, and whether a firewall lets this server reach that port"
HUNG_UP: Final = "see what it logs: it may have another secret (SESSILE_SECRET), or another tls="
REFUSED: Final = "start its server, or correct members="
NAME: Final = "correct its name in members=, or the name service"
STRANGER: Final = "where it is a server of yours, {remedy}; else let only members reach this port"

_UNTRUSTED: Final = frozenset(
    {
        "TLSV1_ALERT_UNKNOWN_CA",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV1_ALERT_DECRYPT_ERROR",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "CERTIFICATE_VERIFY_FAILED",
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
    }
)
"""What OpenSSL calls it where one side does not take the other's certificate, or has none from it."""


def dialled(error: BaseException | None, tls: str, within_s: float) -> Failure:
    """Why no link came of a dial.

    Args:
        error: what was raised; None where the other side took the connection and closed it before it greeted.
        tls: the setting of this server.
        within_s: how long an answer was waited for.
    """
    if isinstance(error, ssl.SSLError):
        return _of_tls(error, tls)
    match error:
        case TimeoutError():
            return Failure("silent", f"no answer within {within_s:g} s", SILENT)
        case ConnectionRefusedError():
            return Failure("refused", "nobody listens there", REFUSED)
        case socket.gaierror():
            return Failure("unresolved", f"its name cannot be resolved ({error.strerror})", NAME)
        case None | ConnectionError():  # a peer in the clear takes the bytes of TLS for a greeting, and hangs up
            return Failure("hung up", "it closes each connection before it greets", HUNG_UP)
    return Failure("unreachable", getattr(error, "strerror", "") or str(error), SILENT)


def of_a_stranger(error: BaseException, tls: str) -> Failure | None:
    """Why who came to this server's port was not let in, if that is worth a word.

    Whoever connects and says nothing, as a health check of a port does, is not.
    """
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return None
    failure = _of_tls(error, tls)
    return failure._replace(remedy=STRANGER.format(remedy=failure.remedy))


def _of_tls(error: ssl.SSLError, tls: str) -> Failure:
    reason = getattr(error, "reason", "") or "TLS fails"
    if isinstance(error, ssl.SSLCertVerificationError) or reason in _UNTRUSTED:
        why = getattr(error, "verify_message", "") or reason.lower().replace("_", " ")
        if tls == "files":
            return Failure("certificate", f"its certificate or this server's is not accepted ({why})", FILES)
        return Failure("secret", f"it has another secret, or its cluster has another name ({why})", SECRET)
    return Failure("tls", f"it does not speak TLS as this server does ({reason.lower().replace('_', ' ')})", MODE)
