"""What `make show NAME=session-life` counts, and that it would notice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.show import session_life
from sessile.engine import Engine
from sessile.session import Session

if TYPE_CHECKING:
    import pytest


def test_the_promise_holds_for_a_few_strategies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of it but the slowest line, smaller."""
    monkeypatch.setattr(session_life, "ALL", ("sticky", "all-to-all"))
    monkeypatch.setattr(
        session_life,
        "LINES",
        {name: play for name, play in session_life.LINES.items() if play is not session_life.slow},
    )
    monkeypatch.setattr(session_life, "IDLE_S", 1.0)
    said: list[str] = []
    shown = session_life.run(said.append)
    assert shown.holds, shown.notes
    assert len(said) == len(shown.figures) == 14


def test_it_notices_what_it_is_there_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses that do not count, and a login that keeps another user's fields."""
    monkeypatch.setattr(session_life, "ALL", ("sticky",))
    monkeypatch.setattr(session_life, "IDLE_S", 1.0)
    monkeypatch.setattr(
        session_life, "LINES", {play.__name__: play for play in (session_life.sockets, session_life.another)}
    )
    monkeypatch.setattr(Engine, "used", lambda *_: None)
    login = Session.login
    monkeypatch.setattr(Session, "login", lambda self, subject, keep=(): login(self, subject, keep=keep or ("a",)))
    shown = session_life.run(lambda _: None)
    assert not shown.holds and [figure.holds for figure in shown.figures] == [False, False]
