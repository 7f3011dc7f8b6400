"""The service of the shows about ended sessions, for ASGI and for WSGI, and the commands that its servers take.

Both applications do the same to a session. `/long` and `/stream` open the session, wait until `/bench/release`, and then write:
`/long` before the head of the answer has left, `/stream` after it. A WebSocket writes with each message.

The commands are under `/bench/`, outside of the middleware: `state` answers with the server's own state, `release` lets waiting
requests continue, `busy` makes threads compute, `others` ends sessions of other users in bulk.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from sessile.backend import Ended
from sessile.errors import SessionConflict
from sessile.record import ENDED, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sessile.engine import Engine
    from sessile.session import Session

__all__ = ["LATE", "AsgiApp", "AsgiBench", "Bench", "WsgiApp", "WsgiBench"]

PATH: Final = "/bench/"
LATE: Final = "late"
"""The field that a long request writes in the end."""
RELEASED_S: Final = 120.0
OTHERS_AT_ONCE: Final = 500
JSON: Final = ("Content-Type", "application/json")

Given = "Mapping[str, str]"


def _login(session: Session, given: Mapping[str, str]) -> None:
    session.login(given["user"])
    session["user"] = given["user"]


def _set(session: Session, given: Mapping[str, str]) -> None:
    session[given["name"]] = given["value"]


def _rotate(session: Session, given: Mapping[str, str]) -> None:
    del given
    session.rotate()


def _logout(session: Session, given: Mapping[str, str]) -> None:
    del given
    session.logout()


def _look(session: Session, given: Mapping[str, str]) -> None:
    del given
    session.get("user")


DEEDS: Final[dict[str, Callable[[Session, Mapping[str, str]], None]]] = {
    "/login": _login,
    "/set": _set,
    "/rotate": _rotate,
    "/logout": _logout,
    "/look": _look,
}
LONG: Final = ("/long", "/stream")


def telling(server: str, session: Session) -> bytes:
    """The body of an answer: what it shows of the session."""
    is_kept = not session.new
    told = {"server": server, "key": session.key if is_kept else "", "fields": dict(session) if is_kept else {}}
    return json.dumps(told).encode()


def given_by(query: str) -> dict[str, str]:
    return dict(parse_qsl(query, keep_blank_values=True))


class Bench:
    """The commands of a server.

    Args:
        name: the server's.
        engine: its engine.
    """

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self.engine = engine
        self.waiting = 0
        """Long requests that opened their session and wait."""
        self.is_refused = 0
        """Long requests whose last write was refused, because the session had ended."""
        self.is_written = 0
        """Long requests whose last write was taken."""
        self._gate = threading.Event()
        self._is_busy = False

    @property
    def is_released(self) -> bool:
        return self._gate.is_set()

    def wait(self) -> None:
        """Until `release`; for threads."""
        self._gate.wait(RELEASED_S)

    async def answer(self, path: str, query: str) -> dict[str, Any]:
        """Carry out a command under `PATH`, and return its answer."""
        given = given_by(query)
        verb = path.removeprefix(PATH)
        if verb == "release":
            self._gate.set()
        elif verb == "busy":
            self._busy(int(given["threads"]))
        elif verb == "others":
            await self._end_others(int(given["count"]))
        return self.state()

    def state(self) -> dict[str, Any]:
        backend = self.engine.backend
        return {
            "pid": os.getpid(),
            "stats": self.engine.stats(),
            "backend": {} if backend is None else backend.status(),
            "waiting": self.waiting,
            "written": self.is_written,
            "refused": self.is_refused,
        }

    def _busy(self, threads: int) -> None:
        """Let this many threads compute; 0 ends them."""
        self._is_busy = threads > 0
        for number in range(threads):
            threading.Thread(target=self._compute, name=f"busy-{number}", daemon=True).start()

    def _compute(self) -> None:
        number = 1
        while self._is_busy:
            number = number * 1_103_515_245 % 2_147_483_647

    async def _end_others(self, count: int) -> None:
        """End sessions of other users, and send their ends to every member."""
        backend = self.engine.backend
        assert backend is not None, "only a server with others has ends to send"
        settings = self.engine.settings
        for first in range(0, count, OTHERS_AT_ONCE):
            now_ms = self.engine.clock_ms()
            pushes = []
            for _ in range(min(OTHERS_AT_ONCE, count - first)):
                key = os.urandom(16)
                record = ended_record(
                    now_ms, round(settings.idle_timeout * 1000), round(settings.absolute_timeout * 1000)
                )
                with self.engine.lock:
                    self.engine.table.offer(key, record)
                pushes.append(backend.push(key, Ended(key, record), "none"))
            await asyncio.gather(*pushes)


def ended_record(now_ms: int, idle_ms: int, absolute_ms: int) -> Record:
    """A session that began and ended now."""
    born = Record.create(now_ms=now_ms, idle_ms=idle_ms, deadline_ms=now_ms + absolute_ms, subject="")
    return born.write(int.from_bytes(os.urandom(6), "big") or 1, {"n": b"\x01"}, now_ms=now_ms)[0].end(ENDED, now_ms)


# -- ASGI ----------------------------------------------------------------------------------------------------------------


class AsgiApp:
    """The service, for ASGI."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self._talk(scope["session"], receive, send)
            return
        if scope["type"] != "http":
            return
        session, path = scope["session"], scope["path"]
        given = given_by(scope["query_string"].decode())
        if path in LONG:
            await self._wait_and_write(session, send, is_stream=path == "/stream")
            return
        DEEDS[path](session, given)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": telling(self._bench.name, session)})

    async def _wait_and_write(self, session: Session, send: Any, *, is_stream: bool) -> None:
        bench = self._bench
        opened = telling(bench.name, session)
        start = {"type": "http.response.start", "status": 200, "headers": []}
        if is_stream:
            await send(start)
            await send({"type": "http.response.body", "body": opened, "more_body": True})
        bench.waiting += 1
        while not bench.is_released:  # noqa: ASYNC110  # the gate is for threads as well
            await asyncio.sleep(0.02)
        bench.waiting -= 1
        session[LATE] = "1"
        try:
            if not is_stream:
                await send(start)
            await send({"type": "http.response.body", "body": b""})
        except SessionConflict:
            bench.is_refused += 1
            raise
        bench.is_written += 1

    async def _talk(self, session: Session, receive: Any, send: Any) -> None:
        bench = self._bench
        await receive()
        telling(bench.name, session)
        await send({"type": "websocket.accept"})
        bench.waiting += 1
        while (await receive())["type"] == "websocket.receive":
            session[LATE] = "1"
            try:
                await send({"type": "websocket.send", "text": "written"})
            except SessionConflict:
                bench.is_refused += 1
                raise
            bench.is_written += 1
        bench.waiting -= 1


class AsgiBench:
    """An ASGI application with the commands beside it."""

    def __init__(self, app: Any, bench: Bench) -> None:
        self._app = app
        self._bench = bench

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PATH):
            await self._app(scope, receive, send)
            return
        told = await self._bench.answer(scope["path"], scope["query_string"].decode())
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})


# -- WSGI ----------------------------------------------------------------------------------------------------------------


class WsgiApp:
    """The service, for WSGI."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        session, path = environ["sessile.session"], environ["PATH_INFO"]
        if path == "/stream":
            telling(self._bench.name, session)
            start_response("200 OK", [JSON])
            return self._stream(session)
        if path == "/long":
            telling(self._bench.name, session)
            self._wait()
            session[LATE] = "1"
            body = b""
        else:
            DEEDS[path](session, given_by(environ["QUERY_STRING"]))
            body = b"" if session.new else telling(self._bench.name, session)
        try:
            start_response("200 OK", [JSON])
        except SessionConflict:
            self._bench.is_refused += path == "/long"
            raise
        self._bench.is_written += path == "/long"
        return [body or telling(self._bench.name, session)]

    def _wait(self) -> None:
        self._bench.waiting += 1
        self._bench.wait()
        self._bench.waiting -= 1

    def _stream(self, session: Session) -> Iterator[bytes]:
        yield telling(self._bench.name, session)
        self._wait()
        session[LATE] = "1"
        yield b"\n"


class WsgiBench:
    """A WSGI application with the commands beside it."""

    def __init__(self, app: Any, bench: Bench) -> None:
        self._app = app
        self._bench = bench

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if not path.startswith(PATH):
            return self._app(environ, start_response)  # type: ignore[no-any-return]  # whatever application it is
        told = asyncio.run(self._bench.answer(path, environ["QUERY_STRING"]))
        start_response("200 OK", [JSON])
        return [json.dumps(told).encode()]
