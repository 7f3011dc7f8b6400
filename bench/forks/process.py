"""A process that serves and forks: `python -m bench.forks.process KIND URL RUNS`, KIND one of threads, asyncio, uvloop.

Parent and child both go on serving known users. Prints the results of all their visits, as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import sys
import threading
import time
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from bench.forks.users import User

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from bench.forks.users import Answer

    Ask = Callable[[str, str], Answer]
    AskAsync = Callable[[str, str], Coroutine[Any, Any, Answer]]

PARENT_USERS: Final = 4
CHILD_USERS: Final = 4
VISITS: Final = 5
"""The visits of each of a child's users; half of the users had visited the parent before the fork."""
MEANWHILE: Final = 5
"""Each of the parent's users is served at least this often during a run."""
CHILD_S: Final = 30.0
VISIT_S: Final = 20.0
PAUSE_S: Final = 0.001
TRIES: Final = 100

Told = tuple[dict[str, int], list[str]]


class Play:
    """The results of all visits."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self.why: list[str] = []
        self.runs = 0

    def add(self, told: Told) -> None:
        self.found.update(told[0])
        self.why += told[1]

    def as_json(self, disturbed: list[str]) -> str:
        return json.dumps({"found": self.found, "why": self.why[:5], "runs": self.runs, "disturbed": disturbed})


def summed(users: list[User]) -> Told:
    """The results of these users."""
    found = sum((user.found for user in users), Counter[str]())
    return dict(found), [user.why for user in users if user.why][:5]


def twins(users: list[User], *, is_sticky: bool) -> list[User]:
    """In a child: the users who visited before the fork, and as many new ones."""
    for user in users:
        user.forked(os.getpid())
    return [*users, *(User(is_sticky=is_sticky) for _ in users)]


# -- threads -----------------------------------------------------------------------------------------------------------


def serve(ask: Ask, users: list[User]) -> Told:
    """Every user's visits, each in a thread."""

    def visit(user: User) -> None:
        for _ in range(VISITS):
            user.visit(ask)

    threads = [threading.Thread(target=visit, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return summed(users)


class Threads:
    """A WSGI site whose parent process serves in threads.

    Args:
        ask: one request.
        is_sticky: what `verdict` expects.
    """

    def __init__(self, ask: Ask, *, is_sticky: bool) -> None:
        self._ask = ask
        self._is_sticky = is_sticky
        self._is_over = False
        self._awaited = [User(is_sticky=is_sticky) for _ in range(CHILD_USERS)]
        self._users = [User(is_sticky=is_sticky) for _ in range(PARENT_USERS)]
        self._ways = (self._by_multiprocessing, self._in_a_thread, self._unused, self._twice)

    def play(self, runs: int) -> Play:
        play = Play()
        for user in self._awaited:
            user.visit(self._ask)
        threads = [threading.Thread(target=self._work, args=(user,)) for user in self._users]
        for thread in threads:
            thread.start()
        for number in range(runs):
            before = [user.found.total() for user in self._users]
            for told in self._ways[number % len(self._ways)]():
                play.add(told)
            while any(user.found.total() - was < MEANWHILE for user, was in zip(self._users, before, strict=True)):
                time.sleep(PAUSE_S)
            for user in self._awaited:
                user.visit(self._ask)
            play.runs += 1
        self._is_over = True
        for thread in threads:
            thread.join()
        play.add(summed([*self._users, *self._awaited]))
        return play

    def _work(self, user: User) -> None:
        while not self._is_over:
            user.visit(self._ask)
            time.sleep(PAUSE_S)

    def _child(self, sending: Any) -> None:
        sending.send(serve(self._ask, twins(self._awaited, is_sticky=self._is_sticky)))

    def _by_multiprocessing(self) -> list[Told]:
        return [in_a_process(self._child)]

    def _in_a_thread(self) -> list[Told]:
        """`os.fork` in another thread than the first."""
        told: list[Told] = []
        thread = threading.Thread(target=lambda: told.extend(forked(self._child)))
        thread.start()
        thread.join()
        return told

    def _unused(self) -> list[Told]:
        """A child that serves no user and ends as Python does, with everything finalised."""
        pid = fork()
        if not pid:
            gc.collect()
            sys.exit(0)
        return [] if os.waitpid(pid, 0)[1] == 0 else [({"failed": 1}, ["a child that did nothing did not end well"])]

    def _twice(self) -> list[Told]:
        """A child that serves, and then forks one that does."""

        def child(sending: Any) -> None:
            self._child(sending)
            for told in forked(self._child):
                sending.send(told)

        return forked(child, answers=2)


def fork() -> int:
    """`os.fork`, without the warning that there are threads: that is what this is about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def forked(child: Callable[[Any], None], answers: int = 1) -> list[Told]:
    """What a child by `os.fork` says."""
    reading, sending = multiprocessing.Pipe(duplex=False)
    pid = fork()
    if not pid:
        try:
            child(sending)
        finally:
            os._exit(0)
    sending.close()
    told = [heard(reading) for _ in range(answers)]
    if any("silent" in answer[0] for answer in told):
        os.kill(pid, 9)
    os.waitpid(pid, 0)
    return told


def in_a_process(child: Callable[[Any], None]) -> Told:
    """What a child of `multiprocessing` says."""
    process, reading = started(child)
    return ended(process, heard(reading))


def started(child: Callable[[Any], None]) -> tuple[Any, Any]:
    """A child of `multiprocessing`, by fork, and where it will say what came of it."""
    reading, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=child, args=(sending,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sending.close()
    return process, reading


def ended(process: Any, told: Told) -> Told:
    """The same results, once the child has ended."""
    if "silent" in told[0]:
        process.kill()
    process.join()
    return told


def heard(reading: Any) -> Told:
    """The results that a child sent; a child that sends none is a failure."""
    try:
        if reading.poll(CHILD_S):
            told: Told = reading.recv()
            return told
    except EOFError:
        pass
    return {"failed": 1, "silent": 1}, ["a child said nothing"]


# -- event loops -------------------------------------------------------------------------------------------------------


class Loops:
    """An ASGI site, in a process that forks while its loop runs.

    Args:
        ask: one request.
        is_sticky: what `verdict` expects.
        run: runs a coroutine on a loop of its own.
        visit_s: a visit that takes longer has failed.
    """

    def __init__(
        self,
        ask: AskAsync,
        run: Callable[[Coroutine[Any, Any, Any]], Any],
        *,
        is_sticky: bool,
        visit_s: float = VISIT_S,
    ) -> None:
        self._ask = ask
        self._visit_s = visit_s
        self._run = run
        self._is_sticky = is_sticky
        self._is_over = False

    async def play(self, runs: int) -> Play:
        play = Play()
        awaited = [User(is_sticky=self._is_sticky) for _ in range(CHILD_USERS)]
        for user in awaited:
            await self._visit(user)
        users = [User(is_sticky=self._is_sticky) for _ in range(PARENT_USERS)]
        working = [asyncio.create_task(self._work(user)) for user in users]

        def child(sending: Any) -> None:
            sending.send(self._run(self._serve(twins(awaited, is_sticky=self._is_sticky))))

        for _ in range(runs):
            before = [user.found.total() for user in users]
            process, reading = started(child)
            play.add(ended(process, await asyncio.to_thread(heard, reading)))
            while any(user.found.total() - was < MEANWHILE for user, was in zip(users, before, strict=True)):  # noqa: ASYNC110
                await asyncio.sleep(PAUSE_S)
            for user in awaited:
                await self._visit(user)
            play.runs += 1
        self._is_over = True
        await asyncio.gather(*working)
        play.add(summed([*users, *awaited]))
        return play

    async def _work(self, user: User) -> None:
        while not self._is_over:
            await self._visit(user)
            await asyncio.sleep(PAUSE_S)

    async def _serve(self, users: list[User]) -> Told:
        async def visit(user: User) -> None:
            for _ in range(VISITS):
                await self._visit(user)

        await asyncio.gather(*map(visit, users))
        return summed(users)

    async def _visit(self, user: User) -> None:
        try:
            async with asyncio.timeout(self._visit_s):
                answer = await self._ask(user.path(), user.cookie)
        except Exception as error:  # noqa: BLE001  # whatever it is, the visit failed
            answer = type_of_failure(error)
        user.take(answer)


def type_of_failure(error: Exception) -> Answer:
    """A visit that raised."""
    from bench.forks.users import Answer

    return Answer(0, [], f"{type(error).__name__}: {error}")


# -- Sessile -----------------------------------------------------------------------------------------------------------


def play_threads(url: str, runs: int) -> str:
    """Sessile, under WSGI."""
    from bench.forks.site import Site

    site = Site(url)
    until_linked(site, lambda: [site.ask("/who", "") for _ in site.engines])
    play = Threads(site.ask, is_sticky=site.is_sticky).play(runs)
    disturbed = site.disturbed()
    site.stop()
    return play.as_json(disturbed)


def until_linked(site: Any, ask: Callable[[], Any]) -> None:
    """Start every member, and wait until they know each other."""
    for _ in range(TRIES):
        ask()
        if not site.disturbed():
            return
        time.sleep(0.05)


async def play_loop(url: str, runs: int, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> str:
    """Sessile, under ASGI."""
    from bench.forks.site import Site

    site = Site(url)
    for _ in range(TRIES):
        for _ in site.engines:
            await site.ask_async("/who", "")
        if not site.disturbed():
            break
        await asyncio.sleep(0.05)
    play = await Loops(site.ask_async, run, is_sticky=site.is_sticky).play(runs)
    disturbed = site.disturbed()
    await site.stop_async()
    return play.as_json(disturbed)


def main() -> int:
    """Play, in this process and its children."""
    kind, url, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if kind == "threads":
        print(play_threads(url, runs), flush=True)
        return 0
    if kind == "uvloop":
        import uvloop

        run: Callable[[Coroutine[Any, Any, Any]], Any] = uvloop.run
    else:
        run = asyncio.run
    print(run(play_loop(url, runs, run)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
