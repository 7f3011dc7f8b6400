from __future__ import annotations

import argparse
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sessile import __version__, cli
from sessile.cli import SUBCOMMANDS, build_parser, keygen, main
from sessile.errors import SettingsError

if TYPE_CHECKING:
    import argparse


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` needs nothing installed beyond the core, and shows examples."""
    with pytest.raises(SystemExit) as exit_:
        main([name, "--help"])
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    assert f"sessile {name}" in shown
    assert "examples:" in shown.lower()


def test_the_whole_command_line_is_one_parser(capsys: pytest.CaptureFixture[str]) -> None:
    """Its help lists each subcommand with its line; its version is the package's."""
    shown = build_parser().format_help()
    assert all(name in shown for name in SUBCOMMANDS)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"sessile {__version__}"


@pytest.mark.parametrize("argv", [[], ["nothing"], ["demo", "--strategy", "magic"], ["demo", "--nothing"]])
def test_what_is_no_command_is_a_usage_error(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, and the usage."""
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_failure_a_user_can_mend_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, with status 1 and no traceback."""

    def fail(arguments: argparse.Namespace) -> int:
        raise SettingsError("speed is 'warp'; it must be a number")

    monkeypatch.setattr(keygen, "run", fail)
    assert main(["keygen"]) == 1
    assert capsys.readouterr() == ("", "sessile: speed is 'warp'; it must be a number\n")


@pytest.mark.parametrize("key", ["-Qm2xV9tL4rYw7sKd8HnP3fJz6bGc1aTe", "--m2xV9tL4rYw7sKd8HnP3fJz6bGc1aTe_-"])
@pytest.mark.parametrize("line", [["balance", "--secret"], ["status", "--token"]])
def test_a_secret_may_begin_with_a_dash(line: list[str], key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one in 64 of those did that were drawn before."""
    got: list[argparse.Namespace] = []

    def run(arguments: argparse.Namespace) -> int:
        got.append(arguments)
        return 0

    monkeypatch.setattr(sys.modules[f"sessile.cli.{line[0]}"], "run", run)
    assert main([*line, key]) == 0
    assert getattr(got[0], line[1].removeprefix("--")) == key


def test_an_option_is_not_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the secret was forgotten, what follows is still an option."""
    with pytest.raises(SystemExit):
        main(["balance", "--secret", "--affinity-refresh", "always"])
    assert "--secret: expected one argument" in capsys.readouterr().err


def test_an_unknown_option_shows_the_usage_of_its_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    """With the nearest one that there is, which is not taken for it; no value is repeated."""
    for option in ("--servr", "--serv"):
        with pytest.raises(SystemExit) as exit_:
            main(["balance", option, "s1=127.0.0.1:9001", "--secre=hush"])
        assert exit_.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("usage: sessile balance ")
        assert said.endswith(
            f"sessile balance: error: unrecognized arguments: {option} --secre; did you mean --server?\n"
        )


def test_an_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its status is the one shells give."""

    def interrupt(arguments: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(keygen, "run", interrupt)
    assert main(["keygen"]) == 130


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no SessileError keeps its traceback."""

    def fail(arguments: argparse.Namespace) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(keygen, "run", fail)
    with pytest.raises(ZeroDivisionError):
        main(["keygen"])


def test_the_parser_loads_nothing_of_the_extras() -> None:
    """`sessile keygen` works where only the core is installed, and starts quickly everywhere."""
    source = "import sys, sessile.cli; sessile.cli.build_parser(); print(*{m.split('.')[0] for m in sys.modules})"
    shown = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout.split()
    assert not {"uvicorn", "starlette", "httptools", "uvloop", "asyncio"} & set(shown)
    assert cli.__name__ == "sessile.cli"
