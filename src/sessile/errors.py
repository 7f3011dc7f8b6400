"""Every exception Sessile raises, in one tree.

::

    SessileError
    ├── SettingsError (ValueError)        a setting is unknown, malformed or contradicts another
    ├── CodecError (ValueError)
    │   ├── EncodeError (TypeError)       a value of a type that sessions cannot store
    │   └── DecodeError                   bytes that Sessile's encoder did not write
    ├── RecordError (ValueError)          malformed bytes instead of a record, or a record over its limits
    ├── SessionError
    │   ├── SessionConflict               the handler's changes could not be stored
    │   │   ├── SessionEnded              the session was ended while the handler ran
    │   │   └── SessionRotated            the session has a new id; this request came with the old one
    │   ├── SessionTooLarge (ValueError)  a value, or the whole session, is over its limit
    │   ├── SessionTooLate                the head of the response has left, and no cookie can carry a new id
    │   ├── FieldUnreadable (DecodeError)  a value of a class or a type that this server does not know
    │   ├── SessionLimit                  this server has no room for a new session
    │   └── SessionUnavailable            too few holders of the session answered
    ├── StoreError                        the store did not answer, or with an error; a retry may help
    │   ├── StoreSetupError               the URL or the store's setup must be changed; a retry does not help
    │   ├── StarvedError                  this process had too little time to read the store's answer
    │   └── StoredRecordError             the store holds a malformed or too large record of one session
    ├── WireError (ValueError)            a peer sent bytes that are no valid frame or message
    ├── BalancerError                     the balancer was given something it cannot run with
    ├── StatusError                       a server did not answer a request for its status
    └── LabError                          a process of the lab did not start, or exited

Caller misuse raises where it happens and changes nothing. Invalid data from a browser or a peer never raises an exception to
the application: it is ignored or refused, and counted.
"""

from __future__ import annotations

__all__ = [
    "BalancerError",
    "CodecError",
    "DecodeError",
    "EncodeError",
    "FieldUnreadable",
    "LabError",
    "RecordError",
    "SessileError",
    "SessionConflict",
    "SessionEnded",
    "SessionError",
    "SessionLimit",
    "SessionRotated",
    "SessionTooLarge",
    "SessionTooLate",
    "SessionUnavailable",
    "SettingsError",
    "StarvedError",
    "StatusError",
    "StoreError",
    "StoreSetupError",
    "StoredRecordError",
    "WireError",
]


class SessileError(Exception):
    """The root of every exception of this package."""


class SettingsError(SessileError, ValueError):
    """A setting is unknown, malformed or contradicts another. The message names the setting and the remedy."""


class CodecError(SessileError, ValueError):
    """A value could not be turned into bytes, or bytes into a value. Nothing was changed."""


class EncodeError(CodecError, TypeError):
    """A value of a type that sessions cannot store. Raised at the assignment; the session keeps its old value."""


class DecodeError(CodecError):
    """Bytes that Sessile's encoder did not write, or that are over its limits."""


class RecordError(SessileError, ValueError):
    """Bytes that are not a valid record or delta, or one over its limits. The receiver's state is unchanged."""


class SessionError(SessileError):
    """Base of the errors that concern one session."""


class SessionConflict(SessionError):
    """The handler's changes could not be stored: the session ended or got a new id meanwhile. Nothing was stored."""


class SessionEnded(SessionConflict):
    """The session was ended (logout, revocation, expiry) while the handler ran. Its changes were not stored."""


class SessionRotated(SessionConflict):
    """The session has a new id, and this request came with the old one: it may read for a moment, but not write."""


class SessionTooLarge(SessionError, ValueError):
    """A value, or the whole session, is over its limit. Raised at the assignment where possible; nothing was stored."""


class SessionTooLate(SessionError):
    """The operation needs a new session id, but the head of the response, which carries the cookies, has left.

    Raised by `login` and `rotate`, and by an assignment to a session that has no id yet or was ended. Nothing was changed.
    """


class FieldUnreadable(SessionError, DecodeError):
    """This server cannot read the value of a field: a server with another version of the application wrote it.

    Raised when the field is read. The field is kept unchanged, and the session's other fields work.
    """

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name
        """The field's name."""


class SessionLimit(SessionError):
    """This server holds as many sessions, or bytes, as its settings allow. The new session was not stored."""


class SessionUnavailable(SessionError):
    """Too few holders of the session answered in time. No cookie was changed; the request may be retried."""


class StoreError(SessileError):
    """The store did not answer, or with an error: refused, too slow, read-only, out of memory. A retry may help."""


class StoreSetupError(StoreError):
    """A wrong password, an unknown database, a missing table or a missing right. A retry does not help."""


class StarvedError(StoreError):
    """This process had too little processor time to read the store's answer. The store itself may be well."""


class StoredRecordError(StoreError):
    """The store holds a malformed or too large record of one session. Other sessions are not affected."""


class WireError(SessileError, ValueError):
    """A peer sent bytes that are no valid frame or message of the protocol. Its link is closed; nothing else changes."""


class BalancerError(SessileError):
    """The balancer was given something it cannot run with. The message names it and the remedy."""


class StatusError(SessileError):
    """A server did not answer a request for its status, or not with a status. The message names its URL and the remedy."""


class LabError(SessileError):
    """A process of the lab did not start, or exited. The message names it and quotes its last output."""
