"""Browsers: cookie jars, tabs that share one, and thieves with old copies of it.

A jar keeps the cookie that arrived last. A tab makes one request after the other, now and then several at once; what each
handler shall do is drawn from the behaviours that are switched on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessile.simulation.options import READS, rng_of
from sessile.simulation.serving import Op, Verb, Work

if TYPE_CHECKING:
    from random import Random

    from sessile.simulation.options import Options

__all__ = ["Jar", "Tab"]

THINK_MS_MAX: Final = 80
BURST_MAX: Final = 4
LONG_CHANCE: Final = 0.1
"""How often a request is a long one, like that of a WebSocket, in runs with long requests."""


class Jar:
    """A browser's cookies, as far as cookies for one path need it (RFC 6265 §5.3)."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.cookies: dict[str, str] = {}
        self.server = -1
        """The place its affinity cookie names."""
        self._header: bytes | None = b""

    def __repr__(self) -> str:
        return f"<Jar {self.number}>"

    @property
    def header(self) -> bytes:
        """Its Cookie header; empty without cookies."""
        if self._header is None:
            self._header = "; ".join(f"{name}={value}" for name, value in self.cookies.items()).encode()
        return self._header

    def keep(self, set_cookies: list[bytes]) -> None:
        """Keep, replace or forget a cookie for each Set-Cookie value."""
        for set_cookie in set_cookies:
            pair, _, attributes = set_cookie.decode().partition(";")
            name, _, value = pair.partition("=")
            self.cookies.pop(name, None)
            if "max-age=0" not in attributes.lower():
                self.cookies[name] = value
            self._header = None


class Tab:
    """Somebody who makes requests with a jar, one after the other or several at once."""

    def __init__(self, number: int, jar: Jar, options: Options, seed: int) -> None:
        self.number = number
        self.jar = jar
        self.under_way = 0
        self._rng: Random = rng_of(seed, f"tab/{number}")
        self._has = frozenset(options.behaviours)
        self._late_ms = options.late
        self._long = rng_of(seed, f"tab/{number}/long")
        self._reads = options.reads
        self._writes = 0
        self._verbs = self._choices()

    def think_ms(self) -> int:
        """How long it is until it goes on."""
        return self._rng.randrange(1, THINK_MS_MAX)

    def burst(self) -> int:
        """How many requests it makes at once now."""
        if "bursts" in self._has and self._rng.random() < 0.25:
            return self._rng.randrange(2, BURST_MAX + 1)
        return 1

    def work(self) -> Work:
        """What the handler of its next request does."""
        rng = self._rng
        if self._late_ms and self.jar.cookies and self._long.random() < LONG_CHANCE:
            return Work((), 0, (self._op(Verb.SET),), self._long.randrange(self._late_ms))
        reads = self._reads if self.jar.cookies else min(self._reads, READS)
        if rng.random() * 100 < reads:
            return Work()
        ops = self._ops()
        think_ms = late_ms = 0
        late_ops: tuple[Op, ...] = ()
        if "slow-handlers" in self._has and rng.random() < 0.3:
            think_ms = rng.randrange(1, 120)
        if "late-writes" in self._has and rng.random() < 0.15:
            late_ops, late_ms = self._ops(is_late=True), rng.randrange(1, 60)
        return Work(ops, think_ms, late_ops, late_ms)

    def _ops(self, *, is_late: bool = False) -> tuple[Op, ...]:
        ops = []
        for verb in self._rng.choices(*self._verbs, k=self._rng.choice((1, 1, 2))):
            if is_late and verb in {Verb.LOGIN, Verb.ROTATE}:
                continue  # no cookie could tell of the new id
            ops.append(self._op(verb))
        return tuple(ops)

    def _op(self, verb: Verb) -> Op:
        self._writes += 1
        unique = self.number * 10_000 + self._writes
        rng = self._rng
        own = f"own{self.number}"
        if verb in {Verb.ADD, Verb.DISCARD}:
            return Op(verb, "basket", rng.randrange(5))
        if verb is Verb.SET and "collections" in self._has and rng.random() < 0.1:
            return Op(verb, "basket", unique)
        if verb is Verb.SET:
            return Op(verb, "shared" if "shared-fields" in self._has and rng.random() < 0.4 else own, unique)
        if verb is Verb.INCREMENT:
            return Op(Verb.SET, "hits", unique * 1_000) if rng.random() < 0.1 else Op(verb, "hits")
        if verb is Verb.REMOVE:
            collections = ("basket", "journal") if "collections" in self._has else ()
            return Op(verb, rng.choice(("shared", "hits", own, *collections)))
        value = f"user{unique}" if verb is Verb.LOGIN else unique
        return Op(verb, {Verb.COUNT: "visits", Verb.APPEND: "list", Verb.PUSH: "journal"}.get(verb, ""), value)

    def _choices(self) -> tuple[list[Verb], list[int]]:
        """What handlers may do, and how often in proportion."""
        every = (
            ("shared-fields", Verb.COUNT, 4),
            ("counters", Verb.INCREMENT, 8),
            ("removals", Verb.REMOVE, 3),
            ("lists", Verb.APPEND, 3),
            ("logins", Verb.LOGIN, 1),
            ("rotations", Verb.ROTATE, 1),
            ("logouts", Verb.LOGOUT, 1),
            ("collections", Verb.ADD, 5),
            ("collections", Verb.DISCARD, 3),
            ("collections", Verb.PUSH, 4),
        )
        has = [(verb, weight) for behaviour, verb, weight in every if behaviour in self._has]
        return [Verb.SET, *(verb for verb, _ in has)], [10, *(weight for _, weight in has)]
