"""`session-life`: what can go wrong with a session over time, tried on every strategy.

Two servers share sessions. Slow requests come with an id that was replaced; users follow each other in one browser; handlers write too
late; a socket stays open; one server does not know a class; servers are full. Each figure counts the answers that were wrong.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import TYPE_CHECKING, Any, Final

from bench.life import Tab, servers, within
from bench.show import Figure, Progress, Shown
from sessile.classes import BY_CLASS, BY_NAME, register
from sessile.errors import FieldUnreadable, SessionEnded, SessionError, SessionLimit, SessionTooLate
from sessile.session import Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from sessile.engine import Engine

SUMMARY = "Slow requests, users in turn, late writes, sockets, unknown classes, full servers, parallel changes: every strategy."
PROGRAMS = ("redis-server",)

ALL: Final = ("sticky", "all-to-all", "primary-backup", "redis leased", "redis checked", "redis off", "sqlite")
GRACE_S: Final = 0.3
KEEP_S: Final = 3.0
SWEPT_S: Final = 2.5
"""A server drops what has run out within this time."""
IDLE_S: Final = 2.0
TOLD_S: Final = 10.0
ROOM: Final = 20
NAMES_MAX: Final = 12
PARALLEL: Final = 20
DURATIONS: Final[dict[str, Any]] = {
    "rotation_grace": GRACE_S,
    "tombstone_keep": KEEP_S,
    "ack_timeout": 0.8,
    "pull_timeout": 0.8,
}
REPLACING: Final[dict[str, Callable[[Session], object]]] = {
    "login": lambda session: session.login("ann"),
    "rotate": Session.rotate,
    "another login": lambda session: session.login("bob"),
    "logout and login": lambda session: log_in(session, "ann", is_logout=True),
}


def log_in(session: Session, user: str, *, is_logout: bool = False, **fields: Any) -> None:
    """Log in, perhaps after a logout, and set some fields."""
    if is_logout:
        session.logout()
    session.login(user)
    session.update(fields)


class Entry:
    """One line of the table: how many answers there were, and which of them were wrong."""

    def __init__(self) -> None:
        self.asked = 0
        self.wrong: list[str] = []

    def see(self, is_right: object, what: str) -> None:
        self.asked += 1
        if not is_right:
            self.wrong.append(what)


async def slow(entry: Entry, strategy: str) -> None:
    """Requests that came with an id that was replaced touch the session after its grace, and after its tombstone is gone."""
    async with servers(strategy, **DURATIONS) as (one, other):
        tabs = {}
        for name, verb in REPLACING.items():
            tab = Tab()
            await tab.ask(one, lambda session: session.update(a=1))
            if "login" in name:
                await tab.ask(one, lambda session: session.login("old"))
            old = tab.copy()
            waiting = [await old.copy().open(one) for _ in range(2)]
            await tab.ask(one, verb)
            tabs[name] = (tab, old, waiting)
        for seconds in (GRACE_S + 0.1, KEEP_S + SWEPT_S):
            await asyncio.sleep(seconds)
            for name, (tab, old, waiting) in tabs.items():
                for engine, session in (
                    (one, waiting.pop()),
                    (other, await old.open(other)),
                    (one, await old.open(one)),
                ):
                    late = old.copy()
                    is_kept = await late.finish(engine, session, lambda session: session.update(a=2))
                    entry.see(
                        not is_kept and "sid" not in late.given, f"{name}: a slow write was kept, or set {late.given}"
                    )
                entry.see((await tab.look(other))[1].get("a") != 2, f"{name}: a slow write is in the new session")
                entry.see((await tab.look(other))[0] or name == "rotate", f"{name}: logged out")


async def another(entry: Entry, strategy: str) -> None:
    """A login over another user's session, at the other server."""
    async with servers(strategy, **DURATIONS) as (one, other):
        for verbs in (("login",), ("logout", "login")):
            for keep in ((), ("cart",)):
                tab = Tab()
                await tab.ask(one, lambda session: log_in(session, "ann", a=1, cart=["book"]))

                def switch(session: Session, verbs: Any = verbs, keep: Any = keep) -> None:
                    if "logout" in verbs:
                        session.logout()
                    session.login("bob", keep=keep)

                await tab.ask(other, switch)
                expected = ("bob", {"cart": ["book"]} if keep else {})
                found = await tab.look(one)
                entry.see(found == expected, f"{verbs}, keep={keep}: {found}")
        tab = Tab()
        await tab.ask(one, lambda session: session.update(a=1))
        await tab.ask(other, lambda session: session.login("ann"))
        entry.see(await tab.look(one) == ("ann", {"a": 1}), "a visitor's fields did not stay")


async def late(entry: Entry, strategy: str) -> None:
    """A session that is first written to after the head."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]  # a list for a log
    logging.getLogger("sessile").addHandler(handler)
    try:
        async with servers(strategy, **DURATIONS) as (one, other):
            for number in range(5):
                tab = Tab()
                session = await tab.open(one)
                await tab.finish(one, session, lambda session: session.get("a"))
                try:
                    session["late"] = number
                except SessionTooLate:
                    one.commit(session, is_late=True)
                else:
                    entry.see(is_right=False, what="it was taken")
            entry.see(len(one.table) == len(other.table) == 0, "it was kept")
            said = [line for line in lines if "after the head" in line]
            entry.see(len(said) == 1, f"{len(said)} warnings")
    finally:
        logging.getLogger("sessile").removeHandler(handler)


async def sockets(entry: Entry, strategy: str) -> None:
    """A socket at one server, requests at the other: uses, changes, and the end."""
    async with servers(strategy, **DURATIONS, idle_timeout=IDLE_S) as (one, other):
        tab, quiet = Tab(), Tab()
        for each in (tab, quiet):
            await each.ask(one, lambda session: session.update(a=1))
        session = await tab.open(other, is_lasting=True)
        session.open()
        other.cookies(session)
        loop = asyncio.get_running_loop()
        until = loop.time() + 2 * IDLE_S
        while loop.time() < until:
            session.get("a")
            await asyncio.sleep(IDLE_S / 20)
        entry.see((await tab.look(one))[1] == {"a": 1}, "a session that a socket reads ran out of time")
        entry.see((await quiet.look(one))[1] == {}, "a session that nobody used did not")
        await tab.ask(one, lambda session: session.update(a=2))
        await session.reload()
        entry.see(session["a"] == 2, "reload() does not show what the other server wrote")
        ended = asyncio.create_task(session.until_ended())
        await tab.ask(one, Session.logout)
        await asyncio.wait([ended], timeout=TOLD_S)
        entry.see(ended.done(), "the socket was not told of the logout")
        ended.cancel()
        try:
            await session.reload()
        except SessionEnded:
            entry.see(is_right=True, what="")
        else:
            entry.see(is_right=False, what="reload() does not tell of the logout")


@dataclasses.dataclass
class Coupon:
    """A class that only the newer server knows."""

    code: str


async def unknown(entry: Entry, strategy: str) -> None:
    """One server writes an object of a class that the other does not know."""

    async def as_newer(asking: Callable[[], Awaitable[Any]]) -> Any:
        register(Coupon)
        try:
            return await asking()
        finally:
            del BY_CLASS[Coupon], BY_NAME["Coupon"]

    async with servers(strategy, **DURATIONS) as (one, other):
        tab = Tab()
        await as_newer(lambda: tab.ask(one, lambda session: session.update(coupon=Coupon("A"), n=1)))
        for verb in (len, Session.rotate, lambda session: session.login("ann")):
            await tab.ask(other, lambda session, verb=verb: (session.increment("n"), repr(session), verb(session)))  # type: ignore[misc]
        session = await tab.open(other)
        try:
            session["coupon"]
        except FieldUnreadable as error:
            entry.see(error.name == "coupon", f"the error names {error.name!r}")
        else:
            entry.see(is_right=False, what="it was read")
        found = await as_newer(lambda: tab.look(one))
        entry.see(found == ("ann", {"coupon": Coupon("A"), "n": 4}), f"{found}")


async def full(entry: Entry, strategy: str) -> None:
    """Visitors fill both servers; users log in, rotate and switch."""
    async with servers(strategy, **DURATIONS, sessions_max=ROOM) as (one, other):
        user = Tab()
        await user.ask(one, lambda session: session.login("ann"))

        async def visit(engine: Engine) -> None:
            for number in range(ROOM + 5):
                try:
                    await Tab().ask(engine, lambda session, number=number: session.update(n=number))  # type: ignore[misc]
                except SessionLimit:
                    return

        await visit(one)
        await visit(other)
        for number in range(ROOM):
            for verb in REPLACING.values():
                try:
                    await user.ask(one, verb)
                except SessionError as error:
                    entry.see(is_right=False, what=f"who was in: {error}")
            entry.see((await user.look(one))[0], "who was in is out")
            new = Tab()
            if number < ROOM // 4:
                try:
                    await new.ask(one, lambda session, number=number: session.login(f"user{number}"))  # type: ignore[misc]
                except SessionError as error:
                    entry.see(is_right=False, what=f"who came: {error}")
                entry.see((await new.look(one))[0], "who came is out")
        entry.see(await within(TOLD_S, lambda: one.table.sessions <= ROOM), f"{one.table.sessions} sessions are held")


async def names(entry: Entry, strategy: str) -> None:
    """More field names than a session may have, each removed before the next is set, at one server and the other in turn."""
    async with servers(strategy, **DURATIONS, fields_max=NAMES_MAX) as both:
        tab = Tab()
        await tab.ask(both[0], lambda session: session.update(stays=1))
        for number in range(3 * NAMES_MAX):
            name = f"field{number}"
            for at, do in enumerate(
                (lambda session, name=name: session.update({name: 1}), lambda session, name=name: session.pop(name))
            ):
                try:
                    is_kept = await tab.ask(both[(number + at) % 2], do)
                except SessionError as error:
                    entry.see(is_right=False, what=f"{name}: {error}")
                else:
                    entry.see(is_kept, f"{name}: a conflict")
        for engine in both:
            found = await tab.look(engine)
            entry.see(found == (None, {"stays": 1}), f"{found}")


async def merging(entry: Entry, strategy: str) -> None:
    """Requests that run at the same time at both servers count, and add to a set and to a list."""
    async with servers(strategy, **DURATIONS) as both:
        tab = Tab()
        await tab.ask(both[0], lambda session: session.update(n=0))
        for number in range(PARALLEL):
            tabs = [tab.copy() for _ in both]
            opened = [await each.open(engine) for each, engine in zip(tabs, both, strict=True)]

            def change(session: Session, number: int, at: int) -> None:
                session.increment("n")
                session.add_to("cart", f"{number}.{at}")
                session.append_to("log", number)

            for at, (each, engine, session) in enumerate(zip(tabs, both, opened, strict=True)):
                is_kept = await each.finish(engine, session, lambda session, n=number, at=at: change(session, n, at))  # type: ignore[misc]
                entry.see(is_kept, "a conflict")
            tab = tabs[number % 2]
        wanted = {f"{number}.{at}" for number in range(PARALLEL) for at in range(2)}

        async def has_all(engine: Engine) -> bool:
            _, found = await tab.look(engine)
            is_whole = found["n"] == 2 * PARALLEL and set(found["cart"]) == wanted
            return is_whole and sorted(found["log"]) == sorted([*range(PARALLEL)] * 2)

        for engine in both:
            entry.see(await has_all(engine), "a count or an item is missing")


LINES: Final[dict[str, Callable[[Entry, str], Coroutine[Any, Any, None]]]] = {
    "slow requests after a login": slow,
    "uses, changes and the end over a socket": sockets,
    "another user's login": another,
    "a first write after the head": late,
    "a class that one server does not know": unknown,
    "full servers": full,
    "names that come and go": names,
    "requests at the same time at both servers": merging,
}


def run(progress: Progress) -> Shown:
    """Try everything on every strategy."""
    figures, notes = [], []
    for strategy in ALL:
        for name, play in LINES.items():
            entry = Entry()
            try:
                asyncio.run(play(entry, strategy))
            except SessionError as error:
                entry.see(is_right=False, what=f"{type(error).__name__}: {error}")
            figures.append(
                Figure(
                    f"{name}, {strategy}",
                    len(entry.wrong),
                    f"wrong of {entry.asked}",
                    "= 0",
                    not entry.wrong and bool(entry.asked),
                )
            )
            notes += [f"{name}, {strategy}: {what}" for what in dict.fromkeys(entry.wrong)][:3]
            progress(f"{strategy}: {name}: {len(entry.wrong)} of {entry.asked} answers were wrong")
    return Shown("session-life", figures, notes)
