"""Show how servers are: roles, copies, lag, traffic, what went wrong, and how they see each other.

Without a URL it asks the demo's control API, on the port after the service's. An app of your own answers at the path where
it mounts `sessile.status.StatusApp`; give the URLs of several servers, and what they say of each other is compared. The exit
status is 0 only if every one of them answered and nothing is wrong: all know each other, see each other alive, and can read each
other's cookies, and their store is there. What is wrong is told in sentences; with --json on standard error.

Examples:
  sessile status
  sessile status --port 9000 --watch 1
  sessile status --json
  sessile status https://web1.internal/ops/sessile https://web2.internal/ops/sessile --token "$TOKEN"

`holds` counts sessions in memory: as their primary, as a backup, or, as a proxy, for the moment. `lag` is what an
acknowledgement takes. The token is better in SESSILE_STATUS_TOKEN; send it over https only.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

import msgspec

from sessile.errors import SettingsError, StatusError
from sessile.overview import remarks, totals
from sessile.shown import plain
from sessile.status import TOKEN_VARIABLE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    Server = dict[str, Any]
    Cell = str | None

HELP = "how servers are: roles, copies, lag, and how they see each other"

PORT: Final = 8080
PATH: Final = "/api/status"
"""Where a URL without a path is asked."""
ERROR_CHARS: Final = 400
ANSWER_S: Final = 5.0
ANSWER_BYTES_MAX: Final = 16 << 20
REDIRECTS_MAX: Final = 2
WATCH_S_MIN: Final = 0.1
WORDS_CHARS_MAX: Final = 1_000
"""Of a name or a reason that a server tells."""
WIDE_CHARS: Final = 200
"""What is not printed to a terminal may be this wide."""
_CLEAR: Final = "\x1b[H\x1b[2J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this subcommand."""
    parser.add_argument("url", nargs="*", metavar="URL", help="where to ask (the demo's control API)")
    parser.add_argument("--port", type=int, metavar="N", help=f"the service's port of a demo ({PORT})")
    parser.add_argument("--token", help=f"for an app of your own; better in {TOKEN_VARIABLE}")
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="look again and again, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print what was answered, one line for each URL")


def run(arguments: argparse.Namespace) -> int:
    """Ask and print.

    Raises:
        SettingsError: the options contradict each other, or a URL is none.
        StatusError: a server could not be asked.
    """
    if arguments.url and arguments.port is not None:
        raise SettingsError("give a URL or --port, not both: --port is the port of a demo on this machine")
    if arguments.watch is not None and not arguments.watch >= WATCH_S_MIN:
        raise SettingsError(f"--watch {arguments.watch:g} must be {WATCH_S_MIN:g} seconds or more")
    port = PORT if arguments.port is None else arguments.port
    if not 1 <= port <= 65_534:
        raise SettingsError(f"--port {port} must be 1 to 65534")
    urls = [_parsed(url) for url in arguments.url] or [_parsed(f"http://127.0.0.1:{port + 1}")]
    token = (arguments.token or os.environ.get(TOKEN_VARIABLE, "")).strip()
    if not token.isascii() or not token.isprintable():
        raise SettingsError("--token holds what a header cannot: it must be the one that the server was given")
    show = _json if arguments.json else _text
    if arguments.watch is None:
        looked = _look(urls, token)
        _print(looked, show)
        return looked.status
    return _watch(lambda: _look(urls, token), show, arguments.watch)


class _Looked(NamedTuple):
    """What came of asking every server once."""

    told: list[dict[str, Any]]
    where: list[str]
    """Where each of them was asked, without the scheme."""
    failed: list[str]
    """Why others could not be asked."""

    @property
    def servers(self) -> list[Server]:
        """All servers, by names of their own: of two that call themselves alike, each goes by its URL as well."""
        asked = [
            (server, where)
            for one, where in zip(self.told, self.where, strict=True)
            for server in one.get("servers", [one])
        ]
        named = Counter(server["name"] for server, _ in asked)
        return [
            server if named[server["name"]] == 1 else {**server, "name": f"{server['name']} at {where}"}
            for server, where in asked
        ]

    @property
    def wrong(self) -> list[str]:
        """What is not well, as far as those that answered know."""
        return remarks(self.servers)

    @property
    def status(self) -> int:
        return 1 if self.failed or self.wrong else 0


def _look(urls: Sequence[SplitResult], token: str) -> _Looked:
    """Ask all of them; one that does not answer keeps nobody from seeing the others.

    Raises:
        StatusError: none could be asked.
    """
    told, where, failed = [], [], []
    for url in urls:
        try:
            told.append(_asked(url, token))
            where.append(plain(url.netloc + url.path))
        except StatusError as error:
            failed.append(str(error))
    if not told and len(failed) == 1:
        raise StatusError(failed[0])
    return _Looked(told, where, failed)


def _print(looked: _Looked, show: Callable[[_Looked], str], *, is_watching: bool = False) -> None:
    """Who watches sees on one screen what others find on standard error."""
    if is_watching and sys.stdout.isatty():
        print(_CLEAR, end="")
    if looked.told:
        print(show(looked), flush=True)
    for line in [*(looked.wrong if show is _json else []), *looked.failed]:
        print(f"sessile: {line}", file=sys.stdout if is_watching else sys.stderr, flush=True)


def _watch(look: Callable[[], _Looked], show: Callable[[_Looked], str], every_s: float) -> int:
    """Look again and again; the first look must succeed, and the status is that of the last one."""
    looked = look()
    try:
        while True:
            _print(looked, show, is_watching=True)
            time.sleep(every_s)
            try:
                looked = look()
            except StatusError as error:
                looked = _Looked([], [], [str(error)])
    except KeyboardInterrupt:
        return looked.status


# -- asking ----------------------------------------------------------------------------------------------------------------


def _parsed(url: str) -> SplitResult:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or parts.username is not None:
        raise SettingsError(f"{url!r:.80} is no URL to ask: write http://127.0.0.1:{PORT + 1}")
    return parts if parts.path.strip("/") else parts._replace(path=PATH)


def _asked(url: SplitResult, token: str) -> dict[str, Any]:
    """The status that is answered there.

    Raises:
        StatusError: nobody answers, or answers anything else.
    """
    try:
        return _told(url, token)
    except StatusError as error:
        raise StatusError(plain(error, ERROR_CHARS)) from None


def _told(url: SplitResult, token: str) -> dict[str, Any]:
    for _ in range(REDIRECTS_MAX + 1):
        status, location, body = _exchange(url, token)
        if not 300 <= status < 400:
            break
        # A mounted app may want its slash. The token goes to nobody else.
        there = urlsplit(urljoin(url.geturl(), location))
        if there[:2] != url[:2]:
            raise StatusError(f"{url.geturl()} sends on to {plain(there.geturl())}: ask there, if you trust it")
        url = there
    where = url.geturl()
    if status == 404:
        remedy = f"that --token or {TOKEN_VARIABLE} is the server's" if token else f"give --token or {TOKEN_VARIABLE}"
        raise StatusError(
            f"{where} has no status{' for this token' if token else ''} (404): check the path, or {remedy}; a demo tells it on "
            "the port after the service's"
        )
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if status != 200:
        why = plain(told.get("error", "")) if isinstance(told, dict) else ""
        raise StatusError(
            f"{where} answers {status}{': ' if why else ''}{why}: ask the server itself, not by way of others"
        )
    try:
        msgspec.convert(told, _Fleet if isinstance(told, dict) and "servers" in told else _Server)
    except (msgspec.ValidationError, RecursionError):
        raise StatusError(
            f"{where} answers with no status: the demo tells it on the port after the service's, at {PATH}"
        ) from None
    return dict(_cleaned(told))


class _Cluster(msgspec.Struct):
    """What is read of a server's cluster or store; more may be there."""

    state: str = ""
    reason: str = ""
    channel: str = ""
    members: dict[str, str] | None = None
    unmet: dict[str, str] | None = None
    primary: int = 0
    backup: int = 0
    other: int = 0
    directory: int | None = None
    lag_ms: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0


class _Server(msgspec.Struct):
    """What is read of one server."""

    name: str
    state: str
    stats: dict[str, int]
    cluster: _Cluster
    strategy: str = ""
    node: str = ""
    secrets: list[str] = []
    copies: int = 0
    requests: int = 0
    balancer_sees: str = ""


class _Balancer(msgspec.Struct):
    state: str


class _Fleet(msgspec.Struct):
    """What is read of a demo."""

    servers: list[_Server]
    strategy: str = ""
    routing: str = ""
    url: str = ""
    balancer: _Balancer = msgspec.field(default_factory=lambda: _Balancer(""))


def _cleaned(told: Any) -> Any:
    """The same values, with nothing in their words that a terminal obeys."""
    if isinstance(told, dict):
        return {plain(name, WORDS_CHARS_MAX): _cleaned(value) for name, value in told.items()}
    if isinstance(told, list):
        return [_cleaned(value) for value in told]
    return plain(told, WORDS_CHARS_MAX) if isinstance(told, str) else told


def _exchange(url: SplitResult, token: str) -> tuple[int, str, bytes]:
    """One GET, bounded: status, Location and body."""
    import http.client  # noqa: PLC0415 - takes a while, and other subcommands do without

    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    assert url.hostname is not None, "looked at before"
    connection = kind(url.hostname, url.port, timeout=ANSWER_S)
    headers = {"Accept": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    where = url.geturl()
    try:
        connection.request("GET", url.path + (f"?{url.query}" if url.query else ""), headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Location", ""), answer.read(ANSWER_BYTES_MAX)
    except ConnectionRefusedError:
        raise StatusError(
            f"{where}: nobody listens there; start `sessile demo`, or give the URL of your app's StatusApp"
        ) from None
    except TimeoutError:
        raise StatusError(f"{where}: no answer within {ANSWER_S:g} s; see whether its process is stopped") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise StatusError(f"{where}: {plain(error) or type(error).__name__}; check the URL") from None
    finally:
        connection.close()


# -- showing ---------------------------------------------------------------------------------------------------------------


def _json(looked: _Looked) -> str:
    return "\n".join(json.dumps(one) for one in looked.told)


class _Column(NamedTuple):
    """One column of the table: what stands in it for a server, None where that server has no such thing."""

    heading: str
    cell: Callable[[Server], Cell]


def _text(looked: _Looked) -> str:
    """The table, with what belongs to all servers above it, and what is wrong with them below."""
    told, servers = looked.told, looked.servers
    whole = totals(servers)
    parts = [_plural(len(servers), "server"), _plural(whole["sessions"], "session")]
    if any(server["cluster"] for server in servers):
        parts.append(_plural(whole["copies"], "copy", "copies"))
    strategies = ", ".join(dict.fromkeys(str(one.get("strategy", "")) for one in told))
    lines = [f"{strategies}: {', '.join(parts)}"]
    lines += [
        f"service {one['url']}, {one['routing']} routing, balancer {one['balancer']['state']}"
        for one in told
        if one.keys() >= {"balancer", "url", "routing"}
    ]
    lines += ["", *_tables(servers)]
    wrong = remarks(servers)
    if wrong:
        lines += ["", *(f"{remark}." for remark in wrong)]
    elif any(server["cluster"].get("members") for server in servers):
        lines += ["", "All see each other alive."]
    return "\n".join(lines)


def _tables(servers: Sequence[Server]) -> list[str]:
    """One table if the terminal is wide enough, else one for each group of columns."""
    width = shutil.get_terminal_size((WIDE_CHARS, 24)).columns if sys.stdout.isatty() else WIDE_CHARS
    whole = _table(servers, [*_FIRST, *_HELD, *_COUNTED])
    if max(map(len, whole)) <= width:
        return whole
    return [*_table(servers, [*_FIRST, *_HELD]), "", *_table(servers, [_FIRST[0], *_COUNTED])]


def _table(servers: Sequence[Server], columns: Sequence[_Column]) -> list[str]:
    """Aligned lines: words to the left, figures to the right. A column that nobody has anything in is left out."""
    rows = [[column.cell(server) for column in columns] for server in servers]
    kept = [at for at in range(len(columns)) if any(row[at] is not None for row in rows)]
    texts = [[columns[at].heading for at in kept], *([row[at] or "-" for at in kept] for row in rows)]
    widths = [max(len(line[place]) for line in texts) for place in range(len(kept))]
    left = sum(column in _FIRST for column in (columns[at] for at in kept))
    return [
        "  ".join(
            text.ljust(width) if place < left else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in texts
    ]


def _at(*path: str, shown: Callable[[Any], str] = "{:,}".format) -> Callable[[Server], Cell]:
    """What stands at this path in a server's status; a dead server has nothing."""

    def cell(server: Server) -> Cell:
        value: Any = None if server["state"] == "dead" else server
        for name in path:
            value = None if value is None else value.get(name)
        return None if value is None else shown(value)

    return cell


def _size(count: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def _plural(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


_FIRST: Final = (
    _Column("server", lambda server: str(server["name"])),
    _Column("state", lambda server: str(server["state"])),
    _Column("balancer", lambda server: server.get("balancer_sees")),
)
_HELD: Final = (
    _Column("holds", _at("stats", "sessions")),
    _Column("primary", _at("cluster", "primary")),
    _Column("backup", _at("cluster", "backup")),
    _Column("proxy", _at("cluster", "other")),
    _Column("copies", lambda server: _at("copies")(server) if server["cluster"] else None),
    _Column("directory", _at("cluster", "directory")),
    _Column("lag", _at("cluster", "lag_ms", shown="{:.1f} ms".format)),
    _Column("sent", _at("cluster", "bytes_sent", shown=_size)),
    _Column("received", _at("cluster", "bytes_received", shown=_size)),
)
_COUNTED: Final = (
    _Column("requests", _at("requests")),
    *(_Column(name, _at("stats", name)) for name in ("conflicts", "stale", "degraded", "late", "unavailable")),
)
