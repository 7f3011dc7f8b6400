"""The table of mistakes: what is made, and what a person must be told. A new one is an entry here and a play."""

from __future__ import annotations

from typing import Final

from bench.mistakes import Mistake, Outcome, Wanted, cluster, settings, starting, stores

__all__ = ["MISTAKES"]

_WORKS, _WARNS, _STOPS, _REFUSES = Outcome.WORKS, Outcome.WARNS, Outcome.STOPS, Outcome.REFUSES
_REDIS: Final = ("redis-server",)
_SECRETS: Final = (settings.PASSWORD, "ss/w0rd-part", "w0rd-part")
_REDIS_SECRETS: Final = (stores.REDIS_PASSWORD, stores.WRONG_PASSWORD)

MISTAKES: Final = (
    Mistake("C13", "two secrets, with blanks", settings.secrets_rotated, Wanted(_WORKS, lines_max=0)),
    Mistake("C14", "variables of Kubernetes", settings.kubernetes, Wanted(_WORKS, lines_max=1)),
    Mistake(
        "C15", "unescaped password, PostgreSQL", settings.unescaped_password,
        Wanted(_STOPS, ("url", "SESSILE_URL"), ("%40",), never=_SECRETS),
    ),
    Mistake(
        "C15", "unescaped password, Redis", settings.unescaped_password_of_redis,
        Wanted(_STOPS, ("url", "SESSILE_URL"), ("%40",), never=_SECRETS),
    ),
    Mistake(
        "C16", "keyword beside its variable", settings.keyword_beside_variable,
        Wanted(_WARNS, ("SESSILE_URL",), ("leave out one",), lines_max=1),
    ),
    Mistake(
        "C13", "secret that is too short", settings.weak_secret,
        Wanted(_STOPS, ("secret", "SESSILE_SECRET"), ("keygen",), lines_max=1, never=("short'", '"short')),
    ),
    Mistake(
        "D17", "another secret", cluster.another_secret,
        Wanted(_WARNS, ("SESSILE_SECRET",), ("give every server the same secret",), lines_max=14),
    ),
    Mistake(
        "D17", "another secret, with a store", cluster.another_secret_with_a_store,
        Wanted(_WARNS, ("SESSILE_SECRET",), ("give every server the same secret",), lines_max=4),
    ),
    Mistake(
        "D17", "another strategy", cluster.another_strategy,
        Wanted(_WARNS, ("url=",), ("give every server the same",), lines_max=14),
    ),
    Mistake(
        "D17", "TLS at some servers only", cluster.without_tls,
        Wanted(_WARNS, ("tls=",), ("set tls= alike",), lines_max=14),
    ),
    Mistake(
        "D17", "firewalled port", cluster.firewalled_port,
        Wanted(_WARNS, ("members=",), ("firewall",), lines_max=5),
    ),
    Mistake(
        "D17", "mistyped member", cluster.mistyped_member,
        Wanted(_WARNS, ("members=",), ("correct its name",), lines_max=5),
    ),
    Mistake("D18", "settings under uvicorn", starting.under_uvicorn, Wanted(_STOPS, ("me=",), ("set me=",))),
    Mistake(
        "D18", "settings, no lifespan", starting.without_lifespan,
        Wanted(_REFUSES, ("me=",), ("set me=",), lines_max=1),
    ),
    Mistake(
        "D18", "a malformed value", starting.wrong_value,
        Wanted(_STOPS, ("SESSILE_IDLE_TIMEOUT", "idle_timeout"), ("give seconds",)),
    ),
    Mistake(
        "D19", "gunicorn -w 4, a cluster", starting.sync_workers,
        Wanted(_STOPS, ("--workers 1", "me="), ("run one worker",), lines_max=12),
    ),
    Mistake(
        "D20", "wrong password", stores.wrong_password,
        Wanted(_STOPS, ("SESSILE_URL",), ("password",), never=_REDIS_SECRETS), _REDIS,
    ),
    Mistake(
        "D20", "no password", stores.no_password,
        Wanted(_STOPS, ("SESSILE_URL",), ("password",), never=_REDIS_SECRETS), _REDIS,
    ),
    Mistake(
        "D20", "unknown database", stores.unknown_database,
        Wanted(_STOPS, ("SESSILE_URL",), ("database",)), _REDIS,
    ),
    Mistake(
        "D20", "unwritable folder of SQLite", stores.unwritable_folder,
        Wanted(_STOPS, ("SESSILE_URL",), ("folder",)),
    ),
    Mistake(
        "D20", "another table", stores.another_table,
        Wanted(_STOPS, ("sessile_sessions", "table"), ("table",)),
    ),
    Mistake(
        "D21", "Redis user without channels", stores.user_without_channels,
        Wanted(_WARNS, ("&sessile:*",), ("ACL",), lines_max=2, never=_REDIS_SECRETS), _REDIS,
    ),
    Mistake(
        "D21", "Redis user without PING", stores.user_without_ping,
        Wanted(_WORKS, lines_max=0, never=_REDIS_SECRETS), _REDIS,
    ),
    Mistake("D22", "last replica away", stores.last_replica_away, Wanted(_WARNS, lines_max=2), _REDIS),
    Mistake(
        "D23", "all of Redis down", stores.all_of_redis_down,
        Wanted(_WARNS, ("store",), ("not reached",), lines_max=14), _REDIS,
    ),
    Mistake("D24", "two middlewares, equal settings", starting.equal_middlewares, Wanted(_WORKS, lines_max=0)),
)  # fmt: skip
