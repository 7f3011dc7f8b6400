from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sessile.cli import SUBCOMMANDS
from sessile.settings import Settings
from sessile.strategies import STRATEGIES
from sessile.testing import engine_of, session_cookies

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
SECRET = "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"


def generated() -> dict[Path, str]:
    pages: dict[Path, str] = runpy.run_path(str(ROOT / "scripts" / "docs.py"))["pages"]()
    return pages


def test_generated_pages_are_true() -> None:
    """What the code says of itself is what the pages say: `make docs` has been run."""
    assert [path.name for path, text in generated().items() if path.read_text() != text] == []


@pytest.mark.parametrize("setting", [each.name for each in Settings.describe()])
def test_every_setting_is_documented(setting: str) -> None:
    """A newcomer finds each setting, and its environment variable."""
    page = (ROOT / "docs" / "SETTINGS.md").read_text()
    assert f"| `{setting}` |" in page
    assert f"`SESSILE_{setting.upper()}`" in page


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_every_subcommand_is_documented(subcommand: str) -> None:
    """A newcomer finds each command."""
    assert any(f"sessile {subcommand}" in page.read_text() for page in PAGES)


@pytest.mark.parametrize("strategy", [each.name for each in STRATEGIES])
def test_every_strategy_is_in_the_readme(strategy: str) -> None:
    """The table of strategies is whole."""
    assert f"**{strategy}**" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """No page points at one that is not there."""
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SESSILE_SECRET", SECRET)
    return runpy.run_path(str(ROOT / "examples" / name))["app"]


def test_the_fastapi_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example keeps a cart and a count over requests and over a login."""
    app = example("fastapi_app.py", monkeypatch)
    client = TestClient(app)
    assert client.post("/cart", params={"item": "book"}).json() == {"cart": ["book"], "visits": 1}
    assert client.delete("/cart", params={"item": "none"}).json() == {"cart": ["book"]}
    assert client.post("/login", params={"user": "ann"}).json() == {"user": "ann"}
    assert client.post("/cart", params={"item": "pen"}).json() == {"cart": ["book", "pen"], "visits": 2}
    engine_of(app).close()


def test_the_wsgi_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example counts the visits of a browser that brings its cookies back."""
    app = example("wsgi_app.py", monkeypatch)
    jar = session_cookies(app, {"visits": 41})
    environ = {"HTTP_COOKIE": "; ".join(f"{name}={value}" for name, value in jar.items()), "wsgi.url_scheme": "http"}
    answers: list[str] = []
    body = app(environ, lambda status, _headers: answers.append(status))
    assert (answers, b"".join(body)) == (["200 OK"], b"visit 42\n")
    engine_of(app).close()


@pytest.mark.parametrize("language", ["python"])
def test_the_readme_shows_what_the_examples_do(language: str) -> None:
    """Every line of code in the README compiles."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        compile(block, "README.md", "exec")
