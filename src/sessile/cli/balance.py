"""Balance HTTP/1.1 over several servers and keep every user on theirs.

A request goes to the server that its affinity cookie names; one without a cookie, or whose server is gone, is placed by
the algorithm and gets a cookie. Servers are checked four times a second at --health-path: 503 drains a server, silence
or a refused connection takes it out, and requests that may be repeated go to another one at once.

Examples:
  sessile balance --server s1=127.0.0.1:9001 --server s2=127.0.0.1:9002
  sessile balance --listen 0.0.0.0:80 --workers 4 --algorithm least-connections --server s1=10.0.0.1:8000,weight=2
  sessile balance --affinity header:Mcp-Session-Id --server a=127.0.0.1:9001 --server b=127.0.0.1:9002
  sessile balance --listen 0.0.0.0:80 --member web1:7400 --member web2:7400    (the servers of a cluster say where they are)
  sessile balance --config balancer.toml       (kill -HUP reads it again: servers come and go, nobody is cut off)

config file:
  listen = "127.0.0.1:8080"
  algorithm = "two-choices"
  affinity = "cookie"
  trusted = ["10.0.0.0/8"]          # proxies in front whose X-Forwarded-* are believed
  [servers]
  s1 = "10.0.0.1:8000"
  s2 = { address = "10.0.0.2:8000", weight = 2 }
  [timeouts]                        # also [limits] and [health]
  response_s = 30
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from sessile.addresses import split
from sessile.balancer.algorithms import ALGORITHMS
from sessile.balancer.settings import AFFINITY, BalancerSettings, ServerAddress, parse_server, read_toml, secrets_of
from sessile.errors import BalancerError
from sessile.kinds import items
from sessile.sources import variable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sessile.network.watch import Served

HELP = "balance HTTP over several servers, every user on theirs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this subcommand."""
    parser.add_argument("--listen", metavar="HOST:PORT", help="where to listen (default 127.0.0.1:8080; port 0: any)")
    parser.add_argument(
        "--server", action="append", default=[], metavar="NAME=HOST:PORT[,weight=N]", help="a server; repeat it"
    )
    parser.add_argument(
        "--member",
        action="append",
        metavar="HOST:PORT",
        help="a node of the servers' cluster, which tells of all servers",
    )
    parser.add_argument(
        "--cluster", metavar="NAME", help="the cluster's name, if its servers are given one (SESSILE_CLUSTER)"
    )
    parser.add_argument("--config", metavar="FILE", help="a TOML file; options given here win over it")
    parser.add_argument("--algorithm", choices=list(ALGORITHMS), help="for requests without affinity")
    parser.add_argument("--affinity", metavar="HOW", help="cookie, header:NAME, query:NAME or none (default cookie)")
    parser.add_argument("--affinity-refresh", choices=("when-needed", "always"), help="when the cookie is set again")
    parser.add_argument("--affinity-secure", choices=("auto", "always", "never"), help="Secure on the cookie")
    parser.add_argument(
        "--affinity-samesite", choices=("lax", "strict", "none"), help="as the session cookie's (default lax)"
    )
    parser.add_argument(
        "--affinity-partitioned", action="store_true", default=None, help="if the session cookie is partitioned"
    )
    parser.add_argument(
        "--cookie-name", metavar="NAME", help="of the affinity cookie (by default one for each service)"
    )
    parser.add_argument(
        "--secret", help="the servers' secret, or several with commas between them; better in SESSILE_SECRET"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes on the one port (default 1)")
    parser.add_argument(
        "--buffer-requests",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="collect a request's body before a server is asked (default), or pass it on as it comes",
    )
    parser.add_argument("--health-path", metavar="PATH", help="asked of every server (default /healthz)")
    parser.add_argument(
        "--trusted", action="append", metavar="NETWORK", help="a proxy whose X-Forwarded-* count; repeat it"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of sentences")


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from sessile.balancer.server import Log, serve  # noqa: PLC0415 - needs the balancer extra; --help does not

    log = Log(is_json=arguments.json)
    settings = settings_of(arguments)
    if settings.affinity.kind == "cookie" and not settings.secrets:
        if not _is_loopback(settings.listen[0]):
            raise BalancerError(
                "a balancer that listens beyond this host needs a secret: `sessile keygen` draws one, "
                "SESSILE_SECRET or --secret takes it"
            )
        print(
            "sessile balance: no secret given, one was drawn: affinity cookies do not survive a restart",
            file=sys.stderr,
        )
        settings = replace(settings, secrets=(secrets.token_urlsafe(32),))
    return serve(settings, log, lambda: replace(settings_of(arguments), secrets=settings.secrets), learn)


async def learn(settings: BalancerSettings, told: Callable[[tuple[ServerAddress, ...]], None]) -> None:
    """Tell of the servers of the cluster that `members` names, as they come and go."""
    from sessile.network import tls  # noqa: PLC0415 - only where there is a cluster
    from sessile.network.watch import Watch  # noqa: PLC0415

    secrets = [secret.encode(errors="surrogateescape") for secret in settings.secrets]
    contexts = tls.contexts(secrets, settings.cluster, "balancer")
    await Watch(settings.members, lambda served: told(servers_of(served)), contexts.client).run()


def servers_of(served: Iterable[Served]) -> tuple[ServerAddress, ...]:
    """Members as servers; one that is leaving takes nobody new, by its own health check."""
    servers = []
    for member in served:
        host, port = split(member.address)
        name = "".join(each if each.isalnum() else "." for each in host).strip(".") or "any"
        servers.append(ServerAddress(f"{name}-{port}", host, port))
    return tuple(servers)


def settings_of(arguments: argparse.Namespace) -> BalancerSettings:
    """The settings from the file, if any, then the environment, then the command line."""
    values: dict[str, Any] = read_toml(arguments.config) if arguments.config else {}
    if values.keys().isdisjoint({"secret", "secrets"}) and (secret := os.environ.get(variable("secret"))) is not None:
        values["secret"] = secrets_of(variable("secret"), items(secret))
    if "cluster" not in values and (cluster := os.environ.get(variable("cluster"))) is not None:
        values["cluster"] = cluster
    for name in (
        "listen",
        "algorithm",
        "workers",
        "buffer_requests",
        "health_path",
        "trusted",
        "cluster",
        "affinity",
        *AFFINITY,
    ):
        if (value := getattr(arguments, name)) is not None:
            values[name] = value
    if arguments.member:
        values["members"] = arguments.member
    if arguments.secret is not None:
        values.pop("secrets", None)
        values["secret"] = secrets_of("--secret", items(arguments.secret))
    settings = BalancerSettings.from_mapping(values)
    if arguments.server:
        settings = settings.with_servers(tuple(parse_server(text) for text in arguments.server))
    return settings


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
