"""Every exception Sessile raises, in one tree.

::

    SessileError
    ├── SettingsError (ValueError)        a setting is unknown, malformed or contradicts another
    ├── CodecError (ValueError)
    │   ├── EncodeError (TypeError)       a value of a kind that would not survive the trip
    │   └── DecodeError                   bytes that no encoder of ours wrote
    ├── RecordError (ValueError)          bytes that are no record, or a record beyond its limits
    ├── SessionError
    │   ├── SessionConflict               what the handler wrote could not be kept
    │   │   ├── SessionEnded              the session was ended while the handler ran
    │   │   └── SessionRotated            the session has a new id; this request came with the old one
    │   ├── SessionTooLarge (ValueError)  a value, or the whole session, is over its limit
    │   ├── SessionTooLate                the head of the response has left, and no cookie can carry a new id
    │   ├── FieldUnreadable (DecodeError)  a value of a class or a type that this server does not know
    │   ├── SessionLimit                  this server holds as many sessions, or bytes, as it may
    │   └── SessionUnavailable            too few holders answered to say what the session is
    ├── StoreError                        the store does not answer, or not as it must; it may be asked again
    │   ├── StoreSetupError               the store refuses until somebody changes the URL, or how it is set up
    │   ├── StarvedError                  this process had too little time to read the store's answer
    │   └── StoredRecordError             the store holds a malformed or too large record of one session
    ├── WireError (ValueError)            bytes of a peer that are no frame or no message of the protocol
    ├── BalancerError                     the balancer was given something it cannot run with
    ├── StatusError                       a server could not be asked how it is
    └── LabError                          a process of the lab did not start, or ended

Caller misuse raises where it happens and changes nothing. What a browser or a peer sends never raises out of the
library: it is ignored or refused, and counted.
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
    """A value of a kind that would not survive the trip. Raised at the assignment; the session keeps its old value."""


class DecodeError(CodecError):
    """Bytes that no encoder of ours wrote, or beyond its limits."""


class RecordError(SessileError, ValueError):
    """Bytes that are no record or delta, or one beyond its limits. The receiver's state is unchanged."""


class SessionError(SessileError):
    """Something about one session."""


class SessionConflict(SessionError):
    """What the handler wrote could not be kept: the session ended or got a new id meanwhile. Nothing was stored."""


class SessionEnded(SessionConflict):
    """The session was ended (logout, revocation, expiry) while the handler ran. Its changes were not stored."""


class SessionRotated(SessionConflict):
    """The session has a new id, and this request came with the old one: it may look, for a moment, but not write."""


class SessionTooLarge(SessionError, ValueError):
    """A value, or the whole session, is over its limit. Raised at the assignment where possible; nothing was stored."""


class SessionTooLate(SessionError):
    """The operation needs a new session id, but the head of the response, whose cookies carry ids, has left.

    Raised by `login` and `rotate`, and by an assignment to a session that has no id yet or was ended. Nothing was changed.
    """


class FieldUnreadable(SessionError, DecodeError):
    """This server cannot read the value of a field: a server with another version of the application wrote it.

    Raised where the field is read. It stays as it is, and everything else of the session works.
    """

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name
        """The field."""


class SessionLimit(SessionError):
    """This server holds as many sessions, or bytes, as its settings allow. The new session was not stored."""


class SessionUnavailable(SessionError):
    """Too few holders of the session answered in time to say what it is. No cookie was touched; ask again."""


class StoreError(SessileError):
    """The store does not answer now, or not as it must: refused, too slow, read-only, out of memory. It may be asked again."""


class StoreSetupError(StoreError):
    """The store refuses, and to wait does not help: a wrong password, an unknown database, a missing table, a missing right."""


class StarvedError(StoreError):
    """No answer of the store was heard, and this process itself had too little time to hear one: the store may be well."""


class StoredRecordError(StoreError):
    """The store holds a malformed or too large record of one session. Other sessions are not affected."""


class WireError(SessileError, ValueError):
    """Bytes of a peer that are no frame, or no message of the protocol. Its link is closed; nothing else changes."""


class BalancerError(SessileError):
    """The balancer was given something it cannot run with. The message names it and the remedy."""


class StatusError(SessileError):
    """A server could not be asked how it is, or answered something else. The message names its URL and the remedy."""


class LabError(SessileError):
    """A process of the lab did not start, or ended. The message says which, and what it said last."""
