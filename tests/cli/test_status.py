"""`sessile status`: what it asks, what it prints, and what it says when it cannot."""

from __future__ import annotations

import argparse
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from sessile.cli import main, status
from tests.lab.running import free_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "t" * 32
STATS = {"sessions": 2, "conflicts": 0, "stale": 1, "degraded": 0, "late": 0, "unavailable": 0}
FLEET: dict[str, Any] = {
    "strategy": "primary-backup",
    "routing": "round-robin",
    "url": "http://127.0.0.1:8080/",
    "balancer": {"state": "ready"},
    "servers": [
        {
            "name": name, "node": node, "state": "ready", "balancer_sees": "up", "requests": 7, "copies": 1, "stats": STATS,
            "cluster": {"primary": 1, "backup": 1, "other": 0, "directory": 3, "lag_ms": 1.25, "bytes_sent": 2_500,
                        "bytes_received": 17, "members": {other: sees}},
        }
        for name, node, other, sees in (("s1", "h:1", "h:2", "alive"), ("s2", "h:2", "h:1", "alive"))
    ],
}  # fmt: skip
DEAD = {"name": "s3", "state": "dead", "balancer_sees": "down", "stats": {}, "cluster": {}, "requests": 0, "copies": 0}
ALONE = {"name": "web1", "state": "ready", "strategy": "sticky", "node": "", "copies": 0, "stats": STATS, "cluster": {}}


class _Handler(BaseHTTPRequestHandler):
    """Answers what its server was given for a path: a status, headers and a body."""

    def do_GET(self) -> None:
        answers: Any = self.server
        answers.seen.append((self.path, self.headers.get("Authorization")))
        code, headers, body = answers.answers.get(self.path, (404, {}, b"Not Found"))
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - so it is called there
        pass


class Serving(ThreadingHTTPServer):
    """Servers to ask."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def tell(self, path: str, told: Any, code: int = 200, **headers: str) -> None:
        self.answers[path] = (code, headers, told if isinstance(told, bytes) else json.dumps(told).encode())


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    monkeypatch.delenv("SESSILE_STATUS_TOKEN", raising=False)
    with Serving() as server:
        server.tell("/api/status", FLEET)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """Run it; returns what it printed, or its one line of complaint."""
    assert main(["status", *arguments]) == code
    out, err = capsys.readouterr()
    if code:
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("sessile: ")
        return err
    assert err == ""
    return out


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[str], list[str]]:
    """Run it where something is wrong; returns the sentences below the table, and the lines of standard error."""
    assert main(["status", *arguments]) == 1
    out, err = capsys.readouterr()
    below = out.rstrip("\n").rpartition("\n\n")[2]
    return below.splitlines(), err.splitlines()


def member(name: str, node: str, members: dict[str, str], **more: Any) -> dict[str, Any]:
    """The status of one server of a cluster of an app."""
    cluster = {"state": "ready", "members": members, "unmet": more.pop("unmet", {})}
    return {
        **ALONE,
        "strategy": "all-to-all",
        "secrets": ["aa"],
        "name": name,
        "node": node,
        "cluster": cluster,
        **more,
    }


def test_the_demo_is_told_as_a_table(served: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    """A row for each server, what all have together above it, and who sees whom how below."""
    (first, second), suspect = FLEET["servers"], {"h:1": "suspect"}
    second = {**second, "cluster": {**second["cluster"], "members": suspect}}
    served.tell("/api/status", {**FLEET, "servers": [first, second, DEAD]})
    assert main(["status", served.url]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "primary-backup: 3 servers, 3 sessions, 2 copies"
    assert lines[1] == "service http://127.0.0.1:8080/, round-robin routing, balancer ready"
    assert " ".join(lines[3].split()) == (
        "server state balancer holds primary backup proxy copies directory lag sent received "
        "requests conflicts stale degraded late unavailable"
    )
    assert " ".join(lines[4].split()) == "s1 ready up 2 1 1 0 1 3 1.2 ms 2.5 kB 17 B 7 0 1 0 0 0"
    assert lines[6].split() == ["s3", "dead", "down", *["-"] * 15]
    assert len({len(line) for line in lines[3:7]}) == 1
    assert lines[8:] == ["s1 is seen as suspect by s2.", "s3 is dead."]


def test_what_a_server_tells_does_not_steer_the_terminal(served: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither what stands in a table nor an error, whatever a server calls itself."""
    name = "web\x1b[2J\x9b31m\r\n\u202e1"
    served.tell("/ops", {**ALONE, "name": name, "strategy": "\x1b]0;title\x07"})
    shown = said(capsys, f"{served.url}/ops")
    assert "web" in shown and all(line.isprintable() for line in shown.splitlines())
    assert len(shown.splitlines()) == 4
    served.tell("/sick", {"error": "\x1b[2Jall is well"}, code=503)
    refused = said(capsys, f"{served.url}/sick", code=1).strip()
    assert "all is well" in refused and refused.isprintable()


def test_agreement_is_said_too(served: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line."""
    assert said(capsys, served.url).splitlines()[-1] == "All see each other alive."


@pytest.mark.parametrize(
    ("servers", "sentences"),
    [
        (
            [
                member("web1", "h:1", {"h:2": "alive"}, unmet={"h:3": "it has another secret"}),
                member("web2", "h:2", {"h:1": "alive"}, unmet={"h:3": "it has another secret"}),
                member("web3", "h:3", {}, unmet={"h:1": "it has another secret"}, secrets=["bb"]),
            ],
            [
                "web3 was never met by web1 and web2: it has another secret.",
                "web1 was never met by web3: it has another secret.",
                "web2 is no member to web3: see members= and me=.",
                "web1 signs cookies that web3 cannot read: ",
                "web2 signs cookies that web3 cannot read: ",
                "web3 signs cookies that web1 and web2 cannot read: ",
            ],
        ),
        ([member("web1", "h:1", {}, unmet={"h:9": "no answer"})], ["h:9 was never met by web1: no answer."]),
        (
            [member("web1", "h:1", {}), member("web2", "h:2", {"h:1": "alive"})],
            ["web2 is no member to web1: see members= and me=."],
        ),
        (
            [member("web1", "h:1", {}), {**ALONE, "name": "web2"}],
            ["the servers have different strategies: all-to-all at web1, sticky at web2."],
        ),
        (
            [{**ALONE, "state": "away", "cluster": {"state": "away", "reason": "refused"}}],
            ["the store is not reached by web1: refused."],
        ),
        ([{**ALONE, "state": "stopped", "cluster": {"state": "stopped"}}], ["web1 is stopped."]),
    ],
    ids=["another secret", "never met", "unknown to one", "strategies", "store", "stopped"],
)
def test_what_is_wrong_is_told_in_sentences_and_by_the_exit_status(
    served: Serving, capsys: pytest.CaptureFixture[str], servers: list[dict[str, Any]], sentences: list[str]
) -> None:
    """What servers say of each other is compared; nobody is said to be alive then. As JSON they stand on standard error."""
    for place, server in enumerate(servers):
        served.tell(f"/{place}", server)
    urls = [f"{served.url}/{place}" for place in range(len(servers))]
    told, errors = found(capsys, *urls)
    assert errors == [] and len(told) == len(sentences)
    assert all(line.startswith(sentence) for line, sentence in zip(told, sentences, strict=True))
    assert main(["status", "--json", *urls]) == 1
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == servers
    assert [line.removeprefix("sessile: ") + "." for line in err.splitlines()] == told


def test_a_secret_that_is_being_replaced_is_no_mistake(served: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    """While each reads what every other one signs."""
    for place, secrets in enumerate((["aa", "bb"], ["bb", "aa"])):
        other = 1 - place
        served.tell(f"/{place}", member(f"web{place}", f"h:{place}", {f"h:{other}": "alive"}, secrets=secrets))
    assert said(capsys, f"{served.url}/0", f"{served.url}/1").splitlines()[-1] == "All see each other alive."


def test_servers_that_call_themselves_alike_go_by_their_urls(
    served: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two on one machine are both called by its name; the same server asked twice is not compared with itself."""
    for place, secret in enumerate(("aa", "bb")):
        served.tell(f"/{place}", {**ALONE, "secrets": [secret]})
    told, _ = found(capsys, f"{served.url}/0", f"{served.url}/1")
    where = served.url.removeprefix("http://")
    assert [line.partition(":")[0] for line in told] == ["web1 at 127.0.0.1"] * 2
    assert f"web1 at {where}/0 signs cookies that web1 at {where}/1 cannot read" in told[0]
    served.tell("/node", member("web1", "h:1", {"h:2": "alive"}))
    assert said(capsys, f"{served.url}/node", f"{served.url}/node").splitlines()[-1] == "All see each other alive."


def test_one_that_does_not_answer_hides_no_other(served: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are shown; the status is not 0."""
    served.tell("/ops", ALONE)
    assert main(["status", f"{served.url}/ops", f"{served.url}/nothing", f"127.0.0.1:{free_pair()}"]) == 1
    out, err = capsys.readouterr()
    assert "web1" in out
    assert [line.startswith("sessile: http://127.0.0.1:") for line in err.splitlines()] == [True, True]


def test_nothing_that_a_terminal_obeys_is_printed(served: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a server calls itself, its members, or what went wrong."""
    evil = "\x1b]0;owned\x07\x1b[2J\r\n\x9b1mfake\u202e"
    cluster = {"state": evil, "reason": evil, "members": {evil: evil}, "unmet": {f"{evil}2": evil}}
    server = {
        **ALONE,
        "name": evil,
        "state": "ready",
        "strategy": evil,
        "node": evil,
        "secrets": [evil],
        "cluster": cluster,
    }
    fleet = {"servers": [{**server, "balancer_sees": evil}], "strategy": evil, "routing": evil, "url": evil}
    served.tell("/one", server)
    served.tell("/all", {**fleet, "balancer": {"state": evil}})
    served.tell("/no", {"error": evil}, 503)
    for path in ("one", "all", "no"):
        for options in ([], ["--json"]):
            assert main(["status", f"{served.url}/{path}", *options]) == 1
            out, err = capsys.readouterr()
            assert "owned" in out + err
            assert all(one.isprintable() or one == "\n" for one in out + err), out + err
            assert "\n\N{REPLACEMENT CHARACTER}1mfake" not in out


@pytest.mark.parametrize(
    "told",
    [
        {"servers": 1},
        {"servers": [{}]},
        {"servers": [None]},
        {**ALONE, "stats": []},
        {**ALONE, "stats": {"sessions": "many"}},
        {**ALONE, "cluster": None},
        {**ALONE, "cluster": {"members": ["h:1"]}},
        {**ALONE, "cluster": {"lag_ms": "x"}},
        {**ALONE, "name": {}},
        {**FLEET, "balancer": "up"},
        b"[" * 100_000,
        b"1" * 10_000,
        b"",
    ],
)
def test_what_is_no_status_is_refused_in_one_line(
    served: Serving, capsys: pytest.CaptureFixture[str], told: dict[str, Any] | bytes
) -> None:
    """Another server may answer there, or a newer one."""
    served.tell("/ops", told)
    assert "answers with no status" in said(capsys, f"{served.url}/ops", code=1)


def test_a_server_of_an_app_is_a_row_without_what_it_has_not(
    served: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several URLs are one table; nobody talks to anybody, so nothing is said of that."""
    served.tell("/ops", ALONE)
    served.tell("/more", {**ALONE, "name": "web2"})
    shown = said(capsys, f"{served.url}/ops", f"{served.url}/more")
    assert shown.splitlines()[0] == "sticky: 2 servers, 4 sessions"
    heads = " ".join(shown.splitlines()[2].split())
    assert heads == "server state holds conflicts stale degraded late unavailable"
    assert [line.split()[0] for line in shown.splitlines()[3:]] == ["web1", "web2"]


def test_a_narrow_terminal_gets_two_tables(
    served: Serving, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line is wider than it."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    lines = said(capsys, served.url).splitlines()
    assert sum(line.startswith("server ") for line in lines) == 2
    assert max(map(len, lines)) <= 100


def test_json_is_what_was_answered(served: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each URL."""
    served.tell("/ops", ALONE)
    shown = said(capsys, served.url, "--json") + said(capsys, f"{served.url}/ops", "--json")
    assert [json.loads(line) for line in shown.splitlines()] == [FLEET, ALONE]


def test_the_port_is_the_services_of_a_demo(served: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    """The control API is on the one after it; a URL may leave out what goes without saying."""
    assert said(capsys, "--port", str(served.server_port - 1)) == said(capsys, f"127.0.0.1:{served.server_port}/")
    assert served.seen == [("/api/status", None)] * 2


def test_the_token_is_sent(
    served: Serving, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line or the environment; a mount that wants its slash gets it."""
    served.tell("/ops", b"", 307, Location="/ops/")
    served.tell("/ops/?a=1", ALONE)
    served.tell("/ops/", ALONE)
    said(capsys, f"{served.url}/ops", "--token", TOKEN)
    monkeypatch.setenv("SESSILE_STATUS_TOKEN", TOKEN)
    said(capsys, f"{served.url}/ops/?a=1")
    assert served.seen == [(path, f"Bearer {TOKEN}") for path in ("/ops", "/ops/", "/ops/?a=1")]


@pytest.mark.parametrize("there", ["http://localhost:1/", "https://127.0.0.1/", "//127.0.0.1:1/"])
def test_the_token_goes_to_nobody_else(served: Serving, capsys: pytest.CaptureFixture[str], there: str) -> None:
    """Whoever the answer names."""
    served.tell("/ops", b"", 302, Location=there)
    assert "sends on to" in said(capsys, f"{served.url}/ops", "--token", TOKEN, code=1)


def test_whoever_cannot_be_asked_is_one_line_with_a_remedy(
    served: Serving, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody there, nothing there, another thing there, a refusal, nonsense, silence."""
    assert "start `sessile demo`" in said(capsys, "--port", str(free_pair()), code=1)
    assert "--token or SESSILE_STATUS_TOKEN" in said(capsys, f"{served.url}/nothing", code=1)
    assert "or that --token or SESSILE_STATUS_TOKEN is the server's;" in said(
        capsys, f"{served.url}/nothing", "--token", TOKEN, code=1
    )
    served.tell("/page", b"<!doctype html>")
    served.tell("/other", {"server": "s1"})
    served.tell("/no", {"error": "the Host must be a loopback name"}, 403)
    served.tell("/loop", b"", 302, Location="/loop")
    for path, words in (("page", "no status"), ("other", "no status"), ("no", "loopback name"), ("loop", "302")):
        assert words in said(capsys, f"{served.url}/{path}", code=1)
    assert "check the URL" in said(capsys, f"https://127.0.0.1:{served.server_port}", code=1)
    assert "check the URL" in said(capsys, "http://nowhere.invalid", code=1)
    monkeypatch.setattr(status, "ANSWER_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "no answer within" in said(capsys, f"127.0.0.1:{silent.getsockname()[1]}", code=1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["http://127.0.0.1:8081", "--port", "8080"], "not both"),
        (["--port", "65535"], "--port 65535 must be"),
        (["--watch", "0"], "--watch 0 must be"),
        (["--watch", "nan"], "--watch nan must be"),
        (["ftp://127.0.0.1"], "is no URL to ask"),
        (["http://"], "is no URL to ask"),
        (["http://127.0.0.1:x"], "is no URL to ask"),
        (["http://user:secret@127.0.0.1"], "is no URL to ask"),
        (["--token", "a\nb"], "what a header cannot"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anybody is asked."""
    assert words in said(capsys, *arguments, code=1)


def test_watching_ends_with_an_interrupt(
    served: Serving, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks each time anew, survives a server that is away, and its status is that of the last look."""
    turns = iter(range(10))

    def sleep(seconds: float) -> None:
        assert seconds == 0.5
        turn = next(turns)
        if turn == 0:
            served.tell("/api/status", FLEET, 500)
        elif turn == 1:
            served.tell("/api/status", FLEET)
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    shown = said(capsys, served.url, "--watch", "0.5")
    assert (shown.count("primary-backup: "), shown.count("answers 500")) == (2, 1)


def test_the_examples_in_the_help_are_true(capsys: pytest.CaptureFixture[str]) -> None:
    """The parser takes each of them."""
    parser = argparse.ArgumentParser()
    status.add_arguments(parser)
    lines = [line.strip() for line in (status.__doc__ or "").splitlines() if line.startswith("  sessile status")]
    assert len(lines) == 4
    for line in lines:
        parser.parse_args(line.split()[2:])
    with pytest.raises(SystemExit):
        main(["status", "--help"])
    assert "SESSILE_STATUS_TOKEN" in capsys.readouterr().out
