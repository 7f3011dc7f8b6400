from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from sessile.cli import keygen, main
from sessile.engine import Engine

if TYPE_CHECKING:
    import pytest


def test_a_secret_is_drawn_anew_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    """32 random bytes, in letters that need no quoting in a shell."""
    assert main(["keygen"]) == main(["keygen"]) == 0
    first, second = capsys.readouterr().out.split()
    assert first != second
    for secret in (first, second):
        assert len(base64.urlsafe_b64decode(secret + "=")) == 32


def test_no_secret_looks_like_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--secret "$(sessile keygen)"` is right for whatever is drawn."""
    drawn = iter(["-secret", "--secret", "_secret"])
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: next(drawn))
    assert keygen.draw() == "_secret"


def test_a_secret_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One object, which an engine takes as it is."""
    assert main(["keygen", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["secret"]
    assert Engine(url="sticky://", **told).settings.secrets
