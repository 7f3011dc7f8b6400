"""Trying cookies nobody issued at the two middlewares in process, and at a served application through the balancer.

Two users have data. After each case the answer is read: 200, nobody's data unless the case holds a user's own cookie,
no cookie set for what was only looked at, and the engine holds as many sessions as before. A write under a cookie
nobody issued must make a session under an id of the engine's own.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from bench.hostile.cookie_cases import CookieCase, Jar, Material
from bench.hostile.guilt import Guilt
from bench.hostile.session_app import COOKIE_NAME, SECRET, asgi, engine, wsgi
from bench.hostile.wire import Talk
from sessile import Engine

__all__ = ["InProcess", "OverTheWire", "Reply"]

USERS: Final = ("victim", "other")
CHECK_EVERY: Final = 50
TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a case was answered."""

    status: int
    set_cookies: tuple[bytes, ...]
    body: bytes

    @property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.body)["fields"]
        return fields


Ask = Callable[[Any, str, Iterable[bytes]], Reply]
Build = Callable[[Engine], Any]


def ask_asgi(app: Any, path: str, cookies: Iterable[bytes]) -> Reply:
    """One request to an ASGI application, without a server."""
    target, _, query = path.partition("?")
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http", "path": target,
        "raw_path": target.encode(), "query_string": query.encode(), "root_path": "", "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1), "headers": [(b"host", b"a.example"), *((b"cookie", value) for value in cookies)],
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    coroutine = app(scope, receive, send)
    try:
        coroutine.send(None)
    except StopIteration:
        pass
    else:
        coroutine.close()
        raise RuntimeError("the middleware waited for something where there is nothing to wait for")
    body = b"".join(message.get("body", b"") for message in sent[1:])
    cookies_set = tuple(value for name, value in sent[0]["headers"] if name.lower() == b"set-cookie")
    return Reply(sent[0]["status"], cookies_set, body)


def ask_wsgi(app: Any, path: str, cookies: Iterable[bytes]) -> Reply:
    """One request to a WSGI application, without a server."""
    target, _, query = path.partition("?")
    started: list[Any] = []
    environ = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": target, "QUERY_STRING": query, "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(), "wsgi.multithread": False, "wsgi.multiprocess": False, "wsgi.run_once": False,
    }  # fmt: skip
    if cookies := tuple(cookies):
        environ["HTTP_COOKIE"] = b"; ".join(cookies).decode("latin-1")
    body = app(environ, lambda *start: started.append(start))
    data = b"".join(body)
    status, headers = started[0][:2]
    cookies_set = tuple(value.encode("latin-1") for name, value in headers if name.lower() == "set-cookie")
    return Reply(int(status[:3]), cookies_set, data)


def jar_of(set_cookies: Iterable[bytes], name: bytes) -> Jar:
    """The two cookies a browser would keep of these."""
    kept = dict(cookie.partition(b";")[0].split(b"=", 1) for cookie in set_cookies)
    return Jar(kept[name], kept[name + b"_v"])


def _foreign(ask: Ask, build: Build) -> tuple[Jar, ...]:
    """Cookies that were rightly issued, elsewhere."""
    others = (
        engine("Qm2xV9tL4rYw7sKd8HnP3fJz6bGc1aTe", COOKIE_NAME),
        engine(SECRET, "other"),
        engine(SECRET, COOKIE_NAME, cluster="elsewhere"),
    )
    names = (COOKIE_NAME, "other", COOKIE_NAME)
    return tuple(
        jar_of(ask(build(each), "/write?foreign", ()).set_cookies, name.encode())
        for each, name in zip(others, names, strict=True)
    )


class InProcess:
    """The cases against one middleware: `asgi` or `wsgi`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.guilts: list[Guilt] = []
        self.cases = 0
        self.written = 0
        self.engine = engine()
        self.ask: Ask = ask_asgi if kind == "asgi" else ask_wsgi
        build: Build = asgi if kind == "asgi" else wsgi
        self.app = build(self.engine)
        self.name = COOKIE_NAME.encode()
        self.jars = {who: jar_of(self.ask(self.app, f"/write?{who}-data", ()).set_cookies, self.name) for who in USERS}
        foreign = _foreign(self.ask, build)
        self.material = Material(self.name, self.jars["victim"], self.jars["other"], foreign)
        self.sessions = self.engine.stats()["sessions"]

    def try_case(self, case: CookieCase) -> None:
        self.cases += 1
        try:
            reply = self.ask(self.app, "/read", case.fields)
        except Exception as error:  # noqa: BLE001 - any exception is what is looked for
            self._accuse(case, "EXCEPTION", repr(error))
            return
        wanted = {"who": f"{case.owner}-data"} if case.owner else {}
        if reply.status != 200 or reply.fields != wanted:
            self._accuse(case, "FOREIGN DATA", f"{reply.status} {reply.body!r}, must be 200 with {wanted}")
        ids = [cookie for cookie in reply.set_cookies if cookie.startswith(self.name + b"=")]
        if ids or (reply.set_cookies and not case.owner):
            self._accuse(case, "COOKIE", f"looking set {reply.set_cookies}")
        if (held := self.engine.stats()["sessions"]) != self.sessions:
            self._accuse(case, "GROWTH", f"{held} sessions, {self.sessions} before")
            self.sessions = held
        if not self.cases % CHECK_EVERY:
            self._check_users(case)

    def try_write(self, case: CookieCase) -> None:
        """A write under it makes a session under an id of the engine's own, and exactly one."""
        if case.owner:
            return
        reply = self.ask(self.app, "/write?stranger", case.fields)
        self.written += 1
        held, self.sessions = self.sessions + 1, self.engine.stats()["sessions"]
        jar = jar_of(reply.set_cookies, self.name)
        if any(jar.id in value for value in case.fields) or self.sessions != held:
            self._accuse(case, "ADOPTED", f"{reply.set_cookies}, {self.sessions} sessions")
        if any(mark in b"".join(reply.set_cookies).lower() for mark in (b"evil", b"\r", b"\n")):
            self._accuse(case, "INJECTED", f"{reply.set_cookies}")

    def _check_users(self, case: CookieCase) -> None:
        for who, jar in self.jars.items():
            cookie = b"%b=%b; %b_v=%b" % (self.name, jar.id, self.name, jar.version)
            if self.ask(self.app, "/read", (cookie,)).fields != {"who": f"{who}-data"}:
                self._accuse(case, "USER LOST", f"{who} no longer finds their data")

    def _accuse(self, case: CookieCase, kind: str, why: str) -> None:
        raw = b"\r\n".join(b"Cookie: " + value for value in case.fields)
        self.guilts.append(Guilt(kind, f"{self.kind} cookie {case.name}", why, raw))


class OverTheWire:
    """The same against a served application, through the balancer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.guilts: list[Guilt] = []
        self.cases = 0
        self.statuses: Counter[int] = Counter()
        self.name = COOKIE_NAME.encode()
        self.jars: dict[str, Jar] = {}

    async def start(self) -> Material:
        """Let two users write something; returns what the cases are made of."""
        for who in USERS:
            reply = await self._ask(f"/write?{who}-data", ())
            self.jars[who] = jar_of(reply.set_cookies, self.name)
        return Material(self.name, self.jars["victim"], self.jars["other"], _foreign(ask_asgi, asgi))

    async def try_case(self, case: CookieCase) -> None:
        self.cases += 1
        reply = await self._ask("/read", case.fields)
        self.statuses[reply.status] += 1
        wanted = {"who": f"{case.owner}-data"} if case.owner else {}
        if reply.status == 200:
            if reply.fields != wanted:
                self._accuse(case, "FOREIGN DATA", f"{reply.body!r}, must be {wanted}")
            if any(cookie.startswith(self.name) for cookie in reply.set_cookies) and not case.owner:
                self._accuse(case, "COOKIE", f"looking set {reply.set_cookies}")
        elif reply.status not in {400, 431}:
            self._accuse(case, "STATUS", f"{reply.status} {reply.body!r}")
        if not self.cases % CHECK_EVERY:
            await self._check_users(case)

    async def _check_users(self, case: CookieCase) -> None:
        for who, jar in self.jars.items():
            cookie = b"%b=%b; %b_v=%b" % (self.name, jar.id, self.name, jar.version)
            if (await self._ask("/read", (cookie,))).fields != {"who": f"{who}-data"}:
                self._accuse(case, "USER LOST", f"{who} no longer finds their data")

    async def _ask(self, path: str, cookies: Iterable[bytes]) -> Reply:
        talk = await Talk.open(self.port)
        lines = b"".join(b"Cookie: " + value + b"\r\n" for value in cookies)
        await talk.send(
            b"GET %b HTTP/1.1\r\nHost: a.example\r\n" % path.encode() + lines + b"Connection: close\r\n\r\n"
        )
        answers = await talk.read_answer_number(1, TIMEOUT_S)
        await talk.close()
        if not answers.finals:
            return Reply(0, (), talk.received)
        final = answers.finals[0]
        cookies_set = tuple(value for name, value in final.fields if name == b"set-cookie")
        return Reply(final.status, cookies_set, final.body)

    def _accuse(self, case: CookieCase, kind: str, why: str) -> None:
        raw = b"\r\n".join(b"Cookie: " + value for value in case.fields)
        self.guilts.append(Guilt(kind, f"cookie over the wire {case.name}", why, raw))
