"""The demo's service: a page and a small JSON API over `scope["session"]`, as an application of one's own would be.

It knows the public face of a session and nothing of processes or balancers. The answer to a change tells the session as
it was kept: its body is written after its head has left, when the middleware has stored the session under the key it
names. A read has nothing to wait for and answers in one piece.

An answer has `alone` where what others should hold is in this server's memory alone at the moment.

Two parameters are for who holds the demo to its promises. `answer=early` lets the whole answer leave while the handler goes
on, `answer=late` makes the change when the head has left already; `trace=NAME` is for a history (`sessile.lab.trace`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from sessile.dashboard import files
from sessile.lab import trace
from sessile.lab.replies import Message, Receive, Send, begin_json, json_bytes, send_json, send_whole
from sessile.network.cluster import Cluster
from sessile.stores.shared import Shared

if TYPE_CHECKING:
    from sessile.engine import Engine
    from sessile.session import Session

__all__ = ["About", "DemoApp"]

DELAY_MS_MAX: Final = 2_000
KEPT_MAX: Final = 50
"""At most this many values stay in a list that `/api/append` appends to."""
PARAMETERS_MAX: Final = 16
LINGER_S: Final = 0.01
"""So long a handler goes on whose answer left early."""

ANSWERS: Final = ("", "early", "late")

Parameters = Mapping[str, str]
Change = Callable[["Session", Parameters], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class About:
    """What the page tells of the demo it is part of."""

    server: str
    strategy: str
    routing: str
    dashboard: str
    """The dashboard's URL."""
    run: str
    """Another one for each run of the demo: what a page remembers of one run means nothing in the next."""


class DemoApp:
    """The ASGI application of one server of the demo."""

    def __init__(self, about: About) -> None:
        self._about = about
        self._files = files.load("sessile.dashboard", "sessile.lab")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        del receive  # no request of this service has a body
        if scope["type"] != "http":
            return
        method, path = scope["method"], scope["path"]
        if method in {"GET", "HEAD"}:
            await self._get(path, scope, send)
        elif method == "POST" and path in CHANGES:
            await self._post(CHANGES[path], scope, send)
        else:
            await _refuse(send, path)

    async def _get(self, path: str, scope: Message, send: Send) -> None:
        name = "demo.html" if path == "/" else path.removeprefix("/static/")
        if path == "/api/session":
            session = scope["session"]
            told = self._telling(scope, dict(session), was_new=session.new)
            if b"trace" in scope["query_string"]:
                told["before"] = trace.told(session)
            await send_json(send, 200, told)
        elif path == "/api/about":
            await send_json(send, 200, asdict(self._about))
        elif name in self._files and name != path:
            file = self._files[name]
            await send_whole(send, 200, file.body, files.headers_of(file))
        else:
            await _refuse(send, path)

    async def _post(self, change: Change, scope: Message, send: Send) -> None:
        session = scope["session"]
        try:
            given = _parameters(scope["query_string"])
            answer = _answer(given)
            if answer == "late":
                await self._post_late(change, scope, send, given)
                return
            before = await trace.traced(change, session, given)
        except (TypeError, ValueError) as error:
            await send_json(send, 400, {"error": str(error)})
            return
        fields, was_new = dict(session), session.new
        if answer == "early":
            body = json_bytes(self._telling(scope, fields, was_new=was_new))
            await begin_json(send, len(body))
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await asyncio.sleep(LINGER_S)
            await send({"type": "http.response.body", "body": b""})
            return
        await begin_json(send)
        told = self._telling(scope, fields, was_new=was_new)
        if before:
            told |= {"before": before, "after": {**trace.told(session), "fields": fields}}
        await send({"type": "http.response.body", "body": json_bytes(told)})

    async def _post_late(self, change: Change, scope: Message, send: Send, given: Parameters) -> None:
        """The head leaves first; no cookie tells of what is changed then. What is wrong is told in the body."""
        session = scope["session"]
        session.mark_accessed()
        was_new = session.new
        await begin_json(send)
        try:
            await change(session, given)
            told = self._telling(scope, dict(session), was_new=was_new)
        except (TypeError, ValueError) as error:
            told = {"error": str(error)}
        await send({"type": "http.response.body", "body": json_bytes(told)})

    def _telling(self, scope: Message, fields: dict[str, object], *, was_new: bool) -> dict[str, object]:
        session: Session = scope["session"]
        engine: Engine = scope["sessile.engine"]
        is_kept = not session.new
        told = {
            "server": self._about.server,
            "role": _role(engine, session) if is_kept else "none",
            "key": session.key if is_kept else "",
            "new": was_new or not is_kept,
            "stale": session.stale,
            "fields": fields,
        }
        return {**told, "alone": True} if is_kept and _is_alone(engine) else told


def _role(engine: Engine, session: Session) -> str:
    """What this server is to a session: its primary, a backup, a proxy that holds no copy of its own, or a cache."""
    key, backend = bytes.fromhex(session.key), engine.backend
    if engine.settings.is_store:
        return "cache"
    if backend is None or backend.is_first_holder(key):  # under sticky:// the server that made it is the only one
        return "primary"
    return "backup" if backend.holds(key) else "proxy"


def _is_alone(engine: Engine) -> bool:
    """Whether what others should hold is in this server's memory alone now: the store is away, or no other server is there."""
    match engine.backend:
        case Shared() as store:
            return bool(store.outage)
        case Cluster() as cluster:
            return cluster.is_running and len(cluster.node.placement.names) <= 1
    return False


async def _set(session: Session, given: Parameters) -> None:
    session[_wanted(given, "name")] = _wanted(given, "value", may_be_empty=True)


async def _count(session: Session, given: Parameters) -> None:
    """A read-modify-write: two at once may both read the same number. `delay_ms` makes that likely."""
    name = _wanted(given, "name")
    delay_ms = _delay_ms(given)
    value = session.get(name, 0)
    if type(value) is not int:
        raise ValueError(f"{name} is {type(value).__name__}, not an int to count with")
    if delay_ms:
        await asyncio.sleep(delay_ms / 1000)
    session[name] = value + 1


async def _increment(session: Session, given: Parameters) -> None:
    """The same for which the session itself adds: any number at once all count."""
    name = _wanted(given, "name")
    if delay_ms := _delay_ms(given):
        session.get(name)
        await asyncio.sleep(delay_ms / 1000)
    session.increment(name)


async def _add_to_cart(session: Session, given: Parameters) -> None:
    """A set that merges: any number of additions at once, on any servers, are all there. `delay_ms` makes them overlap."""
    item = _wanted(given, "item")
    if delay_ms := _delay_ms(given):
        session.get("cart")
        await asyncio.sleep(delay_ms / 1000)
    session.add_to("cart", item)


async def _discard_from_cart(session: Session, given: Parameters) -> None:
    session.discard_from("cart", _wanted(given, "item"))


async def _append(session: Session, given: Parameters) -> None:
    """A list that merges; the last fifty stay."""
    session.append_to(_wanted(given, "name"), _wanted(given, "value"), keep=KEPT_MAX)


async def _remove(session: Session, given: Parameters) -> None:
    session.pop(_wanted(given, "name"), None)


async def _login(session: Session, given: Parameters) -> None:
    user = _wanted(given, "user")
    session.login(user)
    session["user"] = user


async def _logout(session: Session, given: Parameters) -> None:
    del given
    session.logout()


CHANGES: Final[dict[str, Change]] = {
    "/api/set": _set,
    "/api/count": _count,
    "/api/increment": _increment,
    "/api/cart": _add_to_cart,
    "/api/discard": _discard_from_cart,
    "/api/append": _append,
    "/api/remove": _remove,
    "/api/login": _login,
    "/api/logout": _logout,
}
_PATHS: Final = {"/": "GET", "/api/session": "GET", "/api/about": "GET", **dict.fromkeys(CHANGES, "POST")}


async def _refuse(send: Send, path: str) -> None:
    """There is nothing here, or not with this method."""
    if path in _PATHS:
        await send_json(send, 405, {"error": f"{path} takes {_PATHS[path]}"}, {"Allow": _PATHS[path]})
    else:
        await send_json(send, 404, {"error": "there is nothing here"})


def _parameters(query: bytes) -> dict[str, str]:
    """The query's parameters; of several with one name the last counts."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except UnicodeError:
        raise ValueError("the query is not URL-encoded UTF-8") from None
    return dict(pairs)


def _wanted(given: Parameters, name: str, *, may_be_empty: bool = False) -> str:
    value = given.get(name)
    if value is None or (not value and not may_be_empty):
        raise ValueError(f"the parameter {name} is missing")
    return value


def _delay_ms(given: Parameters) -> int:
    text = given.get("delay_ms", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= DELAY_MS_MAX):
        raise ValueError(f"delay_ms must be a whole number from 0 to {DELAY_MS_MAX}")
    return int(text)


def _answer(given: Parameters) -> str:
    answer = given.get("answer", "")
    if answer not in ANSWERS:
        raise ValueError(f"answer must be early or late, not {answer!r}")
    return answer
