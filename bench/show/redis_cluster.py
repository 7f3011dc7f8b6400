"""`redis-cluster`: one of three masters of a Redis Cluster is killed under load; its replica takes over, and nobody notices.

Three servers with `ack=one` and three with `ack=none` work on one store, and beside them writers with nothing but redis-py.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from bench.browser import HOST
from bench.redis_group import LOOK_AGAIN_S, START_S, redis_cluster
from bench.show import Figure, Progress, Shown
from bench.show.sentinel import Found, finish, judge
from bench.stored import NOTES, PLAIN_TIMEOUT_S, Plain, at_home, servers_on
from bench.unharmed import named, wrongs

if TYPE_CHECKING:
    from bench.redis_group import Node, RedisCluster

SUMMARY = (
    "One of three masters of a Redis Cluster is killed: nothing acknowledged is lost, no repeatable request fails."
)
PROGRAMS = ("redis-server",)

USERS: Final = 60
"""Of either three servers."""
SERVERS: Final = 3
BEFORE_S: Final = 3.0
DEAD_S: Final = 10.0
AFTER_S: Final = 10.0


async def until_replaced(group: RedisCluster, dead: Node) -> bool:
    """Wait until there are as many masters as before; False if that does not come."""
    deadline_s = time.monotonic() + START_S
    while len([node for node in await group.masters() if node is not dead]) < len(group.nodes) // 2:
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(LOOK_AGAIN_S)
    return True


def plain_writers(group: RedisCluster) -> Plain:
    """Writers with redis-py alone."""
    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.cluster import RedisCluster as Client

    timeouts: dict[str, Any] = {"socket_timeout": PLAIN_TIMEOUT_S, "socket_connect_timeout": PLAIN_TIMEOUT_S}
    return Plain(Client(startup_nodes=[ClusterNode(HOST, node.port) for node in group.nodes], **timeouts))


async def play(progress: Progress) -> Found:
    """A cluster, its servers, their users, and the kill."""
    found = Found()
    async with (
        redis_cluster() as group,
        servers_on(f"{group.url}?ack=one&cluster=one", SERVERS) as one,
        servers_on(f"{group.url}?ack=none&cluster=none", SERVERS) as none,
    ):
        plain = plain_writers(group)
        async with at_home(one.ports, USERS) as crowd, at_home(none.ports, USERS) as other:
            plain.begin()
            await asyncio.sleep(BEFORE_S)
            progress("one master is killed")
            until_s = time.monotonic() + DEAD_S
            dead = (await group.masters())[0]
            await dead.kill()
            found.has_moved = await until_replaced(group, dead)
            await asyncio.sleep(max(until_s - time.monotonic(), 0))
            progress("it is started again")
            await dead.run()
            await asyncio.sleep(AFTER_S)
        found.plain_acknowledged, found.plain_refused = len(plain.acknowledged), plain.refused
        found.plain_lost = await plain.end()
        for side, servers, those in ((found.one, one, crowd), (found.none, none, other)):
            side.users = those.users
            await finish(side, servers)
            await those.look_at(servers.ports)
    return found


def run(progress: Progress) -> Shown:
    """Kill the master, and judge what users were told and what the store holds."""
    found = asyncio.run(play(progress))
    figures: list[Figure] = named("master killed", judge(found, must_plain_lose=False))
    notes = [
        "three masters and three replicas, node timeout 1.5 s, made by `redis-cli --cluster create`; no persistence",
        f"servers are started as the demo starts them, without a balancer; the master is started again after {DEAD_S:g} s",
        "redis-py: four writers, a SET of a new key each time, never sent twice",
        *NOTES,
        *wrongs("ack=one", found.one.users),
    ]
    return Shown("redis-cluster", figures, notes)
