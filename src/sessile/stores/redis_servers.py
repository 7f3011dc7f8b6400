"""Which server of Redis or Valkey holds a session: the one that there is, the one that Sentinels name, or a cluster's.

Each kind knows its primaries, forgets them when they fail, and finds the new ones when it is next asked.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from hashlib import blake2b
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Final, Protocol

from sessile.forks import dropped_by
from sessile.stores.redis_links import (
    UNWAITED,
    Answer,
    Check,
    LinkLost,
    Links,
    Wait,
    code_of,
    info_of,
    is_setup,
    reason_of,
)
from sessile.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from sessile.stores.redis_links import Command

    Dial = Callable[[str, int], Callable[[], Any]]
    """Makes, for a host and a port, what makes connections to it."""
    IsAnswer = Callable[[Sequence[bytes], Any], bool]
    """Whether a reply belongs to a command about these keys."""

__all__ = ["Cluster", "Sentinels", "Servers", "Single"]

_RANDOM: Final = SystemRandom()
Host = tuple[str, int]
REDIRECTS_MAX: Final = 5
ASKED_MAX: Final = 8
"""So many nodes are asked for the map at once; the first answer counts."""
KEYS_AT_ONCE: Final = 200
"""So many keys in one command: nobody else is served meanwhile."""
_WHO: Final = ("INFO", "server")
STRAGGLERS_S: Final = 0.1
"""Once a Sentinel has answered, the others are waited for so long: one of them may know of a later failover."""


class Servers(Protocol):
    """The servers of one store. Whatever fails may be tried again, and finds the primary of that moment."""

    is_one: bool
    """Whether one primary holds everything."""

    async def trip(
        self,
        key: bytes | None,
        commands: Sequence[Command],
        wait: Wait = UNWAITED,
        is_answered: Check | None = None,
    ) -> Answer:
        """Replies of the primary that holds this key, or of any; after a failover it is the new one.

        Args:
            key: the key that the commands are about, or None.
            commands: the commands to send, over one connection.
            wait: how many replicas must have the writes.
            is_answered: whether the replies belong to these commands; if not, the connection is closed.

        Raises:
            LinkLost: it does not work, nor does another in its place.
        """

    async def each(
        self, keys: Sequence[bytes], command: Callable[[Sequence[bytes]], Command], is_answer: IsAnswer
    ) -> list[Any]:
        """Replies to one command about these keys, made into as many as it takes. Raises LinkLost."""

    async def links(self, key: bytes | None) -> Links:
        """Connections to the primary that holds this key, or to any. Raises LinkLost."""

    async def primaries(self) -> list[tuple[Links, bytes]]:
        """The connections to each primary, and a text that puts a name into one of its slots. Raises LinkLost."""

    async def is_current(self) -> bool:
        """Whether the primaries are still the ones that are asked. Raises LinkLost if that cannot be found out."""

    async def identity(self) -> str:
        """Who the primaries are: another text after a failover, or after one of them was started anew. Raises LinkLost."""

    async def doubt(self) -> None:
        """Find out anew who the primaries are: something did not answer in time."""

    async def close(self) -> None:
        """Close every connection."""


@dropped_by("RedisStore", "a child connects anew")
class Single:
    """One server.

    Args:
        make: makes a connection to it.
    """

    is_one = True

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._links: Links | None = None
        self._finding = asyncio.Lock()
        self._replicas_seen_s = 0.0

    async def trip(
        self,
        key: bytes | None,
        commands: Sequence[Command],
        wait: Wait = UNWAITED,
        is_answered: Check | None = None,
    ) -> Answer:
        for is_last in (False, True):
            links = await self.links(key)
            try:
                answer = await links.trip(commands, wait, is_answered)
            except LinkLost:
                await self._forget(links)
                if is_last:
                    raise
            else:
                if not is_any(answer.replies, "READONLY"):
                    break
                await self._forget(links)
        return answer

    async def each(
        self, keys: Sequence[bytes], command: Callable[[Sequence[bytes]], Command], is_answer: IsAnswer
    ) -> list[Any]:
        batches = list(_batched(keys))
        commands = [command(some) for some in batches]
        return (
            await self.trip(None, commands, is_answered=lambda replies: all(map(is_answer, batches, replies)))
        ).replies

    async def links(self, key: bytes | None) -> Links:
        del key
        if self._links is None:
            async with self._finding:  # once for all who ask
                self._links = self._links or await self._find()
        return self._links

    async def primaries(self) -> list[tuple[Links, bytes]]:
        return [(await self.links(None), b"")]

    async def is_current(self) -> bool:
        """Always: there is one server."""
        return True

    async def identity(self) -> str:
        return _run_id(await self.trip(None, [_WHO]))

    async def doubt(self) -> None:
        if self._links is not None:
            await self._forget(self._links)

    async def close(self) -> None:
        await self.doubt()

    async def _find(self) -> Links:
        return Links(self._make, replicas_seen_s=self._replicas_seen_s)

    async def _forget(self, links: Links) -> None:
        """Forget these, unless somebody else has done so and there are new ones."""
        if links is self._links:
            self._links = None
            self._replicas_seen_s = links.replicas_seen_s
        await links.close()


class Sentinels(Single):
    """The primary of a name that Sentinels watch over.

    Args:
        dial: makes connections to a server with data.
        sentinels: connections to each Sentinel.
        name: what they call the primary.
    """

    def __init__(self, dial: Dial, sentinels: Sequence[Links], name: str) -> None:
        super().__init__(lambda: None)
        self._dial = dial
        self._sentinels = sentinels
        self._name = name
        self._primary: Host | None = None

    async def is_current(self) -> bool:
        """Whether the Sentinels still name this primary."""
        primary, _ = await self._discover()
        return primary == self._primary

    async def identity(self) -> str:
        """By the Sentinels as of now: a primary that is cut off from them still believes that it is one."""
        primary, _ = await self._discover()
        if primary != self._primary:
            await self.doubt()
        return await super().identity()

    async def close(self) -> None:
        await super().close()
        for links in self._sentinels:
            await links.close()

    async def _find(self) -> Links:
        primary, replicas = await self._discover()
        links = Links(self._dial(*primary))
        self._primary = primary
        if replicas:
            links.expect_replicas()
        return links

    async def _discover(self) -> tuple[Host, int]:
        """The primary of the latest failover that a Sentinel knows of, and how many replicas it is known to have had."""
        answers = await answers_of([self._ask(links) for links in self._sentinels], stragglers_s=STRAGGLERS_S)
        _, primary, replicas = max(answers)
        return primary, replicas

    async def _ask(self, links: Links) -> tuple[int, Host, int]:
        """What one Sentinel says: the epoch of the last failover, the primary, and its replicas."""
        name = self._name
        asked = [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name), ("SENTINEL", "MASTER", name)]
        replies = (await links.trip(asked)).replies
        for reply in replies:
            if isinstance(reply, Exception):
                raise LinkLost(f"has a Sentinel that {reason_of(reply)}", is_setup=is_setup(reply)) from reply
        address, state = replies
        if address is None:
            raise LinkLost("is not known to its Sentinels by this name: correct it in the URL", is_setup=True)
        said = dict(zip(state[::2], state[1::2], strict=True)) if isinstance(state, list) else state
        return int(said[b"config-epoch"]), (address[0].decode(), int(address[1])), int(said[b"num-slaves"])


@dropped_by("RedisStore", "a child connects anew")
class Cluster:
    """A cluster's primaries, by slot.

    Args:
        dial: makes connections to a node.
        seeds: nodes to begin with.
    """

    is_one = False

    def __init__(self, dial: Dial, seeds: Sequence[Host]) -> None:
        from redis.crc import key_slot  # noqa: PLC0415  # an extra

        self._slot_of = key_slot
        self._dial = dial
        self._seeds = seeds
        self._nodes: dict[Host, Links] = {}
        self._askers: dict[Host, Links] = {}
        """Connections to any node, a replica's too, to ask for the map."""
        self._known: dict[Host, None] = {}
        """Every node of the last map."""
        self._slots: list[tuple[int, int, Host]] = []
        """First slot, last slot, and who is their primary."""
        self._mapping = asyncio.Lock()

    async def trip(
        self,
        key: bytes | None,
        commands: Sequence[Command],
        wait: Wait = UNWAITED,
        is_answered: Check | None = None,
    ) -> Answer:
        host, is_asking, is_lost = None, False, False
        for _ in range(REDIRECTS_MAX):
            links = self._node(host) if host else await self.links(key)
            try:
                if is_asking:
                    answer = await links.trip([("ASKING",), *commands], wait, _after_asking(is_answered))
                else:
                    answer = await links.trip(commands, wait, is_answered)
            except LinkLost:
                await self._forget(links)
                if is_lost:
                    raise
                host, is_asking, is_lost = None, False, True
                continue
            replies = answer.replies[1:] if is_asking else answer.replies
            if is_any(replies, "READONLY") or is_any(replies, "CLUSTERDOWN"):
                self._slots = []
            host, is_asking = redirect(replies), is_any(replies, "ASK")
            if host is None:
                return Answer(replies, answer.is_acknowledged, answer.since_s)
            if not is_asking:
                self._slots = []  # the map is old; this trip goes where it was told to
        raise LinkLost("is a cluster whose nodes send us from one to the other")

    async def each(
        self, keys: Sequence[bytes], command: Callable[[Sequence[bytes]], Command], is_answer: IsAnswer
    ) -> list[Any]:
        by_node: dict[Links, list[bytes]] = defaultdict(list)
        for key in keys:
            by_node[await self.links(key)].append(key)
        batches = [(links, some) for links, all_ in by_node.items() for some in _batched(all_)]
        replies = await asyncio.gather(*(self._each_on(links, some, command, is_answer) for links, some in batches))
        return list(itertools.chain(*replies))

    async def links(self, key: bytes | None) -> Links:
        if not self._slots:
            await self._map()
        slot = 0 if key is None else self._slot_of(key)
        for first, last, host in self._slots:
            if key is None or first <= slot <= last:
                return self._node(host)
        raise LinkLost("is a cluster that is down: not every part of it has a primary")

    async def primaries(self) -> list[tuple[Links, bytes]]:
        if not self._slots:
            await self._map()
        return [(self._node(host), self._tag(host)) for host in sorted({host for _, _, host in self._slots})]

    async def is_current(self) -> bool:
        """Whether the map of slots is still the same: a replaced primary refuses writes to its former slots by itself."""
        return True

    async def identity(self) -> str:
        self._slots = []
        await self._map()
        primaries = sorted({host for _, _, host in self._slots})
        answers = await asyncio.gather(*(self._node(host).trip([_WHO]) for host in primaries))
        run_ids = sorted(map(_run_id, answers))
        return blake2b(" ".join(run_ids).encode(), digest_size=20).hexdigest()

    async def doubt(self) -> None:
        self._slots = []

    async def close(self) -> None:
        for links in (*self._nodes.values(), *self._askers.values()):
            await links.close()

    async def _each_on(
        self,
        links: Links,
        keys: Sequence[bytes],
        command: Callable[[Sequence[bytes]], Command],
        is_answer: IsAnswer,
    ) -> list[Any]:
        """One command for each key, on one node; those that it does not take go where they belong."""
        alone = [[key] for key in keys]
        try:
            replies = (
                await links.trip(
                    [command(key) for key in alone],
                    is_answered=lambda replies: all(map(is_answer, alone, replies)),
                )
            ).replies
        except LinkLost:
            await self._forget(links)
            replies = [LinkLost()] * len(keys)
        for at, key in enumerate(keys):
            if isinstance(replies[at], LinkLost) or redirect([replies[at]]):
                (replies[at],) = (await self.trip(key, [command([key])])).replies
        return replies

    def _tag(self, host: Host) -> bytes:
        """A text that, between braces, puts a name into a slot of this primary."""
        for number in itertools.count():
            tag = b"{%d}" % number
            slot = self._slot_of(tag)
            if any(first <= slot <= last and host == primary for first, last, primary in self._slots):
                return tag
        raise AssertionError("every primary of the map has slots")

    def _node(self, host: Host) -> Links:
        links = self._nodes.get(host)
        if links is None:
            links = self._nodes[host] = Links(self._dial(*host))
        return links

    async def _forget(self, links: Links) -> None:
        """Forget one node, and ask for the map again."""
        self._slots = []
        for host, known in list(self._nodes.items()):
            if known is links:
                del self._nodes[host]
        await links.close()

    async def _forget_all_but(self, primaries: set[Host], nodes: set[Host]) -> None:
        """Close the connections to nodes that have left the cluster."""
        for links_of, stay in ((self._nodes, primaries), (self._askers, nodes)):
            for host in links_of.keys() - stay:
                await links_of.pop(host).close()

    async def _map(self) -> None:
        """Ask for the map, everybody who is known; the first answer counts."""
        async with self._mapping:
            if self._slots:
                return
            hosts = list(dict.fromkeys([*self._known, *self._seeds]))
            asked = _RANDOM.sample(hosts, min(len(hosts), ASKED_MAX))
            (slots, *_) = await answers_of([self._ask(host) for host in asked], stragglers_s=0)
            self._slots = [(first, last, primary) for first, last, primary, *_ in slots]
            self._known = dict.fromkeys(host for _, _, *hosts in slots for host in hosts)
            await self._forget_all_but({host for _, _, host in self._slots}, {*self._known, *self._seeds})
            for _, _, primary, *replicas in slots:
                if replicas:
                    self._node(primary).expect_replicas()

    async def _ask(self, host: Host) -> list[tuple[Any, ...]]:
        """The map as one node knows it: first slot, last slot, the primary, and its replicas."""
        if host not in self._askers:
            self._askers[host] = Links(self._dial(*host), must_be_primary=False)
        (reply,) = (await self._askers[host].trip([("CLUSTER", "SLOTS")])).replies
        if isinstance(reply, Exception):
            raise LinkLost(reason_of(reply), is_setup=is_setup(reply)) from reply
        if not reply:
            raise LinkLost("is a cluster that is down: not every part of it has a primary")
        return [
            (first, last, *((node[0].decode() if node[0] else host[0], node[1]) for node in nodes))
            for first, last, *nodes in reply
        ]


def _after_asking(is_answered: Check | None) -> Check | None:
    """The same check without the first reply, which answers ASKING."""
    return None if is_answered is None else lambda replies: is_answered(replies[1:])


def _run_id(answer: Answer) -> str:
    """What the server that answered `_WHO` calls its present life."""
    return info_of(answer.replies[0]).get("run_id", "unknown")


def is_any(replies: Iterable[Any], code: str) -> bool:
    """Whether one of the replies is this refusal."""
    return any(isinstance(reply, Exception) and code_of(reply) == code for reply in replies)


def redirect(replies: Sequence[Any]) -> Host | None:
    """Where a node of a cluster says that the key is, or is about to be."""
    for reply in replies:
        if isinstance(reply, Exception) and code_of(reply) in {"MOVED", "ASK"}:
            host, _, port = str(reply).split()[-1].rpartition(":")
            return host, int(port)
    return None


async def answers_of(questions: Iterable[Coroutine[Any, Any, Any]], *, stragglers_s: float) -> list[Any]:
    """The first answer, and those that come soon after it.

    Raises:
        LinkLost: there was none; what the last of them met with.
    """
    pending = {asyncio.create_task(question) for question in questions}
    tasks = list(pending)
    answers: list[Any] = []
    lost = LinkLost("has no servers")
    try:
        while pending:
            timeout_s = stragglers_s if answers else None
            done, pending = await asyncio.wait(pending, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None:
                    answers.append(task.result())
                elif isinstance(error, LinkLost):
                    lost = error
                else:
                    raise error
            if answers and not done:
                break
    finally:
        await end_tasks(tasks)
    if not answers:
        raise lost
    return answers


def _batched(keys: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    return [keys[at : at + KEYS_AT_ONCE] for at in range(0, len(keys), KEYS_AT_ONCE)]
