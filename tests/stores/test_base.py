"""The border between the engine's backend and a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessile.delta import Outcome
from sessile.stores.base import Fetched, FetchStatus, Pushed
from tests.fakes import FakeClock
from tests.stores.memory import MemoryStore

if TYPE_CHECKING:
    from sessile.stores.base import Store


def test_a_plain_class_is_a_store() -> None:
    """It needs these methods and no base class."""
    store: Store = MemoryStore(FakeClock())
    assert (store.where, store.is_single, store.has_channel) == ("memory", True, True)


def test_answers_say_no_more_than_they_must() -> None:
    """Without a record there is none, and a change is acknowledged unless said otherwise."""
    assert Fetched(FetchStatus.NONE).record is None
    assert Pushed(Outcome.APPLIED) == Pushed(Outcome.APPLIED, None, is_acknowledged=True, lessees=())
