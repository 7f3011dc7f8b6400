from __future__ import annotations

from typing import TYPE_CHECKING

from sessile.stores import lost as module
from sessile.stores.lost import Lost

if TYPE_CHECKING:
    import pytest


def keys(count: int, kind: bytes) -> list[bytes]:
    return [kind + number.to_bytes(15, "big") for number in range(count)]


def test_ends_come_first() -> None:
    """What contradicts them is among the others; a session that ends while it waits waits for its end."""
    lost = Lost(lambda _: True)
    one, two, three = keys(3, b"s")
    for key in (one, two, three):
        lost.add(key, is_end=False)
    lost.add(three, is_end=True)
    lost.add(three, is_end=False)
    assert list(lost) == [three, one, two] and (len(lost), lost.ends) == (3, 1)
    lost.discard(three)
    lost.discard(one)
    assert list(lost) == [two] and two in lost and three not in lost


def test_an_end_is_never_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many that wait the oldest live ones make room; ends go when they do not matter any more, and not before."""
    monkeypatch.setattr(module, "LOST_MAX", 10)
    gone: set[bytes] = set()
    lost = Lost(lambda key: key not in gone)
    ends = keys(40, b"e")
    for key in ends:
        lost.add(key, is_end=True)
    live = keys(25, b"s")
    for key in live:
        lost.add(key, is_end=False)
    assert list(lost) == [*ends, *live[15:]]
    assert lost.ends == 40 and len(lost) == 50 and lost.given_up == 15
    gone.update(ends)
    sizes = []
    for key in keys(400, b"f"):
        lost.add(key, is_end=True)
        gone.add(key)
        sizes.append(lost.ends)
    assert max(sizes) <= 2 * 40 + 1


def test_ends_that_matter_are_looked_through_as_their_number_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait, an end costs a bounded number of looks."""
    monkeypatch.setattr(module, "LOST_MAX", 10)
    asked: list[bytes] = []

    def has_ended(key: bytes) -> bool:
        asked.append(key)
        return True

    lost = Lost(has_ended)
    for key in keys(1_000, b"e"):
        lost.add(key, is_end=True)
    assert lost.ends == 1_000 and 1_000 <= len(asked) <= 2_000
    lost.discard(keys(1, b"e")[0])
    assert lost.ends == len(lost) == 999
