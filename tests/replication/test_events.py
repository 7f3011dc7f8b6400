"""The border: whatever crosses it is a value."""

from __future__ import annotations

import inspect
import typing
from typing import TYPE_CHECKING

import pytest

from sessile.replication import events

if TYPE_CHECKING:
    import msgspec

INPUTS: tuple[type[msgspec.Struct], ...] = typing.get_args(events.Input)
EFFECTS: tuple[type[msgspec.Struct], ...] = typing.get_args(events.Effect)


@pytest.mark.parametrize("kind", [*INPUTS, *EFFECTS])
def test_what_crosses_the_border_does_not_change(kind: type[msgspec.Struct]) -> None:
    """Inputs and effects are frozen, compare by what they say, and weigh nothing on the collector."""
    config = kind.__struct_config__
    assert config.frozen and config.eq and not config.gc


def test_everything_is_an_input_or_an_effect() -> None:
    """Nothing in the module is both, or neither."""
    kinds = {one for _, one in inspect.getmembers(events, inspect.isclass) if one.__module__ == events.__name__}
    assert kinds == {*INPUTS, *EFFECTS} and not set(INPUTS) & set(EFFECTS)
    assert {kind.__name__ for kind in kinds} | {"Input", "Effect"} == set(events.__all__)


def test_inputs_are_in_the_past_and_effects_are_orders() -> None:
    """A name says on which side of the border one stands."""
    happened = ("ed", "Found", "LinkUp", "LinkDown", "Woken")
    assert [kind.__name__ for kind in INPUTS if not kind.__name__.endswith(happened)] == []
    assert [kind.__name__ for kind in EFFECTS if kind.__name__.endswith(happened)] == []


def test_what_is_left_out_says_the_least() -> None:
    """Nobody dialled the link, the dial was not refused, one other holder is enough, and the frame matters."""
    assert events.LinkUp(1).address == ""
    assert events.DialFailed("b").is_refused is False
    assert events.ChangePushed(1, bytes(16), None).ack == "one"
    assert events.Send(1, b"").is_spare is False
