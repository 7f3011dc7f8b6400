"""A session over many requests is a dict: whatever a handler does to it, in any order, a dict would say the same."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sessile import codec
from tests.fakes import FakeBrowser, FakeClock, make_engine

if TYPE_CHECKING:
    from sessile.session import Session

NAMES = st.sampled_from(["a", "b", "c", "d", "é", "with space"])
PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.binary(max_size=5)
)
HASHABLE = PLAIN | st.tuples(PLAIN, PLAIN)
VALUES = st.recursive(
    PLAIN | st.frozensets(HASHABLE, max_size=3) | st.sets(HASHABLE, max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HASHABLE, inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=6,
)
MISSING = object()


def outcome(ask: Any, *arguments: Any) -> Any:
    """What a call returns, or the type of what it raises."""
    try:
        return ask(*arguments)
    except (KeyError, TypeError) as error:
        return type(error)


def alike(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down: 1 is neither True nor 1.0 here."""
    return one == other and codec.encode(one) == codec.encode(other)


class SessionIsADict(RuleBasedStateMachine):
    """One browser, one engine, one handler after the other; beside them a dict that is copied for each request."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.engine = make_engine(clock=self.clock, idle_timeout="2h")
        self.browser = FakeBrowser(self.engine)
        self.stored: dict[str, Any] = {}
        """What the session holds after the last request that was finished."""
        self.begin()

    def begin(self) -> None:
        self.session: Session = self.browser.open()
        self.model = copy.deepcopy(self.stored)

    def teardown(self) -> None:
        self.engine.close()

    @rule(name=NAMES, value=VALUES)
    def assign(self, name: str, value: Any) -> None:
        self.session[name] = value
        self.model[name] = copy.deepcopy(value)

    @rule(name=NAMES)
    def look(self, name: str) -> None:
        assert outcome(self.session.__getitem__, name) == outcome(self.model.__getitem__, name)
        assert self.session.get(name, MISSING) == self.model.get(name, MISSING)
        assert (name in self.session) == (name in self.model)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        assert outcome(self.session.__delitem__, name) == outcome(self.model.__delitem__, name)

    @rule(name=NAMES)
    def pop(self, name: str) -> None:
        assert self.session.pop(name, MISSING) == self.model.pop(name, MISSING)

    @rule(name=NAMES, value=VALUES)
    def set_default(self, name: str, value: Any) -> None:
        assert self.session.setdefault(name, value) == self.model.setdefault(name, copy.deepcopy(value))

    @rule(changes=st.dictionaries(NAMES, VALUES, max_size=4))
    def update(self, changes: dict[str, Any]) -> None:
        self.session.update(changes)
        self.model.update(copy.deepcopy(changes))

    @rule()
    def clear(self) -> None:
        self.session.clear()
        self.model.clear()

    @rule(name=NAMES, by=st.integers(-100, 100))
    def increment(self, name: str, by: int) -> None:
        if type(self.model.get(name, 0)) is int and abs(self.model.get(name, 0)) < 2**61:
            self.model[name] = self.model.get(name, 0) + by
            assert self.session.increment(name, by) == self.model[name]
        elif type(self.model.get(name, 0)) is not int:
            with pytest.raises(TypeError):
                self.session.increment(name, by)

    @rule(name=NAMES, value=PLAIN)
    def mutate(self, name: str, value: Any) -> None:
        for holder in (self.session, self.model):
            held: Any = holder.get(name)
            if type(held) is list:
                held.append(value)
            elif type(held) is dict:
                held[value] = [value]
            elif type(held) is set:
                held.symmetric_difference_update({value})

    @rule()
    def finish(self) -> None:
        """The handler returns: what it did is what the next one finds."""
        self.browser.finish(self.session)
        self.stored = self.model
        self.begin()

    @rule()
    def fail(self) -> None:
        """The handler raises: what it did is gone."""
        self.begin()

    @rule()
    def rotate(self) -> None:
        self.session.rotate()

    @rule(name=NAMES, value=VALUES)
    def write_late(self, name: str, value: Any) -> None:
        """The answer's head leaves, and the handler goes on: what it changes then is kept as well."""
        self.browser.finish(self.session)
        self.stored = copy.deepcopy(self.model)
        if not self.session.new:  # a session that is born late has no cookie, and is never found again
            self.session[name] = value
            self.engine.commit(self.session, is_late=True)
            self.stored[name] = copy.deepcopy(value)
        self.begin()

    @rule()
    def end(self) -> None:
        self.session.logout()
        self.model.clear()

    @rule(seconds=st.integers(0, 60))
    def wait(self, seconds: int) -> None:
        """Time passes, less than the session lives."""
        self.clock.advance(seconds)

    @rule()
    def compare(self) -> None:
        assert self.session == self.model
        for name, value in self.model.items():
            assert alike(self.session[name], value), name

    @invariant()
    def has_the_names_that_a_dict_has(self) -> None:
        if self.session.accessed:
            assert len(self.session) == len(self.model)
            assert set(self.session) == set(self.model)


SessionIsADict.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestSessionIsADict = SessionIsADict.TestCase
