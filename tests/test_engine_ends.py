"""An end outlives every copy that can contradict it: what a long request, and what others still hold, make of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from sessile.errors import SessionEnded, SessionRotated
from sessile.record import ENDED, LIVE, REPLACED, ROTATED
from tests.fakes import FakeBackend, FakeBrowser, FakeClock, make_pair, settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessile.backend import Acknowledged, Change
    from sessile.engine import Engine
    from sessile.session import Session
    from sessile.token import SessionKey

KEEP_S = 600


class Scene(NamedTuple):
    backend: FakeBackend
    engine: Engine
    browser: FakeBrowser
    key: bytes
    late: Session
    """A request that was opened before the end."""


def ended_long_ago(state: int = ENDED, **options: Any) -> Scene:
    """A session that ended while a request was open; its tombstone has left the table since, and others hold a copy."""
    clock = FakeClock()
    backend, engine = make_pair(FakeBackend(**options), clock=clock, idle_timeout="2h")
    browser = settled(engine, a=1)
    key = browser.key
    late = browser.open()
    assert late["a"] == 1
    found = engine.table.find(key)
    assert found is not None
    engine.table.put(key, found[1].end(state, clock.now_ms))
    for _ in range(3):
        clock.advance(KEEP_S + 1)
        while engine.sweep():
            pass
    assert engine.table.get(key) is None and engine.stats()["ends"] == 1
    return Scene(backend, engine, browser, key, late)


@pytest.mark.parametrize("state", [ROTATED, ENDED])
@pytest.mark.parametrize("is_holder", [True, False])
def test_a_long_request_does_not_bring_back_what_ended(state: int, is_holder: bool) -> None:  # noqa: FBT001  # a parameter
    """It writes long after the tombstone has gone: nothing of it is kept, or pushed to the other holders."""
    scene = ended_long_ago(state, is_holder=lambda _: is_holder)
    pushes = len(scene.backend.pushes)
    scene.late["b"] = 2
    with pytest.raises(SessionEnded):
        scene.engine.commit(scene.late, is_late=True)
    assert len(scene.backend.pushes) == pushes and scene.engine.table.get(scene.key) is None


def test_a_session_that_ended_long_ago_is_not_asked_for() -> None:
    """Its end is remembered here, so no copy that others still hold is worth asking for."""
    scene = ended_long_ago()
    assert scene.backend.records[scene.key].state == LIVE
    assert scene.browser.look() == {} and scene.backend.pulls == []


def test_a_copy_that_comes_after_the_end_is_not_believed() -> None:
    """Others were asked before the end was learned, and answer with a copy after the tombstone has gone."""
    scene = ended_long_ago()
    merged = scene.engine._merge_in(scene.key, scene.backend.records[scene.key])
    assert merged.state == ENDED and scene.engine.table.has_ended(scene.key)


def test_what_was_asked_before_the_end_is_not_shown_after_it() -> None:
    """A request that looks at its session only long after others were asked for it."""
    clock = FakeClock()
    backend, engine = make_pair(FakeBackend(is_holder=lambda _: False), clock=clock, idle_timeout="2h")
    browser = settled(engine, a=1)
    key = browser.key
    engine.table.drop(key)
    late = browser.open()
    assert backend.pulls
    engine.table.note_ended(key, clock.now_ms + KEEP_S * 1000)
    assert late.new and dict(late) == {}


def test_a_long_request_does_not_rotate_what_ended() -> None:
    """Nothing of it goes on under another id."""
    scene = ended_long_ago()
    created = scene.engine.stats()["created"]
    scene.late.rotate()
    with pytest.raises(SessionEnded):
        scene.engine.commit(scene.late)
    assert scene.engine.stats()["created"] == created


def test_a_rotation_that_a_logout_overtakes_leaves_nothing() -> None:
    """The new id is held already when the end of the old one is learned: it ends as well."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    key = browser.key
    session = browser.open()
    session.rotate()
    steps = engine.commit(session)
    new = session.opened.key
    found = engine.table.find(key)
    assert found is not None
    engine.table.put(key, found[1].end(ENDED, 0))
    with pytest.raises(SessionEnded):
        asyncio.run(engine.settle(steps))
    assert backend.records[new].state == ENDED
    assert engine.table.state(new) == ENDED
    assert all(cookie.endswith(b"Max-Age=0") or b"Max-Age=0;" in cookie for cookie in engine.cookies(session))


def while_confirming(backend: FakeBackend, engine: Engine, old: SessionKey, do: Callable[[], object]) -> None:
    """Do this when the others have been told that an id was rotated, before they confirm it."""
    push = backend.push

    async def pushed(key: SessionKey, change: Change | None, ack: str) -> Acknowledged:
        confirmed = await push(key, change, ack)
        if engine.table.state(old) == ROTATED:
            do()
        return confirmed

    backend.push = pushed  # type: ignore[method-assign]  # of this one backend


@pytest.mark.parametrize("grace", [0, 1, 10])
@pytest.mark.parametrize("is_dropped", [False, True])
def test_a_rotation_whose_grace_passes_while_others_confirm_it_holds(grace: int, is_dropped: bool) -> None:  # noqa: FBT001
    """Its own end is no logout, though by now there is nothing to look at any more, or the tombstone has made room."""
    clock = FakeClock()
    backend, engine = make_pair(clock=clock, rotation_grace=grace)
    browser = settled(engine, a=1)
    old = browser.key

    def meanwhile() -> None:
        clock.advance(2)
        engine.sweep()
        if is_dropped:
            engine.table.drop(old)

    while_confirming(backend, engine, old, meanwhile)
    with browser.request() as session:
        session.rotate()
    assert browser.key != old and browser.look() == {"a": 1}


@pytest.mark.parametrize("state", [ENDED, REPLACED])
def test_a_rotation_that_meets_a_logout_while_others_confirm_it_leaves_nothing(state: int) -> None:
    """Also where the logout began another session, as long as the rotation's own end cannot be that old."""
    backend, engine = make_pair()
    browser = settled(engine, a=1)
    found = engine.table.find(browser.key)
    assert found is not None
    session = browser.open()
    session.rotate()
    steps = engine.commit(session)
    new = session.opened.key
    while_confirming(backend, engine, browser.key, lambda: engine._merge_in(browser.key, found[1].end(state, 0)))
    with pytest.raises(SessionEnded):
        asyncio.run(engine.settle(steps))
    assert engine.table.state(new) == backend.records[new].state == ENDED


@pytest.mark.parametrize("grace", [0, 0.5, 10])
@pytest.mark.parametrize(("state", "is_dropped"), [(ENDED, False), (ENDED, True), (REPLACED, False)])
def test_a_rotation_whose_grace_is_over_is_undone_by_a_logout(grace: float, state: int, is_dropped: bool) -> None:  # noqa: FBT001
    """The old id opens nothing any more, and a logout that was answered elsewhere still counts."""
    clock = FakeClock()
    backend, engine = make_pair(clock=clock, rotation_grace=grace)
    browser = settled(engine, a=1)
    old = browser.key
    found = engine.table.find(old)
    assert found is not None
    session = browser.open()
    session.rotate()
    steps = engine.commit(session)
    new = session.opened.key

    def meanwhile() -> None:
        clock.advance(1.2)
        engine.sweep()
        rotated = engine._held(old)
        assert rotated is not None and engine.table.is_in_grace(rotated, clock.now_ms) is (grace == 10)
        engine._merge_in(old, found[1].end(state, clock.now_ms))
        if is_dropped:
            engine.table.drop(old)

    while_confirming(backend, engine, old, meanwhile)
    with pytest.raises(SessionEnded):
        asyncio.run(engine.settle(steps))
    assert engine.table.state(new) == backend.records[new].state == ENDED


def test_a_logout_that_a_rotation_overtakes_is_answered_with_a_conflict() -> None:
    """It would end the old id alone, and the session goes on under the new one."""
    _, engine = make_pair()
    browser = settled(engine, a=1)
    leaving, rotating = browser.open(), browser.open()
    assert leaving["a"] == rotating["a"] == 1
    rotating.rotate()
    asyncio.run(engine.settle(engine.commit(rotating)))
    leaving.logout()
    with pytest.raises(SessionRotated):
        engine.commit(leaving)


def test_what_a_request_does_after_it_met_the_end_is_its_own_affair() -> None:
    """It is refused once; then a WebSocket can say goodbye."""
    scene = ended_long_ago()
    scene.late["b"] = 2
    with pytest.raises(SessionEnded):
        scene.engine.commit(scene.late, is_late=True)
    assert scene.engine.commit(scene.late, is_late=True) == []


def test_a_rotation_without_grace_is_not_undone_by_its_own_end() -> None:
    """The old id's tombstone may leave the table while holders still confirm it."""
    clock = FakeClock()
    backend, engine = make_pair(FakeBackend(), clock=clock, rotation_grace="0s")
    browser = settled(engine, a=1)
    push = backend.push

    async def slowly(key: bytes, change: Any, ack: str) -> Any:
        pushed = await push(key, change, ack)
        clock.advance(1)
        while engine.sweep():
            pass
        return pushed

    backend.push = slowly  # type: ignore[method-assign]  # time passes meanwhile
    session = browser.open()
    assert session["a"] == 1
    session.rotate()
    asyncio.run(engine.settle(engine.commit(session)))
    browser.keep(engine.cookies(session))
    assert dict(browser.open()) == {"a": 1}
