"""The judge: what a case did, held against what it may do. It trusts neither the proxy nor the origin's parser.

For each case: the client's bytes are read by RFC 9112 and by `policy.py`, which says what the client was entitled to; what
reached the origin is read by three parsers that must agree; and each answer is traced by its serial number to the one
request that it may answer. Then probes on the same, on a fresh and on an old connection must get their own answers.
Whatever is not explained by that is a `Guilt`, with the exact bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from bench.hostile import policy
from bench.hostile.answers import POISON
from bench.hostile.expectations import broken_expectation
from bench.hostile.grammar import End, Reading, Request, read_requests
from bench.hostile.guilt import Guilt
from bench.hostile.origin import HEALTH_TARGET, Origin, Served
from bench.hostile.readings import disagreement
from bench.hostile.wire import Answer, Answers, Talk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.hostile.vector import Vector

__all__ = ["Judge", "Outcome", "Tally"]

ANSWER_TIMEOUT_S: Final = 4.0
SETTLE_S: Final = 0.01
_HARMLESS: Final = re.compile(rb"GET (?:/probe/|/healthz )[^\0]*?\r\n\r\n")
"""Our own probes and the proxy's health checks, which have no body."""


@dataclass(slots=True)
class Tally:
    """What became of the requests of all cases."""

    cases: int = 0
    forwarded: int = 0
    refused: int = 0
    unanswered: int = 0
    """Cases that ended without a word: an unfinished request, or a fault that its bytes do not yet prove."""
    lost: int = 0
    """Requests whose answers a reset took along: bytes came after a request that closes (RFC 9112 §9.6, a SHOULD)."""
    overrefused: list[tuple[str, bytes]] = field(default_factory=list)
    """Refused although no rule asks for it: no misdeed, but a proxy that refuses all would pass otherwise."""
    guilts: list[Guilt] = field(default_factory=list)

    def count(self, *kinds: str) -> int:
        return sum(guilt.kind in kinds for guilt in self.guilts)


@dataclass(slots=True)
class Outcome:
    """What was seen of one case."""

    name: str
    raw: bytes
    pieces: tuple[int, ...]
    reading: Reading
    answers: Answers
    is_closed: bool
    is_reset: bool
    received: bytes
    probes: list[Answer] = field(default_factory=list)
    reached: bytes = b""
    """What of it came to the server, on whatever connection."""


class Judge:
    """Tries cases one after the other at one proxy with one origin behind it."""

    def __init__(
        self,
        port: int,
        origin: Origin,
        *,
        affinity: bytes = b"affinity",
        rules: bool = True,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self.port = port
        self.origin = origin
        self.tally = Tally()
        self.affinity = affinity
        """A valid affinity cookie, `name=value`."""
        self._timeout_s = answer_timeout_s
        self._rules = rules
        """Whether our rules are held against the proxy, or only what every proxy owes."""
        self._victim: Talk | None = None
        self._methods: dict[int, bytes] = {}
        self._probes = 0

    async def learn_affinity(self) -> None:
        """Take the affinity cookie that the proxy sets, if it sets one."""
        talk = await Talk.open(self.port, self._method_of)
        await talk.send(b"GET /probe/first HTTP/1.1\r\nHost: a.example\r\n\r\n")
        answers = await talk.read_answer_number(1, self._timeout_s)
        await talk.close()
        if answers.finals and (cookie := answers.finals[0].value(b"set-cookie")):
            self.affinity = cookie.partition(b";")[0]
        self.origin.forget()

    # --- one case

    async def try_case(self, name: str, raw: bytes, pieces: Sequence[bytes] = ()) -> Outcome:
        """Send these bytes, watch, probe, and judge; what is found is in `tally`."""
        pieces = pieces or (raw,)
        reading = read_requests(raw)
        talk = await Talk.open(self.port, self._method_of)
        await talk.send(*pieces)
        answers = await self._watch(talk, reading)
        outcome = Outcome(name, raw, _cuts(pieces), reading, answers, talk.is_closed, talk.is_reset, talk.received)
        if reading.end is End.BOUNDARY and not talk.is_closed:
            await self._probe(talk, outcome, "the same connection", before=len(answers.finals))
        await talk.close()
        if not await self.origin.wait_quiet(self._timeout_s):
            self._accuse(outcome, "LEFT INSIDE", "a connection to the server was left inside a request")
        await self._probe_others(outcome)
        self._judge(outcome)
        self._settle()
        return outcome

    async def try_vector(self, vector: Vector, number: int, *, head_first: bool = False) -> Outcome:
        """Try a vector, and hold its own expectation against what happened too.

        `head_first` sends its head, and then the rest: a proxy may have looked at the one without the other.
        """
        vector = vector.filled(b"marker-v%d" % number, self.affinity)
        head, end, rest = vector.raw.partition(b"\r\n\r\n")
        pieces = (head + end, rest) if head_first and rest else (vector.raw,)
        outcome = await self.try_case(vector.name, vector.raw, pieces)
        if why := broken_expectation(vector, outcome.answers, outcome.reached):
            self._accuse(outcome, "EXPECTATION", f"{why} [{vector.rule}]")
        return outcome

    async def close(self) -> None:
        if self._victim is not None:
            await self._victim.close()

    def _method_of(self, serial: int) -> bytes:
        for connection in self.origin.connections:
            for served in connection.served:
                if served.serial == serial:
                    self._methods[serial] = served.method
        return self._methods.get(serial, b"GET")

    async def _watch(self, talk: Talk, reading: Reading) -> Answers:
        """Read until all that can come has come."""
        owed = len(reading.requests)
        if reading.end is End.FAULT:
            owed += 1
        answers = await talk.read_answer_number(owed, self._timeout_s if reading.end is not End.INSIDE else 1.0)
        while await talk.read_some(SETTLE_S):
            answers = talk.answers()
        return answers

    # --- probes

    async def _probe(
        self, talk: Talk, outcome: Outcome, where: str, *, before: int, count: int = 1, cookie: bytes = b""
    ) -> bool:
        """Ask something harmless; the answers must be to that. False when the connection is of no more use."""
        markers = []
        for _ in range(count):
            self._probes += 1
            markers.append(b"marker-probe-%d" % self._probes)
        head = b"GET /probe/%%b HTTP/1.1\r\nHost: a.example\r\n%b\r\n" % (cookie and b"Cookie: a=1; %b\r\n" % cookie)
        await talk.send(b"".join(head % marker for marker in markers))
        answers = await talk.read_answer_number(before + count, self._timeout_s)
        got = answers.finals[before:]
        outcome.probes += got
        if talk.is_closed and not got:
            return False
        if answers.fault or answers.rest or len(got) != count:
            self._accuse(outcome, "PROBE", f"a probe on {where} got {talk.received[-400:]!r}: {answers.fault}")
        for marker, answer in zip(markers, got, strict=False):
            if answer.status == 200 and marker not in answer.body.split():
                self._accuse(outcome, "FOREIGN ANSWER", f"a probe on {where} got {answer.body[:200]!r}")
            elif answer.status != 200:
                self._accuse(outcome, "PROBE", f"a probe on {where} got {answer.status} {answer.body[:200]!r}")
        return not talk.is_closed

    async def _probe_others(self, outcome: Outcome) -> None:
        """A fresh connection with two requests in one write, and the victim's, open since the beginning."""
        fresh = await Talk.open(self.port, self._method_of)
        await self._probe(fresh, outcome, "a fresh connection", before=0, count=2)
        await fresh.close()
        victim = self._victim or await Talk.open(self.port, self._method_of)
        victim.received = b""
        usable = await self._probe(victim, outcome, "another user's connection", before=0, cookie=self.affinity)
        self._victim = victim if usable else None
        if not usable:
            await victim.close()

    # --- judgement

    def _judge(self, outcome: Outcome) -> None:
        claimed = self._judge_answers(outcome)
        claimed |= {answer.serial for answer in outcome.probes if answer.serial is not None}
        for connection in self.origin.connections:
            raw = bytes(connection.raw)
            outcome.reached += _HARMLESS.sub(b"", raw)
            if connection.fault:
                self._accuse(
                    outcome, "DISAGREEMENT", f"h11 refused what reached the server: {connection.fault}: {raw!r}"
                )
            elif why := disagreement(raw):
                self._accuse(outcome, "DISAGREEMENT", f"{why}: {raw[:2_000]!r}")
            for served in connection.served:
                if served.serial not in claimed and served.target != HEALTH_TARGET:
                    self._judge_unclaimed(outcome, served)
        if outcome.reached and not self._may_reach(outcome.reading):
            self._accuse(outcome, "REACHED", f"the server saw {outcome.reached[:2_000]!r}")

    def _judge_unclaimed(self, outcome: Outcome, served: Served) -> None:
        """A request whose answer no client read: one that nobody asked for, unless its answer was reset away."""
        requests, answered = outcome.reading.requests, len(outcome.answers.finals)
        reached = self._request_of(served.serial)
        is_reset = outcome.is_reset and outcome.reading.end is End.CLOSED and answered < len(requests)
        if is_reset and reached and not self._difference(requests[answered], reached):
            self.tally.lost += 1
        else:
            why = f"the server got {served.method!r} {served.target!r}, asked by nobody"
            self._accuse(outcome, "SMUGGLED", why)

    def _may_reach(self, reading: Reading) -> bool:
        """Whether any head in it may be sent on before its body is known to be good."""
        heads = [*reading.requests, *([reading.begun] if reading.begun else [])]
        return any(not policy.refusal(each) for each in heads) or not self._rules

    def _judge_answers(self, outcome: Outcome) -> set[int]:
        """Walk requests and answers side by side; returns the serials that belong to this client."""
        claimed: set[int] = set()
        answers, requests = outcome.answers, outcome.reading.requests
        if answers.fault:
            self._accuse(
                outcome, "ANSWER", f"the client cannot read its answers: {answers.fault}: {outcome.received!r}"
            )
        if POISON in outcome.received:
            self._accuse(outcome, "FOREIGN ANSWER", "the client got bytes that were nobody's answer")
        finals = answers.finals
        for index, answer in enumerate(finals):
            if answer.serial is not None:
                claimed.add(answer.serial)
            if index < len(requests):
                self._judge_pair(outcome, requests[index], answer)
            else:
                self._judge_extra(outcome, answer, is_first=index == len(requests))
        if len(finals) < len(requests) and not outcome.is_closed:
            self._accuse(outcome, "NO ANSWER", f"{len(requests)} requests, {len(finals)} answers, still open")
        if not finals:
            self.tally.unanswered += 1
        return claimed

    def _judge_pair(self, outcome: Outcome, request: Request, answer: Answer) -> None:
        why = policy.refusal(request) if self._rules else ""
        if answer.serial is None:
            self.tally.refused += 1
            if not why:
                self.tally.overrefused.append((outcome.name, outcome.raw))
            if not answer.is_refusal or answer.status in {500, 502, 503, 504}:
                self._accuse(
                    outcome, "ANSWER", f"{answer.status} {answer.body[:100]!r} where nothing is wrong with the server"
                )
            return
        self.tally.forwarded += 1
        if why:
            self._accuse(outcome, "LENIENT", f"forwarded although: {why}")
            return
        reached = self._request_of(answer.serial)
        if reached is None:
            return  # the readers disagree on that connection, which is told there
        if b"serial=%d " % answer.serial not in answer.body and request.method != b"HEAD":
            self._accuse(outcome, "FOREIGN ANSWER", f"{answer.body[:200]!r} is not the answer to its request")
        if difference := self._difference(request, reached):
            self._accuse(outcome, "CHANGED", difference)

    def _judge_extra(self, outcome: Outcome, answer: Answer, *, is_first: bool) -> None:
        """An answer beyond those to the whole requests: only one refusal of what could not be read may stand there."""
        end = outcome.reading.end
        if answer.serial is not None:
            kind = "LENIENT" if end is End.FAULT and is_first else "SMUGGLED"
            self.tally.forwarded += 1
            self._accuse(outcome, kind, f"an answer to no request: {outcome.reading.why or end.value}")
        elif not is_first or not answer.is_refusal or end in {End.BOUNDARY, End.CLOSED}:
            self._accuse(outcome, "ANSWER", f"{answer.status} to no request, {end.value}")
        else:
            self.tally.refused += 1

    def _request_of(self, serial: int) -> Request | None:
        """The request with this serial, as RFC 9112 reads the bytes of its connection."""
        for connection in self.origin.connections:
            serials = [served.serial for served in connection.served]
            if serial in serials:
                reading = read_requests(bytes(connection.raw), skip_empty_lines=False)
                index = serials.index(serial)
                return reading.requests[index] if index < len(reading.requests) else None
        return None

    def _difference(self, sent: Request, reached: Request) -> str:
        """How the request at the server differs from what the client's must have become; nothing if it does not."""
        if sent.method != reached.method or policy.origin_target(sent) != reached.target:
            return f"{sent.method!r} {sent.target!r} became {reached.method!r} {reached.target!r}"
        if sent.body != reached.body:
            return f"a body of {len(sent.body)} became one of {len(reached.body)}"
        if not self._rules:
            return ""
        must = policy.forwarded_fields(sent, self.affinity.partition(b"=")[0], b"127.0.0.1:%d" % self.port)
        found = policy.reached_fields(reached)
        for name in must.keys() | found.keys():
            if must.get(name) != found.get(name):
                return f"{name!r} became {found.get(name)}, must be {must.get(name)}"
        return ""

    def _accuse(self, outcome: Outcome, kind: str, why: str) -> None:
        self.tally.guilts.append(Guilt(kind, outcome.name, why, outcome.raw, outcome.pieces))

    def _settle(self) -> None:
        """Forget what was judged."""
        self.tally.cases += 1
        self._methods.clear()
        self.origin.forget()


def _cuts(pieces: Sequence[bytes]) -> tuple[int, ...]:
    return tuple(accumulate(map(len, pieces[:-1])))
