"""`pause`: servers are stopped under load (SIGSTOP), one at a time, and go on seconds later; nobody is kept waiting for long.

A stopped server is the meanest kind of dead one: it refuses nothing, its connections stay open, and it comes back with
copies of which it believes that they are new. So beside the users, who work through the balancer, there are witnesses: their
sessions are held by the server that is stopped, are changed or ended at another one meanwhile, and are asked for at the
first one in the very moment in which it goes on: the question lies in its socket when it wakes.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Final

from bench.browser import Browser
from bench.crowd import User, at_work
from bench.running import demo
from bench.show import CannotShow, Figure, Progress, Shown
from bench.unharmed import (
    COPIES,
    NOTES,
    ROUTING,
    all_asked,
    exactly,
    failures,
    longest,
    named,
    sessions_unharmed,
    wrongs,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from bench.crowd import Asked, Crowd
    from bench.running import Running

SUMMARY = "20 times SIGSTOP under load with each strategy: answered again within 1.5 s, and nothing old comes back."

USERS: Final = 200
SERVERS: Final = 3
PAUSES: Final = 20
PAUSE_S: Final = (2.0, 3.0)
WITNESSES: Final = 5
"""Of either kind, for each pause."""
AGAIN_S: Final = 1.5
WHOLE_S: Final = 30.0
SENT_S: Final = 0.05
"""A request is in the socket of a server on this machine after so long."""
TELL_EVERY: Final = 5


@dataclass(slots=True)
class Pause:
    """A server that was stopped, and what it told witnesses when it went on."""

    victim: str
    from_s: float = 0.0
    until_s: float = 0.0
    witnesses: list[User] = field(default_factory=list)
    """Whose session was changed meanwhile."""
    asked: int = 0
    """Witnesses that were answered."""
    reopened: int = 0
    """Sessions that had ended elsewhere, and that it showed all the same."""
    is_whole: bool = False

    def overlaps(self, asked: Asked) -> bool:
        return asked.began_s < self.until_s and asked.ended_s > self.from_s


async def strike(running: Running, crowd: Crowd, rng: Random) -> Pause:
    """Stop one server, change sessions elsewhere, let it go on, and ask it for them."""
    ports = await running.server_ports()
    pause = Pause(rng.choice(sorted(ports)))
    there = ports.pop(pause.victim)
    elsewhere = sorted(ports.values())
    pause.witnesses = [User(Browser(there), Random(rng.random())) for _ in range(WITNESSES)]
    leavers = [Browser(there) for _ in range(WITNESSES)]
    await _all_good([witness.count() for witness in pause.witnesses])
    await _all_good([_post(leaver, "/api/login?user=leaver") for leaver in leavers])
    pause.from_s = time.monotonic()
    await running.act(pause.victim, "pause")
    until_s = time.monotonic() + rng.uniform(*PAUSE_S)
    before = [dict(leaver.cookies) for leaver in leavers]
    for browser in [*(witness.browser for witness in pause.witnesses), *leavers]:
        browser.close()
        browser.port = rng.choice(elsewhere)
    await _all_good([witness.count() for witness in pause.witnesses])
    await _all_good([_post(leaver, "/api/logout") for leaver in leavers])
    await asyncio.sleep(max(until_s - time.monotonic(), 0))
    for browser in (witness.browser for witness in pause.witnesses):
        browser.close()
        browser.port = there
    ghosts = [Browser(there, cookies) for cookies in before]
    looking = [asyncio.create_task(witness.look()) for witness in pause.witnesses]
    haunting = [asyncio.create_task(ghost.ask("GET", "/api/session")) for ghost in ghosts]
    await asyncio.sleep(SENT_S)
    await running.act(pause.victim, "resume")
    pause.until_s = time.monotonic()
    await asyncio.gather(*looking)
    told = [answer for status, answer in await asyncio.gather(*haunting) if status == 200]
    pause.reopened = sum(bool(answer["key"] or answer["fields"]) for answer in told)
    pause.asked = sum(witness.asked[-1].is_good for witness in pause.witnesses) + len(told)
    for browser in [*(witness.browser for witness in pause.witnesses), *leavers, *ghosts]:
        browser.close()
    await crowd.until_answered(crowd.users, pause.until_s)
    pause.is_whole = await running.until_whole(WHOLE_S)
    return pause


async def _post(browser: Browser, path: str) -> bool:
    return (await browser.ask("POST", path))[0] == 200


async def _all_good(asking: Iterable[Awaitable[bool]]) -> None:
    """What witnesses do at servers that run has to work, or nothing is shown."""
    if not all(await asyncio.gather(*asking)):
        raise CannotShow("a server that was not stopped refused a witness")


async def play(strategy: str, progress: Progress) -> tuple[list[User], list[Pause]]:
    """One demo, its users, and all the pauses."""
    rng = Random(0)
    pauses: list[Pause] = []
    async with demo(strategy=strategy, routing=ROUTING, servers=SERVERS) as running:
        async with at_work(running.port, USERS) as crowd:
            await crowd.until_answered(crowd.users, time.monotonic())
            while len(pauses) < PAUSES:
                pauses.append(await strike(running, crowd, rng))
                if len(pauses) % TELL_EVERY == 0:
                    progress(f"{strategy}: {len(pauses)} of {PAUSES} pauses; {failures(crowd.users)}")
        await crowd.look_at((await running.server_ports()).values())
    return crowd.users, pauses


def judge(users: list[User], pauses: list[Pause]) -> list[Figure]:
    """Whoever need not wait for the stopped server does not, and it tells nothing old."""
    gets, posts = all_asked(users, "GET"), all_asked(users, "POST")
    witnesses = [witness for pause in pauses for witness in pause.witnesses]
    met = [(one, pause) for pause in pauses for one in [*gets, *posts] if pause.overlaps(one)]
    waited = [one for one, pause in met if one.method == "POST" and one.server in {pause.victim, ""}]
    seconds = [one.seconds for one, pause in met if one.method == "GET" or one.server not in {pause.victim, ""}]
    again = longest("time to an answer while a server was stopped", seconds)
    wrong = sum(len(witness.wrongs) + witness.stale for witness in witnesses)
    return [
        exactly("pauses", len(pauses), PAUSES),
        replace(again, bound=f"<= {AGAIN_S:g}", holds=again.value <= AGAIN_S),
        exactly("repeatable requests (GET) that failed", sum(not one.is_good for one in gets)),
        *sessions_unharmed(users),
        exactly("POST that failed", sum(not one.is_good for one in posts)),
        exactly(
            "witnesses answered by the server that went on", sum(pause.asked for pause in pauses), 2 * len(witnesses)
        ),
        exactly("of them, told something old", wrong),
        exactly("of them, shown a session that had ended", sum(pause.reopened for pause in pauses)),
        exactly("pauses after which the cluster did not come together", sum(not pause.is_whole for pause in pauses)),
        Figure("requests answered", sum(one.is_good for one in [*gets, *posts])),
        Figure("changes of a failed POST that showed late", sum(user.late for user in users)),
        Figure("POST that had to wait for the stopped server, for each pause", len(waited) / max(len(pauses), 1)),
        longest("such a wait", (one.seconds for one in waited if one.is_good)),
    ]


def run(progress: Progress) -> Shown:
    """Start the demos, stop their servers for a while, and judge what users and witnesses were told."""
    figures: list[Figure] = []
    notes = [
        *NOTES,
        f"a server is stopped for {PAUSE_S[0]:g} to {PAUSE_S[1]:g} s",
        "a POST that a stopped server has been sent waits until it goes on: nobody else may execute it",
        f"{2 * WITNESSES} witnesses for each pause: their sessions are changed or ended elsewhere while a server is stopped",
        "it has their next question, sent past the balancer, before it goes on",
    ]
    for strategy in COPIES:
        users, pauses = asyncio.run(play(strategy, progress))
        figures += named(strategy, judge(users, pauses))
        notes += wrongs(strategy, [*users, *(witness for pause in pauses for witness in pause.witnesses)])
    return Shown("pause", figures, notes)
