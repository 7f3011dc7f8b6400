"""`sessile balance`: arguments, environment, refusals."""

from __future__ import annotations

import argparse
import json
import socket
from typing import TYPE_CHECKING

import pytest

from sessile.balancer.settings import Affinity, BalancerSettings, ServerAddress
from sessile.cli import balance
from sessile.errors import BalancerError, SettingsError
from sessile.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


SECRET, OTHER = "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja", "Qm2xV9tL4rYw7sKd8HnP3fJz6bGc1aTe"


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    balance.add_arguments(parser)
    return parser.parse_args(given)


@pytest.fixture(autouse=True)
def no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests does not matter."""
    for name in ("SESSILE_SECRET", "SESSILE_CLUSTER"):
        monkeypatch.delenv(name, raising=False)


def settings(*given: str) -> BalancerSettings:
    return balance.settings_of(arguments(*given))


def test_arguments_become_settings() -> None:
    """Each option arrives in its setting."""
    got = settings(
        "--listen", "127.0.0.1:9", "--server", "a=127.0.0.1:1,weight=2", "--server", "b=127.0.0.1:2", "--algorithm", "weighted",
        "--affinity", "cookie:stay", "--affinity-refresh", "always", "--affinity-secure", "always", "--affinity-samesite", "none", "--affinity-partitioned", "--workers", "2",
        "--health-path", "/up", "--trusted", "10.0.0.0/8", "--secret", SECRET,
    )  # fmt: skip
    assert got.servers == (ServerAddress("a", "127.0.0.1", 1, 2), ServerAddress("b", "127.0.0.1", 2))
    assert (got.listen, got.algorithm, got.workers, got.health_path) == (("127.0.0.1", 9), "weighted", 2, "/up")
    assert got.affinity == Affinity("cookie", "stay", "always", "always", "none", partitioned=True)
    assert (got.trusted, got.secrets) == (("10.0.0.0/8",), (SECRET,))
    assert settings("--cookie-name", "mine").affinity.name == "mine"


@pytest.mark.parametrize(
    "blank", ["", " ", "\t", "\n", "\r\n", "\v", "\f", "\u00a0", "\x1c", "\x1f", "\x85", "\u2003", "\ufeff"]
)
@pytest.mark.parametrize("template", ["{}{b}", "{b}{}", "{}{b},{b}{o}", "{}, {o}{b}"])
def test_a_secret_is_the_same_here_and_at_the_servers(
    monkeypatch: pytest.MonkeyPatch, blank: str, template: str
) -> None:
    """Whatever white space, of ASCII or not, stands around it, and wherever the balancer has it from."""
    text = template.format(SECRET, o=OTHER, b=blank)
    at_servers = [one.decode() for one in Settings.load(environ={"SESSILE_SECRET": text}).secrets]
    assert at_servers[0] == SECRET or blank.strip(" \t\r\n\v\f")
    assert list(settings(f"--secret={text}").secrets) == at_servers
    monkeypatch.setenv("SESSILE_SECRET", text)
    assert list(settings().secrets) == at_servers
    if "," not in text:
        assert [one.decode() for one in Settings.load(environ={}, secret=text).secrets] == at_servers
        assert BalancerSettings.from_mapping({"secret": text}).secrets == tuple(at_servers)


def test_who_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line wins over the file, the file's secret over the environment's."""
    path = tmp_path / "b.toml"
    path.write_text('listen = "127.0.0.1:1"\nworkers = 3\n')
    monkeypatch.setenv("SESSILE_SECRET", SECRET)
    got = settings("--config", str(path), "--listen", "127.0.0.1:2")
    assert (got.listen[1], got.workers, got.secrets) == (2, 3, (SECRET,))
    path.write_text(f'secrets = ["{OTHER}", "{SECRET}"]\n')
    assert settings("--config", str(path)).secrets == (OTHER, SECRET)
    assert settings("--config", str(path), "--secret", SECRET).secrets == (SECRET,)


@pytest.mark.parametrize(
    "text", [SECRET, f"{SECRET},{OTHER}", f" {SECRET} , {OTHER}\r\n", f"{SECRET}\n", "schl\udcfcssel-7f3K9qLx2m"]
)
def test_servers_and_balancer_read_the_same_secrets(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment, the command line or a file: the bytes from which keys are derived are those of an engine."""
    monkeypatch.setenv("SESSILE_SECRET", text)
    of_servers = Settings.load().secrets
    assert of_balancer(settings()) == of_servers
    monkeypatch.delenv("SESSILE_SECRET")
    assert of_balancer(settings("--secret", text)) == of_servers
    if text.isascii():
        path = tmp_path / "b.toml"
        path.write_text(f"secret = {json.dumps(text.split(','))}\n")
        assert of_balancer(settings("--config", str(path))) == of_servers


def of_balancer(settings: BalancerSettings) -> tuple[bytes, ...]:
    return tuple(secret.encode(errors="surrogateescape") for secret in settings.secrets)


@pytest.mark.parametrize("text", ["", "short", "s" * 32, f"{SECRET},"])
def test_servers_and_balancer_refuse_the_same_secrets(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one included: it was meant to be one."""
    monkeypatch.setenv("SESSILE_SECRET", text)
    with pytest.raises(SettingsError, match="sessile keygen"):
        Settings.load()
    with pytest.raises(BalancerError, match="sessile keygen"):
        settings()


def test_the_name_of_the_cluster_is_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes into the keys, so it is read from where the servers read it; the command line counts more."""
    monkeypatch.setenv("SESSILE_CLUSTER", "shop")
    assert settings().cluster == Settings.load().cluster == "shop"
    assert settings("--cluster", "other").cluster == "other"


def test_bodies_are_collected_unless_told_otherwise(tmp_path: Path) -> None:
    """By default, by the file, and by the command line, which wins."""
    config = tmp_path / "balancer.toml"
    config.write_text('secret = "k3Vn8Xw1Zr5Tq0Lb7Ydh2Pc9Sf4Gm6Ja"\nbuffer_requests = false\n')
    assert balance.settings_of(arguments()).buffer_requests
    assert not balance.settings_of(arguments("--no-buffer-requests")).buffer_requests
    assert not balance.settings_of(arguments("--config", str(config))).buffer_requests
    assert balance.settings_of(arguments("--config", str(config), "--buffer-requests")).buffer_requests


def test_beyond_this_host_a_secret_is_needed() -> None:
    """Listening for others without a secret is refused, with the remedy."""
    with pytest.raises(BalancerError, match="sessile keygen"):
        balance.run(arguments("--listen", "0.0.0.0:0", "--server", "a=127.0.0.1:1"))


def test_on_this_host_one_is_drawn_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    """On loopback a secret is drawn and said to be; the taken port then is one clear line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BalancerError, match="choose another --listen"):
            balance.run(arguments("--listen", address, "--server", "a=127.0.0.1:1"))
    assert "do not survive a restart" in capsys.readouterr().err


def test_no_server_is_said() -> None:
    """A balancer with nothing behind it names what is missing."""
    with pytest.raises(BalancerError, match="--server NAME=HOST:PORT"):
        balance.run(arguments("--listen", "127.0.0.1:0", "--secret", SECRET))


def test_header_affinity_needs_one_worker() -> None:
    """What one worker learns others do not know: the error says so."""
    with pytest.raises(BalancerError, match="what one worker learns"):
        settings("--affinity", "header:Mcp-Session-Id", "--workers", "2")


def test_the_examples_in_the_help_are_true() -> None:
    """Each example line of --help is accepted by the parser."""
    assert balance.__doc__ is not None
    lines = [line.strip() for line in balance.__doc__.splitlines() if line.strip().startswith("sessile balance ")]
    assert len(lines) == 5
    for line in lines:
        words = line.partition("(")[0].replace("...", "").split()[2:]
        if "--config" not in words:
            given = settings(*words, "--secret", SECRET)
            assert given.servers or given.members


def test_a_weak_secret_is_called_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its option or its variable, and never shown."""
    with pytest.raises(BalancerError, match=r"^--secret is shorter than 16 bytes"):
        settings("--secret", "hush")
    monkeypatch.setenv("SESSILE_SECRET", "hush")
    with pytest.raises(BalancerError, match=r"^SESSILE_SECRET is shorter than 16 bytes"):
        settings()
