from __future__ import annotations

import pytest

from sessile.stores.base import Absence
from sessile.stores.epoch import Epoch


@pytest.mark.parametrize(
    ("absence", "known", "is_end"),
    [
        (Absence(), b"", False),
        (Absence(may_forget_ends=True, mark=b"one"), b"one", True),
        (Absence(may_forget_ends=True, mark=b"two"), b"one", False),
        (Absence(may_forget_ends=True, mark=b"two"), b"", True),
        (Absence(may_forget_ends=True), b"one", True),
    ],
)
def test_what_is_not_there_has_ended_unless_the_store_lost_its_data(
    absence: Absence, known: bytes, *, is_end: bool
) -> None:
    """A store that keeps ends says so by itself; of one that may not, only another mark shows that it lost everything."""
    epoch = Epoch()
    epoch.mark = known
    assert epoch.is_end(absence) is is_end
    assert epoch.is_other(absence.mark) is (known == b"one" and absence.mark == b"two")


def test_before_a_mark_is_known_no_other_one_is_another() -> None:
    """A server that has just begun has no copies that a store could have lost."""
    epoch = Epoch()
    assert epoch.mark == b"" and not epoch.is_other(b"one") and not epoch.is_other(b"")
