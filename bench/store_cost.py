"""What sessions in a store cost: trips of a request, bytes of a session, and a server's memory beside very many of them.

Trips are counted by a proxy in front of a real Redis, on the connections that carry sessions. Bytes are what Redis itself
tells: MEMORY USAGE of keys drawn at random, and how much its memory grew. The many are begun by requests of a server in a
process of its own, whose resident memory is read before and after.

`python -m bench.store_cost [SESSIONS]` measures trips, bytes and memory with fewer sessions, for who works on the cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench import environments
from bench.memory import resident_bytes
from bench.peers.workload import DATA, SECRET, Browser
from bench.redis_server import redis_server
from bench.session_cost import CONTENDERS
from bench.show import CannotShow, Progress
from sessile.engine import Engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sessile.session import Session

SESSIONS = 1_000_000
BYTES_MAX = 64 * 2**20
"""The server's limit, far less than all of the sessions take."""
ALLOWANCE_BYTES = 64 * 2**20
"""What the process may take beside it: connections, what is on its way, what is remembered of pushes and of leases."""
AT_ONCE = 256
SAMPLE = 1_000
WARM = 2_000
WITHIN_S = 3_600.0
CHANNEL_S = 10.0
KINDS = ("birth", "held read", "miss", "held read after a miss", "write", "write at the other server")
WANTED_TRIPS = dict(zip(KINDS, (1, 0, 1, 0, 1, 2), strict=True))
"""A write at the other server is one trip more: what the first one wrote has ended its lease, so it asks, and then pushes."""
STORED_BY = ("sessile-asgi-redis", "starsessions-redis", "flask-session-redis", "django-redis")

_LESSEES = b"sessile:lessees"
"""Where Sessile's servers say that they serve copies."""
_SESSION_COMMAND = re.compile(rb"\r\n(?:EVALSHA|EVAL|GET)\r\n")


class Redis:
    """A client of few words, for what a Redis tells of itself."""

    def __init__(self, port: int) -> None:
        self._link = socket.create_connection(("127.0.0.1", port), timeout=30.0)
        self._file = self._link.makefile("rb")

    def close(self) -> None:
        self._file.close()
        self._link.close()

    def ask(self, *words: str | bytes) -> Any:
        """One command, and its reply: bytes, a number, or None."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        self._link.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
        line = self._file.readline().rstrip()
        kind, rest = line[:1], line[1:]
        if kind == b":":
            return int(rest)
        if kind != b"$":
            return rest
        return None if rest == b"-1" else self._file.read(int(rest) + 2)[:-2]

    def used_memory(self) -> int:
        """All that it has allocated."""
        found = re.search(rb"used_memory:(\d+)", self.ask("INFO", "memory"))
        assert found is not None, "every Redis tells it"
        return int(found[1])

    def sessions(self) -> int:
        """How many keys it holds, that of no session left out."""
        return int(self.ask("DBSIZE")) - int(self.ask("EXISTS", _LESSEES))

    def key_bytes(self, sample: int = SAMPLE) -> float:
        """The middle of what so many keys take."""
        keys = [self.ask("RANDOMKEY") for _ in range(sample)]
        return statistics.median(int(self.ask("MEMORY", "USAGE", key, "SAMPLES", "0")) for key in keys)


# -- trips -----------------------------------------------------------------------------------------------------------


class Relay:
    """Stands in front of a Redis and counts what asks for sessions: each write to a socket is one trip."""

    def __init__(self, port: int) -> None:
        self._redis_port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.trips = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Relay]:
        """Count meanwhile."""
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self._redis_port)
        for source, target, is_counted in ((reader, to_redis, True), (from_redis, writer, False)):
            task = asyncio.create_task(self._pass_on(source, target, is_counted=is_counted))
            self._tasks.add(task)

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_counted: bool) -> None:
        try:
            while data := await source.read(1 << 16):
                is_beat = _LESSEES in data  # ten a second from each server, however many requests there are
                self.trips += is_counted and not is_beat and _SESSION_COMMAND.search(data) is not None
                target.write(data)
        finally:
            target.close()


async def ask(engine: Engine, browser: Browser, handler: Callable[[Session], object]) -> None:
    """One request, as the middleware serves it."""
    session = engine.open((browser.cookie.encode(),) if browser.cookie else (), is_https=True)
    await engine.prepare(session)
    handler(session)
    if steps := engine.commit(session):
        await engine.settle(steps)
    for cookie in engine.cookies(session):
        browser.set_cookie(cookie.decode())


def begin(session: Session) -> None:
    """What a first request does."""
    for name, value in DATA.items():
        session[name] = value


def read(session: Session) -> None:
    """What a read does; what is read must be there."""
    if session.get("user_id") != DATA["user_id"]:
        raise CannotShow("a session that was begun is not there")


def write(session: Session) -> None:
    """What a write does."""
    session["counter"] = session.get("counter", 0) + 1


async def count_trips(redis_port: int, sessions: int) -> dict[str, float]:
    """Of each kind of request, how many trips it makes: so many sessions, at two servers."""
    relay = Relay(redis_port)
    async with relay.serving():
        engines = [Engine(url=f"redis://127.0.0.1:{relay.port}", secret=SECRET, sweeps=False) for _ in range(2)]
        backends = [engine.backend for engine in engines if engine.backend is not None]
        for backend in backends:
            await backend.start()
        async with asyncio.timeout(CHANNEL_S):
            while any(backend.status()["channel"] != "up" for backend in backends):  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.01)
        one, other = engines
        warm = Browser()
        for engine, handler in ((one, begin), (other, write), (one, write)):  # scripts are known from now on
            await ask(engine, warm, handler)
        browsers = [Browser() for _ in range(sessions)]
        counted: dict[str, float] = {}
        todo = zip(KINDS, (one, one, other, other, one, other), (begin, read, read, read, write, write), strict=True)
        for kind, engine, handler in todo:
            relay.trips = 0
            for browser in browsers:
                await ask(engine, browser, handler)
            counted[kind] = relay.trips / sessions
            await asyncio.sleep(0.1)  # what the channel tells has arrived
        for backend in backends:
            await backend.stop()
    return counted


# -- bytes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stored:
    """What a session takes in Redis."""

    key_bytes: float
    """By MEMORY USAGE, without what all keys share."""
    grown_bytes: float
    """By the growth of the server's memory."""


def store_by(name: str, sessions: int) -> Stored:
    """Begin so many by one contender, in a Redis of its own."""
    contender = next(each for each in CONTENDERS if each.name == name)
    python = sys.executable if contender.environment is None else str(environments.python_of(contender.environment))
    with redis_server() as port:
        redis = Redis(port)
        before = redis.used_memory()
        done = subprocess.run(
            [python, "-m", "bench.peers.fill", name, str(port), str(sessions)],
            cwd=environments.ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        if done.returncode:
            raise CannotShow(f"{contender.label}: {(done.stderr.strip().splitlines() or ['it ended'])[-1]}")
        if (kept := redis.sessions()) != sessions:
            raise CannotShow(f"{contender.label} keeps {kept} keys for {sessions} sessions: bytes of one say nothing")
        stored = Stored(redis.key_bytes(), (redis.used_memory() - before) / sessions)
        redis.close()
    return stored


# -- very many -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Many:
    """What became of very many sessions, begun by one server with little memory."""

    sessions: int
    kept: int
    """Keys in Redis."""
    key_bytes: float
    grown_bytes: float
    resident_bytes: int
    """What the server's process grew by."""
    held_bytes: int
    """What its table holds."""
    evicted: int
    sample: int
    returned: int
    """Of a sample of browsers that came back at the end, how many found their session."""
    seconds: float


async def fill(redis_port: int, sessions: int, bytes_max: int, progress: Progress) -> Many:
    """Begin so many, in this process."""
    engine = Engine(url=f"redis://127.0.0.1:{redis_port}", secret=SECRET, bytes_max=bytes_max, store_timeout="10s")
    backend = engine.backend
    assert backend is not None, "a store has one"
    await backend.start()
    redis = Redis(redis_port)
    loop = asyncio.get_running_loop()
    kept: list[Browser] = []
    every = max(1, sessions // SAMPLE)

    async def some(numbers: Any) -> None:
        for number in numbers:
            browser = Browser()
            await ask(engine, browser, begin)
            if number % every == 0:
                kept.append(browser)
            if number and number % 50_000 == 0:
                progress(f"{number} of {sessions} sessions")

    async def many(count: int) -> None:
        numbers = iter(range(count))
        await asyncio.gather(*(some(numbers) for _ in range(AT_ONCE)))

    await many(min(WARM, sessions))
    kept.clear()
    resident, used, began, keys = resident_bytes(), redis.used_memory(), loop.time(), redis.sessions()
    await many(sessions)
    seconds = loop.time() - began
    returned = 0
    for browser in kept:
        with contextlib.suppress(CannotShow):
            await ask(engine, browser, read)
            returned += 1
    found = Many(
        sessions=sessions,
        kept=redis.sessions() - keys,
        key_bytes=redis.key_bytes(),
        grown_bytes=(redis.used_memory() - used) / sessions,
        resident_bytes=resident_bytes() - resident,
        held_bytes=engine.table.held_bytes,
        evicted=engine.table.evicted,
        sample=len(kept),
        returned=returned,
        seconds=seconds,
    )
    redis.close()
    await backend.stop()
    return found


def fill_elsewhere(sessions: int, bytes_max: int, progress: Progress) -> Many:
    """The same in a fresh process, and a Redis of its own."""
    with redis_server() as port:
        command = [sys.executable, "-m", "bench.store_cost", "fill", str(port), str(sessions), str(bytes_max)]
        said = ""
        with subprocess.Popen(command, cwd=environments.ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None, "started with a pipe"
            for said in process.stdout:
                if not said.startswith("{"):
                    progress(said.strip())
        if process.returncode:
            raise CannotShow(f"the filling process ended with status {process.returncode}")
    return Many(**json.loads(said))


def main() -> None:
    """What the docstring says; or, as the process that fills, one line of JSON at the end."""

    def progress(line: str) -> None:
        print(line, flush=True)

    if sys.argv[1:2] == ["fill"]:
        port, sessions, bytes_max = map(int, sys.argv[2:5])
        print(json.dumps(asdict(asyncio.run(fill(port, sessions, bytes_max, progress)))))
        return
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with redis_server() as port:
        print(asyncio.run(count_trips(port, 200)))
    for name in STORED_BY:
        print(name, store_by(name, min(sessions, 20_000)))
    print(fill_elsewhere(sessions, min(BYTES_MAX, sessions * 200), progress))


if __name__ == "__main__":
    main()
