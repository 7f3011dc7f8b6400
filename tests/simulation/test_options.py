"""The options of a run: drawn from its seed, replaced by text, refused where they are none."""

from __future__ import annotations

import pytest

from sessile.errors import SettingsError
from sessile.simulation.options import BEHAVIOURS, FAULTS, Options, draw, parse, rng_of


def test_a_seed_draws_the_same_options_and_seeds_draw_many() -> None:
    """Every kind of fault and behaviour, both strategies and all ways of waiting come up."""
    assert draw(7) == draw(7)
    drawn = [draw(seed) for seed in range(200)]
    assert {kind for options in drawn for kind in options.faults} == set(FAULTS)
    assert {kind for options in drawn for kind in options.behaviours} == set(BEHAVIOURS)
    assert {options.strategy for options in drawn} == {"all-to-all", "primary-backup"}
    assert {options.ack for options in drawn} == {"none", "one", "all"}
    assert {options.glances for options in drawn} == {options.is_forgetful for options in drawn} == {False, True}
    for name in ("handshake", "threads", "stops", "naps", "watches", "rooms", "queue", "late", "afterlife"):
        assert {bool(getattr(options, name)) for options in drawn} == {False, True}, name
    assert {(options.idle > 100_000, options.reads > 50) for options in drawn} == {
        (True, False),
        (False, False),
        (False, True),
    }


def test_options_as_text_are_read_back() -> None:
    """What is printed with a finding brings its run back."""
    for seed in range(50):
        assert parse(str(draw(seed)), Options()) == draw(seed)
    assert parse("nodes=5,faults=,epilogue=true", draw(1)).but(faults=()).nodes == 5


@pytest.mark.parametrize(
    "text",
    [
        "servers=3",
        "nodes=three",
        "nodes=0",
        "epilogue=maybe",
        "faults=fire",
        "behaviours=dancing",
        "strategy=hope",
        "ack=two",
        "routing=no",
    ],
)
def test_what_is_no_option_is_refused(text: str) -> None:
    """By its name or its value, before anything runs."""
    with pytest.raises(SettingsError):
        parse(text, Options())


def test_chance_for_one_concern_does_not_depend_on_another() -> None:
    """Each has a generator of its own, the same for the same seed."""
    assert rng_of(1, "network").random() == rng_of(1, "network").random() != rng_of(1, "clocks").random()
