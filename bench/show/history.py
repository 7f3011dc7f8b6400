"""`history`: thousands of requests while servers are killed and stopped, every answer checked as in the simulator.

Many browsers read, set, count, increment, log in and log out, one request after the other and several at once, through the
balancer and at single servers; some of their cookies are stolen. Meanwhile one server after the other is killed and started
again, or stopped and let go on. Everything that was asked and answered is recorded, and then checked (`bench/history/`).
`HISTORY_SEED` sets the seed of what is asked and of what is done to the servers.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Final

from bench.browser import Browser
from bench.history.harm import Harm
from bench.history.operations import Verb
from bench.history.users import Recorder, User
from bench.history.verdict import Verdict, judge
from bench.running import demo
from bench.show import Figure, Progress, Shown

if TYPE_CHECKING:
    from bench.history.operations import Operation
    from bench.running import Running

SUMMARY = "20 000 recorded requests while servers are killed and stopped: the simulator's checkers find nothing wrong in any answer."

STRATEGIES: Final = ("all-to-all", "primary-backup")
SERVERS: Final = 3
USERS: Final = 40
OPERATIONS: Final = 20_000
HARM: Final = ("kill", "pause") * 8
QUIET_S: Final = 5.0
"""So long after the last harm and the last request all copies are alike."""
CHECKS: Final = ("writes", "reads", "ends", "presence", "increments", "losses", "quiet", "answers")
PROMISES: Final = {
    "writes": "changes that are not what was asked for, or happened twice, or although they were refused",
    "reads": "answers older than their cookies, or other than what their version stands for",
    "ends": "ended sessions that opened",
    "presence": "sessions that were not found",
    "increments": "answers with too few or too many increments",
    "losses": "acknowledged changes that a server lacked long afterwards",
    "quiet": "changes that some server lacks in the end",
    "answers": "errors of the application",
}


async def record(running: Running, seed: int) -> tuple[Recorder, Harm]:
    """Let the browsers work and the servers come to harm, until there was enough of both."""
    recorder, harm = Recorder(), Harm()
    harming = asyncio.create_task(harm.do(running, HARM, Random(f"{seed}/harm"), lambda: recorder.now_ms))
    ports = list((await running.server_ports()).values())
    users = [User(recorder, running.port, ports, Random(f"{seed}/user {number}")) for number in range(USERS)]
    await asyncio.gather(*(user.go_on(lambda: recorder.issued < OPERATIONS or not harming.done()) for user in users))
    await harming
    return recorder, harm


async def read_all(running: Running, recorder: Recorder) -> list[Operation]:
    """Read every session that there ever was, with its own cookies, at every server."""
    jars = cookies_of(recorder.operations)
    done = len(recorder.operations)
    for port in (await running.server_ports()).values():
        browser = Browser(port)
        for jar in jars:
            browser.cookies = dict(jar)
            await recorder.ask(browser, Verb.READ)
        browser.close()
    last = recorder.operations[done:]
    del recorder.operations[done:]
    return last


def cookies_of(operations: list[Operation]) -> list[dict[bytes, bytes]]:
    """The cookies of every session, as they were last given out."""
    jars: dict[bytes, dict[bytes, bytes]] = {}
    for operation in operations:
        given = {name: value for name, value in operation.given.items() if value}
        shown = (operation.told or {}).get("after") or (operation.told or {}).get("before") or {}
        if given and shown.get("key"):
            jars.setdefault(shown["key"], {}).update(given)
    return list(jars.values())


def judge_history(strategy: str, made: list[Operation], verdict: Verdict, harm: Harm) -> list[Figure]:
    """Enough was asked and done, and nothing was found."""
    kinds = Counter(trouble.kind for trouble in harm.troubles)
    statuses = Counter(operation.status for operation in made)
    answered = statuses[200] + statuses[409]
    unavailable = len(made) - answered
    return [
        Figure(f"{strategy}: requests recorded", len(made), "", f">= {OPERATIONS}", len(made) >= OPERATIONS),
        *(
            Figure(
                f"{strategy}: servers {name}", kinds[kind], "", f"= {HARM.count(kind)}", kinds[kind] == HARM.count(kind)
            )
            for kind, name in (("kill", "killed and started again"), ("pause", "stopped and let go on"))
        ),
        Figure(f"{strategy}: sessions", verdict.sessions, "", "> 0", verdict.sessions > 0),
        Figure(f"{strategy}: changes", verdict.writes, "", "> 0", verdict.writes > 0),
        Figure(f"{strategy}: logouts and renewals", verdict.ends, "", "> 0", verdict.ends > 0),
        Figure(f"{strategy}: states compared with what they must be", verdict.looks, "", "> 0", verdict.looks > 0),
        Figure(f"{strategy}: requests without an answer, or with one that the service is away", unavailable),
        Figure(f"{strategy}: changes among them", verdict.unanswered),
        Figure(f"{strategy}: of those, changes that were made", verdict.happened),
        *(
            Figure(f"{strategy}: {PROMISES[check]}", verdict.findings[check], "", "= 0", not verdict.findings[check])
            for check in CHECKS
        ),
        Figure(f"{strategy}: answers that say they are stale", verdict.stale, "", "= 0", not verdict.stale),
    ]


async def show_strategy(strategy: str, seed: int, progress: Progress) -> tuple[list[Figure], list[str]]:
    """The figures of one strategy, and what was found in words."""
    async with demo(routing="round-robin", servers=SERVERS, strategy=strategy) as running:
        progress(
            f"{strategy}: {OPERATIONS} requests of {USERS} browsers, {len(HARM)} times harm to one of {SERVERS} servers"
        )
        recorder, harm = await record(running, seed)
        await asyncio.sleep(QUIET_S)
        progress(f"{strategy}: every session is read at every server")
        last = await read_all(running, recorder)
    made = recorder.operations
    progress(f"{strategy}: {len(made)} requests are checked")
    verdict = judge(made, last, harm)
    return judge_history(strategy, made, verdict, harm), verdict.told


async def show(progress: Progress) -> Shown:
    """Both strategies, each on fresh processes."""
    seed = int(os.environ.get("HISTORY_SEED", "1"))
    figures: list[Figure] = []
    notes = [
        f"{SERVERS} server processes and the balancer, started by `sessile demo --routing round-robin`; ack=one",
        "one server at a time is killed (SIGKILL) or stopped (SIGSTOP), and copies have time to be whole again before the next",
        "a change without an answer may have happened or not; it counts as made as soon as anybody sees it",
        f"HISTORY_SEED={seed}",
    ]
    for strategy in STRATEGIES:
        found, told = await show_strategy(strategy, seed, progress)
        figures += found
        notes += [f"{strategy}: {line}" for line in told]
    return Shown("history", figures, notes)


def run(progress: Progress) -> Shown:
    """Start the demos, use and harm them, and check what was answered."""
    return asyncio.run(show(progress))
