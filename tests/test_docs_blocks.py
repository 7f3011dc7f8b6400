"""Every block of code in the README and in docs: Python passes mypy and runs, and what a shell is told is there.

A block is fenced, or indented by four spaces. One in a language, or a command, that nothing here knows fails: so that no
block is left out.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gunicorn.config  # type: ignore[import-untyped]  # it has no types
import pytest
from starlette.testclient import TestClient
from uvicorn.main import main as uvicorn_command

from bench import catalogue
from sessile.cli import build_parser
from sessile.dashboard.control import ACTIONS
from sessile.engine import Engine
from sessile.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = sorted([ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")])
SECRET: Final = "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"
TESTED_ELSEWHERE: Final = {"nginx", "haproxy", "yaml", ""}
"""Languages of fenced blocks: those of the recipes are in `tests/test_recipes.py`; without one, it is a drawing."""
CONTROL: Final = "http://127.0.0.1:8081"
DEADLINE_S: Final = 30.0
UWSGI: Final = {"enable-threads", "py-call-uwsgi-fork-hooks", "lazy-apps"}


@dataclass(frozen=True)
class Block:
    """One block of one page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page in their order; indented ones have the language `shell`."""
    lines, began = page.read_text().splitlines(), 0
    fence: str | None = None
    kept: list[str] = []
    for number, line in enumerate([*lines, ""], 1):
        if fence is None and (opened := re.fullmatch(r"```(\w*)", line)):
            if kept:
                yield Block(page, began, "shell", "\n".join(kept) + "\n")
            fence, began, kept = opened[1], number, []
        elif fence is not None and line == "```":
            yield Block(page, began, fence, "\n".join(kept) + "\n")
            fence, kept = None, []
        elif fence is not None:
            kept.append(line)
        elif re.match(r" {4}\S", line) and (kept or not lines[number - 2].strip()):
            began = began if kept else number
            kept.append(line[4:])
        elif kept and line.strip():
            yield Block(page, began, "shell", "\n".join(kept) + "\n")
            kept = []
    if kept:
        yield Block(page, began, "shell", "\n".join(kept) + "\n")


ALL: Final = [block for page in PAGES for block in blocks(page)]
PYTHON: Final = [block for block in ALL if block.language == "python"]
SHELL: Final = [block for block in ALL if block.language == "shell"]


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    """A block that nothing looks at could say anything."""
    assert {block.language for block in ALL} <= {"python", "shell", *TESTED_ELSEWHERE}
    assert len(PYTHON) >= 5
    assert len(SHELL) >= 15


def test_python_passes_mypy(tmp_path: Path) -> None:
    """All blocks, each a module of its own, with the strict rules of this tree."""
    files = []
    for block in PYTHON:
        file = tmp_path / f"{block.page.stem.lower()}_{block.line}.py"
        file.write_text(block.text)
        files.append(str(file))
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[Block], dict[str, Any]]]:
    """Runs a block as a script, and gives what it defines."""
    monkeypatch.setenv("SESSILE_SECRET", SECRET)
    monkeypatch.setenv("SESSILE_STATUS_TOKEN", SECRET[::-1])
    names: dict[str, Any] = {}

    def run_(block: Block) -> dict[str, Any]:
        file = tmp_path / "block.py"
        file.write_text(block.text)
        names.update(runpy.run_path(str(file)))
        return names

    yield run_
    for each in names.values():
        if isinstance(engine := getattr(each, "engine", None), Engine):
            engine.close()


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_runs(block: Block, run: Callable[[Block], dict[str, Any]]) -> None:
    """A block is whole: nothing has to be guessed before it."""
    assert run(block)


def shown(page: str, word: str) -> Block:
    """The block of a page that has this word."""
    (block,) = (block for block in PYTHON if block.page.name == page and word in block.text)
    return block


@pytest.mark.parametrize(("token", "status"), [(SECRET[::-1], 200), (SECRET, 404)])
def test_the_status_is_where_the_page_says(
    token: str,
    status: int,
    run: Callable[[Block], dict[str, Any]],
) -> None:
    """The route of the block answers the token of the environment, and nobody else."""
    app = run(shown("STATUS.md", "StatusApp()"))["app"]
    answer = TestClient(app).get("/ops/sessile", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == status


@pytest.mark.parametrize(("path", "status"), [("/ops/sessile", "200 OK"), ("/", "200 OK"), ("/ops", "200 OK")])
def test_the_status_of_a_wsgi_app(path: str, status: str, run: Callable[[Block], dict[str, Any]]) -> None:
    """The block's app gives one path to the status, and the others to the service."""
    app = run(shown("STATUS.md", "StatusWSGIApp"))["app"]
    environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "HTTP_AUTHORIZATION": f"Bearer {SECRET[::-1]}"}
    told: list[str] = []
    body = b"".join(app({**environ, "wsgi.url_scheme": "http"}, lambda status, _headers: told.append(status)))
    assert told == [status]
    assert (body == b"hello\n") is (path != "/ops/sessile")


# --- what a shell is told


def commands(block: Block) -> Iterator[list[str]]:
    """The command lines of a block, each as its words; what a session printed is left out."""
    lines = block.text.splitlines()
    if lines[0].startswith("$ "):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        words = shlex.split(re.sub(r'"\$\((sessile \w+)\)"', SECRET, line), comments=True)
        while "|" in words:
            at = words.index("|")
            yield words[:at]
            words = words[at + 1 :]
        if words:
            yield words


def check_export(words: list[str]) -> None:
    for word in words:
        name, _, value = word.partition("=")
        if name in {"SESSILE_STATUS_TOKEN", "FORWARDED_ALLOW_IPS"}:
            continue
        assert name.startswith("SESSILE_")
        Settings.load(environ={"SESSILE_SECRET": SECRET, name: value})


def check_pip(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert words[0] == "install"
    for word in words[1:]:
        if extra := re.fullmatch(r"sessile\[(\w+)\]", word):
            assert extra[1] in project["optional-dependencies"]
        else:
            assert word in {"sessile", "fastapi", "uvicorn", "--no-binary"}


def check_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert words[0] in targets
    for word in words[1:]:
        name, _, value = word.partition("=")
        assert name in {"NAME", "ARGS"}
        if name == "NAME":
            assert value in catalogue.names()
        else:
            assert words[0] == "demo"
            check_sessile(["demo", *value.split()])


def check_sessile(words: list[str]) -> None:
    build_parser().parse_args(words)


def check_uvicorn(words: list[str]) -> None:
    uvicorn_command.make_context("uvicorn", list(words))


def check_gunicorn(words: list[str]) -> None:
    gunicorn.config.Config().parser().parse_args(words)


def check_python(words: list[str]) -> None:
    assert words[0] == "-c"
    compile(words[1], "docs", "exec")


def check_control(words: list[str]) -> None:
    (path,) = (word.removeprefix(CONTROL) for word in words if word.startswith(CONTROL))
    source = (ROOT / "src" / "sessile" / "dashboard" / "control.py").read_text()
    named = re.sub(r"/servers/\w+/(\w+)$", r"/servers/{name}/{action}", path)
    assert f'Route("{named}"' in source
    assert named == path or path.rpartition("/")[2] in ACTIONS


CHECKS: Final[dict[str, Callable[[list[str]], None]]] = {
    "export": check_export,
    "pip": check_pip,
    "make": check_make,
    "sessile": check_sessile,
    "uvicorn": check_uvicorn,
    "gunicorn": check_gunicorn,
    "python": check_python,
    "curl": check_control,
}


def check(words: list[str]) -> None:
    """Whether a command line can be as it is."""
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # a variable for this command alone
        words = words[1:]
    first = words[0]
    if first in CHECKS:
        CHECKS[first](words[1:])
    elif "://" in first:
        Settings.load(first, environ={"SESSILE_SECRET": SECRET})
    elif first in {"psql", "mariadb"}:
        assert words[1:] == ["app"]
    elif first == "ACL":  # Redis's own language: tests/stores tries exactly these rights
        assert words[1] == "SETUSER"
    else:
        assert first in UWSGI, f"nothing here knows {first!r}"
        assert words[1:] == ["=", "true"]


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_what_a_shell_is_told_is_there(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options, subcommands, targets, extras, URLs and variables of every command line."""
    monkeypatch.setenv("SESSILE_SECRET", SECRET)
    for words in commands(block):
        check(words)


@pytest.mark.parametrize(
    "line",
    [
        "sessile balanse",
        "sessile demo --serverz 3",
        "export SESSILE_URLL=sticky://",
        "export SESSILE_URL=stikky://",
        "pip install sessile[clusters]",
        "make show NAME=no-such-promise",
        "make nothing",
        "uvicorn service:app --lifespann on",
        "gunicorn --threadz 16 service:app",
        "redis+sentinell://s1,s2/mymaster/0",
        "systemctl start sessile",
    ],
)
def test_a_wrong_line_is_found(line: str) -> None:
    """The checks above can fail."""
    with pytest.raises((AssertionError, Exception, SystemExit)):
        check(shlex.split(line))


# --- servers, started by the lines as they are, but for their addresses


def server_lines() -> list[str]:
    """The command lines that start a server."""
    lines = [line for block in SHELL for line in block.text.splitlines()]
    return [line for line in lines if line.startswith(("uvicorn ", "gunicorn ", "python -c "))]


@pytest.mark.slow
@pytest.mark.parametrize("line", server_lines())
def test_a_server_starts_and_stops(line: str, tmp_path: Path, free_port: Callable[[], int]) -> None:
    """With the README's app under the module's name, it answers, and SIGTERM ends it in good order."""
    port = free_port()
    example = "wsgi_app.py" if line.startswith("gunicorn ") else "fastapi_app.py"
    for module in ("service.py", "fastapi_app.py"):
        (tmp_path / module).write_text((ROOT / "examples" / example).read_text())
    changed = line.replace("0.0.0.0", "127.0.0.1").replace("8000", str(port))
    assert changed != line
    program, *arguments = shlex.split(changed, comments=True)
    words = [sys.executable, *arguments] if program == "python" else [sys.executable, "-m", program, *arguments]
    log = (tmp_path / "log").open("wb+")
    environ = {**os.environ, "SESSILE_SECRET": SECRET, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with log, subprocess.Popen(words, cwd=tmp_path, env=environ, stdout=log, stderr=log) as process:
        try:
            path = "/" if program == "gunicorn" else "/healthz"
            wait_until(lambda: process.poll() is not None or answers(port, path))
            assert process.poll() is None, (tmp_path / "log").read_text()
            process.terminate()
            process.wait(DEADLINE_S)
        finally:
            process.kill()
    assert process.returncode in {0, -signal.SIGTERM}, (tmp_path / "log").read_text()


def answers(port: int, path: str) -> bool:
    """Whether a server is there, and well."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
