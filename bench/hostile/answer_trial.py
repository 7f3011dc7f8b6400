"""Trying the lies of an origin: the one who asked gets what the lie's author allows, everybody else their own answers.

The origin is told to lie by the target of a request, so one proxy and one pool of connections serve the lie and, right
after, the probes of the same client, of a fresh one and of one that was there before.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from bench.hostile.answers import LATE_BODY, POISON, SWITCH, HostileAnswer, Seen
from bench.hostile.guilt import Guilt
from bench.hostile.wire import Answer, Answers, Talk

if TYPE_CHECKING:
    from bench.hostile.origin import Origin

__all__ = ["AnswerTrial"]

TIMEOUT_S: Final = 6.0
LATER_S: Final = 0.06
"""How long the origin's later bytes may take to arrive before others ask on."""
ALLOWED: Final = {
    Seen.CLEAN: {Seen.CLEAN},
    Seen.REFUSED: {Seen.REFUSED},
    Seen.CUT: {Seen.CUT, Seen.REFUSED},
    Seen.ANY: {Seen.CLEAN, Seen.REFUSED, Seen.CUT},
}


class AnswerTrial:
    """Tries lies one after the other; `guilts` is what was found, `unavailable` how often others were told to wait."""

    def __init__(self, port: int, origin: Origin, *, affinity: bytes = b"", timeout_s: float = TIMEOUT_S) -> None:
        self._cookie = b"Cookie: a=1; %b\r\n" % affinity if affinity else b""
        """With it an answer needs no cookie of the proxy's, and may take another way through it."""
        self._timeout_s = timeout_s
        self.port = port
        self.origin = origin
        self.guilts: list[Guilt] = []
        self.cases = 0
        self.seen: dict[Seen, int] = dict.fromkeys(Seen, 0)
        self.unavailable = 0
        self._victim: Talk | None = None
        self._number = 0

    async def try_answer(self, lie: HostileAnswer) -> None:
        """Ask for the lie, look at what came, and let others ask."""
        self.cases += 1
        marker = b"marker-a%d" % self.cases
        request = self._request(lie, marker)
        method = request.partition(b" ")[0]
        talk = await Talk.open(self.port, lambda _: method)
        await talk.send(request)
        answers = await talk.read_answer_number(1, self._timeout_s)
        while await talk.read_some(LATER_S if lie.later else 0.01):
            answers = talk.answers()
        self._judge(lie, request, talk, answers)
        if not talk.is_closed:
            talk.method_of = lambda _: b"GET"
            await self._probe(lie, talk, "the same connection")
        await talk.close()
        await self._probe_others(lie)
        self._judge_repeats(lie, request, marker)
        carrier = next((one for one in self.origin.connections if marker in one.raw), None)
        if lie.must_close and carrier and not await self.origin.wait_until(lambda: carrier.is_closed, LATER_S):
            self._accuse(lie, "STILL OPEN", f"the connection that carried it is kept [{lie.rule}]", request)
        self.origin.forget()

    async def try_early(self, lie: HostileAnswer) -> None:
        """The answer comes before the body has; the rest of the body is nobody's request, here and at the server."""
        self.cases += 1
        request = self._request(lie, b"marker-e%d" % self.cases)
        talk = await Talk.open(self.port)
        await talk.send(request)
        answers = await talk.read_answer_number(1, self._timeout_s)
        self._judge(lie, request, talk, answers)
        await talk.send(LATE_BODY + (b"\r\n0\r\n\r\n" if b"chunked" in request else b""))
        while await talk.read_some(LATER_S):
            answers = talk.answers()
        if len(answers.finals) > 1 or POISON in talk.received:
            self._accuse(lie, "FOREIGN ANSWER", f"the rest of a body was answered: {talk.received[:500]!r}", request)
        talk.received = b""
        if not talk.is_closed:
            await self._probe(lie, talk, "the same connection")
        await talk.close()
        await self._probe_others(lie)
        carrier = next(one for one in self.origin.connections if lie.target in one.raw)
        if b"GET /probe/marker" in carrier.raw:
            self._accuse(lie, "SMUGGLED", "another's request was sent as the rest of a body", request)
        if any(served.target == b"/probe/inside" for one in self.origin.connections for served in one.served):
            self._accuse(lie, "SMUGGLED", "the rest of a body reached the server as a request", request)
        self.origin.forget()

    async def try_tunnel(self) -> None:
        """A tunnel that was asked for carries what looks like requests untouched, and ends with its client."""
        self.cases += 1
        marker = b"marker-tunnel-%d" % self.cases
        talk = await Talk.open(self.port)
        await talk.send(self._request(SWITCH, marker))
        answers = await talk.read_answer_number(1, self._timeout_s)
        if [answer.status for answer in answers.finals] != [101]:
            self._accuse(SWITCH, "EXPECTATION", f"no tunnel: {talk.received[:500]!r}")
        talk.received = b""
        inside = b"GET /probe/inside HTTP/1.1\r\nHost: a.example\r\n\r\n\x00\xff\r\n"
        await talk.send(inside)
        while len(talk.received) < len(inside) and await talk.read_some(self._timeout_s):
            pass
        if talk.received != inside:
            self._accuse(SWITCH, "CHANGED", f"{inside!r} came back as {talk.received[:500]!r}")
        tunnel = next(one for one in self.origin.connections if marker in one.raw)
        await talk.close()
        await self._probe_others(SWITCH)
        if not await self.origin.wait_until(lambda: tunnel.is_closed, self._timeout_s):
            self._accuse(SWITCH, "LEFT INSIDE", "the tunnel outlived its client")
        if b"marker-b" in tunnel.raw:
            self._accuse(SWITCH, "FOREIGN ANSWER", "another user's request went into the tunnel")
        self.origin.forget()

    def _request(self, lie: HostileAnswer, marker: bytes) -> bytes:
        line, _, rest = lie.request.replace(b"@T@", lie.target + b"?" + marker).partition(b"\r\n")
        host, _, rest = rest.partition(b"\r\n")
        return b"%b\r\n%b\r\n%b%b" % (line, host, self._cookie, rest)

    async def close(self) -> None:
        if self._victim is not None:
            await self._victim.close()

    async def _probe_others(self, lie: HostileAnswer) -> None:
        for _ in range(2):
            victim = self._victim or await Talk.open(self.port)
            victim.received = b""
            self._victim = victim if await self._probe(lie, victim, "another user's connection") else None
            if self._victim is None:
                await victim.close()
            fresh = await Talk.open(self.port)
            await self._probe(lie, fresh, "a fresh connection")
            await fresh.close()

    async def _probe(self, lie: HostileAnswer, talk: Talk, where: str) -> bool:
        """Ask something harmless until it is served; False when the connection is of no more use."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        while True:
            self._number += 1
            marker = b"marker-b%d" % self._number
            talk.received = b""
            await talk.send(b"GET /probe/%b HTTP/1.1\r\nHost: a.example\r\n%b\r\n" % (marker, self._cookie))
            answers = await talk.read_answer_number(1, self._timeout_s)
            if talk.is_closed and not talk.received:
                return False
            answer = answers.finals[0] if answers.finals else None
            is_waiting = answer is not None and answer.serial is None and answer.status in {502, 503}
            if not is_waiting or talk.is_closed or loop.time() > deadline:
                break
            self.unavailable += 1
            await asyncio.sleep(0.05)
        if POISON in talk.received or (answer and answer.status == 200 and marker not in answer.body):
            self._accuse(lie, "FOREIGN ANSWER", f"on {where}: {talk.received[:500]!r}")
        elif answer is None or answer.status != 200 or answers.fault or answers.rest:
            self._accuse(lie, "PROBE", f"on {where}: {talk.received[:500]!r} {answers.fault}")
        return not talk.is_closed

    def _judge(self, lie: HostileAnswer, request: bytes, talk: Talk, answers: Answers) -> None:
        final = answers.finals[0] if answers.finals else None
        what = _what(final, is_closed=talk.is_closed)
        if POISON in talk.received:
            self._accuse(lie, "FOREIGN ANSWER", f"the client saw {talk.received[:1_000]!r}", request)
        elif answers.fault or len(answers.finals) > 1 or (final is not None and final.is_whole and answers.rest):
            self._accuse(lie, "ANSWER", f"the client cannot read {talk.received[:1_000]!r}: {answers.fault}", request)
        elif what not in ALLOWED[lie.seen]:
            wanted = lie.seen.value
            self._accuse(lie, "EXPECTATION", f"must be {wanted}, was {talk.received[:500]!r} [{lie.rule}]", request)
        elif what is Seen.CLEAN and final is not None and lie.body is not None and final.body != lie.body:
            self._accuse(lie, "CHANGED", f"the body became {final.body[:200]!r} [{lie.rule}]", request)
        for unwanted in lie.must_not if what is Seen.CLEAN else ():
            if unwanted in talk.received.lower():
                self._accuse(lie, "CHANGED", f"{unwanted!r} reached the client: {talk.received[:500]!r}", request)
        if what is not None:
            self.seen[what] += 1

    def _judge_repeats(self, lie: HostileAnswer, request: bytes, marker: bytes) -> None:
        served = [each for one in self.origin.connections for each in one.served if each.target.endswith(b"?" + marker)]
        if not 1 <= len(served) <= lie.served_max:
            self._accuse(lie, "REPEATED", f"the server got it {len(served)} times [{lie.rule}]", request)

    def _accuse(self, lie: HostileAnswer, kind: str, why: str, request: bytes = b"") -> None:
        self.guilts.append(Guilt(kind, f"answer {lie.name}", f"{why}; the origin said {lie.raw[:500]!r}", request))


def _what(final: Answer | None, *, is_closed: bool) -> Seen | None:
    """What the client saw; None is a client left waiting."""
    if final is None or not final.is_whole:
        return Seen.CUT if is_closed else None
    if final.serial is None:
        return Seen.REFUSED if final.status in {502, 503, 504} else None
    return Seen.CLEAN
