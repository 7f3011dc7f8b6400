"""An event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import ModuleType

import pytest

from sessile.errors import SettingsError
from sessile.portal import Portal, green_threads


def test_what_is_run_there_returns_and_raises_here() -> None:
    """Its loop is another thread's, and ends with it."""
    portal = Portal()

    async def name() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    async def fail() -> None:
        raise KeyError("told")

    assert portal.run(name()) == "sessile-portal"
    with pytest.raises(KeyError, match="told"):
        portal.run(fail())
    portal.close()
    assert portal.loop.is_closed()
    assert not any(thread.name == "sessile-portal" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("name", "module", "function"),
    [("gevent", "gevent.monkey", "is_module_patched"), ("eventlet", "eventlet.patcher", "is_monkey_patched")],
)
def test_where_threads_are_replaced_there_is_no_portal(
    name: str, module: str, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says what to use; a process that only imports them has its threads."""
    fake = ModuleType(module)
    monkeypatch.setitem(sys.modules, module, fake)
    for is_patched in (False, True):
        monkeypatch.setattr(fake, function, lambda _, is_patched=is_patched: is_patched, raising=False)
        assert green_threads() == (name if is_patched else "")
    with pytest.raises(SettingsError, match=f"under {name}.*gthread"):
        Portal()
