"""What one run of the simulation does: every figure and switch of it, drawn from its seed or given.

Swarm testing (Groce et al., ISSTA 2012): each seed switches some kinds of faults and behaviours on and the others off, so
that rare combinations come up which a mix of everything would never show. What is given on top of what was drawn leaves
all other draws alone, so that a run can be made smaller without becoming another one.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final

import msgspec
from msgspec import Struct

from sessile.errors import SettingsError

__all__ = ["BEHAVIOURS", "FAULTS", "Options", "draw", "parse", "rng_of", "shown"]

FAULTS: Final = (
    "delays",
    "losses",
    "partitions",
    "one-way",
    "pauses",
    "crashes",
    "restarts",
    "slow",
    "jumps",
    "joins",
    "drains",
)
"""Every kind of fault. A connection is lost, a process crashes for good or comes back, a clock jumps forward, …"""
BEHAVIOURS: Final = (
    "tabs",
    "bursts",
    "slow-handlers",
    "late-writes",
    "shared-fields",
    "counters",
    "removals",
    "lists",
    "logins",
    "rotations",
    "logouts",
    "thieves",
    "skewed-clocks",
    "collections",
)
"""What browsers and handlers may do besides reading a session and assigning fields of their own."""
ROUTINGS: Final = ("sticky", "round-robin", "random")
STRATEGIES: Final = ("all-to-all", "primary-backup")
_FAULT_CHANCE: Final = 0.3
_CALM_CHANCE: Final = 0.1
_BEHAVIOUR_CHANCE: Final = 0.55
_SHORT_CHANCE: Final = 0.15
"""How often sessions are short, so that they are touched, and expire, while everything else goes on."""
_READERS_CHANCE: Final = 0.6
"""How often nearly all requests only read then: what is written to all the time need not be touched."""
_GLANCES_CHANCE: Final = 0.4
_FORGETFUL_CHANCE: Final = 0.05
_FORGETFUL_MS: Final = 1_500
"""How often, and for how short, ended sessions are remembered, so that silence may last longer."""
_LONGER_MS: Final = 3_000
_HANDSHAKES_CHANCE: Final = 0.3
_HANDSHAKE_MS: Final = 30
"""How often, and for how long at the most, two that are connected may not speak yet, as with TLS."""
_NEWCOMERS_CHANCE: Final = 0.06
"""How often there is one server at first, and others come."""
_THREADS_CHANCE: Final = 0.12
"""How often requests run in threads beside the node's loop, which may then be late alone."""
_STOPS_CHANCE: Final = 0.1
"""How often processes stop for about as long as their peers take to notice."""
_NAPS_CHANCE: Final = 0.04
_NAPS_LONGER_MS: Final = 4_000
"""How often processes stop for longer than answers reach back, and how much longer such runs go on."""
_WATCHES_CHANCE: Final = 0.1
_ROOMS_CHANCE: Final = 0.06
"""How often every second server has room for few sessions only."""
_QUEUES_CHANCE: Final = 0.06
"""How often the queue to each peer is short."""
_LASTING_CHANCE: Final = 0.06
_LASTING_MS: Final = (1_500, 2_500)
"""How often runs have an `afterlife`, and how long tombstones are kept in them."""
_LONG_MS: Final = 4_000
"""How long requests last there at the most, in two of three of these runs."""
READS: Final = 35
READS_OF_READERS: Final = 95


class Options(Struct, frozen=True, kw_only=True):
    """One run. Times are virtual milliseconds."""

    nodes: int = 3
    hosts: int = 3
    """The machines that they run on."""
    strategy: str = "primary-backup"
    copies: int = 2
    directory: bool = False
    ack: str = "one"
    degraded: str = "serve"
    stale: str = "serve"
    routing: str = "round-robin"
    browsers: int = 2
    requests: int = 40
    """So many requests are made at the most, those of the end not counted."""
    reads: int = READS
    """How many of a hundred requests with a session only read it."""
    duration: int = 1_500
    """How long faults and requests go on."""
    latency: int = 2
    """A frame takes no longer, unless a fault is at work."""
    handshake: int = 0
    """So long after a dial has come through the two may speak, at the latest; they may both have dialled by then."""
    fault_every: int = 300
    """One fault in so long, on average."""
    faults: tuple[str, ...] = ()
    behaviours: tuple[str, ...] = BEHAVIOURS
    idle: int = 1_800_000
    grace: int = 300
    tombstones: int = 600_000
    """How long ended sessions are remembered."""
    epilogue: bool = False
    """Whether browsers go on for a while when all has long been well, and nothing excuses anything."""
    glances: bool = False
    """Whether, whenever a server has come, every session is looked at from everywhere at once."""
    threads: bool = False
    """Whether requests run in threads, so that a process's loop may be late while they are served."""
    stops: bool = False
    """Whether pauses last about as long as the peers take to notice."""
    naps: bool = False
    """Whether pauses last longer than answers about ended sessions reach back; whoever wakes up is asked for every session."""
    watches: bool = False
    """Whether every server is asked for each session as soon as its end was answered."""
    rooms: int = 0
    """How many sessions every second server has room for; 0: more than there are."""
    queue: int = 0
    """How many bytes may be outstanding to a peer; 0: as many as by default."""
    late: int = 0
    """A long request writes at most this long after its head; 0: no request is long."""
    afterlife: bool = False
    """Whether every session is looked at once more when the tombstones have been dropped."""
    encore: bool = False
    """Whether one more node is killed when all is quiet, which must lose nothing."""

    def __post_init__(self) -> None:
        """Refuse what no run can be."""
        for name, allowed in (("strategy", STRATEGIES), ("routing", ROUTINGS), ("ack", ("none", "one", "all"))):
            if getattr(self, name) not in allowed:
                raise SettingsError(f"{name}={getattr(self, name)} is none of {', '.join(allowed)}")
        for name, known in (("faults", FAULTS), ("behaviours", BEHAVIOURS)):
            unknown = [each for each in getattr(self, name) if each not in known]
            if unknown:
                raise SettingsError(f"{name}={unknown[0]} is none of {', '.join(known)}")
        for name in ("nodes", "hosts", "copies", "browsers", "duration", "fault_every"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}={getattr(self, name)} is less than 1")

    @property
    def is_forgetful(self) -> bool:
        """Whether silence may last longer than ended sessions are remembered."""
        return self.tombstones < 100_000

    def but(self, **others: Any) -> Options:
        """These options with some of them replaced."""
        return msgspec.structs.replace(self, **others)

    def __str__(self) -> str:
        return ",".join(f"{name}={shown(getattr(self, name))}" for name in self.__struct_fields__)


def rng_of(seed: int, concern: str) -> Random:
    """Chance for one concern of one run: what others draw does not change it, nor does Python's hash seed."""
    return Random(f"{seed}/{concern}")  # noqa: S311  # a simulation is to be repeated


def draw(seed: int) -> Options:
    """The options of a seed."""
    rng = rng_of(seed, "options")
    nodes = rng.choices((1, 2, 3, 4, 5, 6), (2, 18, 42, 22, 10, 6))[0]
    duration = rng.randrange(500, 2_000)
    is_calm = rng.random() < _CALM_CHANCE
    faults = tuple(kind for kind in FAULTS if rng.random() < _FAULT_CHANCE and not is_calm)
    behaviours = tuple(kind for kind in BEHAVIOURS if rng.random() < _BEHAVIOUR_CHANCE)
    drawn = Options(
        nodes=nodes,
        hosts=max(1, nodes - rng.randrange(3)),
        strategy=rng.choices(STRATEGIES, (4, 6))[0],
        copies=rng.choices((2, 3), (8, 2))[0],
        directory=rng.random() < 0.3,
        ack=rng.choices(("none", "one", "all"), (1, 7, 2))[0],
        degraded=rng.choices(("serve", "refuse"), (3, 1))[0],
        stale=rng.choices(("serve", "refuse"), (3, 1))[0],
        routing=rng.choice(ROUTINGS),
        browsers=rng.choices((1, 2, 3), (3, 4, 3))[0],
        requests=rng.randrange(10, 60),
        duration=duration,
        latency=rng.choice((1, 2, 5)),
        fault_every=rng.choice((100, 200, 400, 800)),
        faults=faults,
        behaviours=behaviours,
        idle=min(rng.choices((1_800_000, 2_000), (9, 1))[0], _idle(seed)),
        grace=rng.choice((0, 100, 1_000)),
        epilogue=rng.random() < 0.3,
        encore=rng.random() < 0.15,
    )
    # What came later is of chance of its own, so that it left what older seeds found as it was.
    glances = rng_of(seed, "glances").random() < _GLANCES_CHANCE
    drawn = drawn.but(glances=glances, reads=READS if drawn.idle > 100_000 else _reads(seed))
    if rng_of(seed, "handshakes").random() < _HANDSHAKES_CHANCE:
        drawn = drawn.but(handshake=_HANDSHAKE_MS)
    if rng_of(seed, "newcomers").random() < _NEWCOMERS_CHANCE:
        drawn = _with_newcomers(drawn)
    is_forgetful = drawn.idle > 100_000 and rng_of(seed, "keeps").random() < _FORGETFUL_CHANCE
    return _hardened(seed, _forgetful(drawn) if is_forgetful else drawn)


def _hardened(seed: int, drawn: Options) -> Options:
    """Add options for faults that were first found outside the simulation, each drawn by a generator of its own."""
    if rng_of(seed, "threads").random() < _THREADS_CHANCE:
        drawn = drawn.but(threads=True)
    if rng_of(seed, "stops").random() < _STOPS_CHANCE:
        drawn = drawn.but(stops=True, faults=tuple(kind for kind in FAULTS if kind in {*drawn.faults, "pauses"}))
    if drawn.threads or drawn.stops or rng_of(seed, "watches").random() < _WATCHES_CHANCE:
        drawn = drawn.but(watches=True)
    rooms = rng_of(seed, "rooms")
    if rooms.random() < _ROOMS_CHANCE:
        drawn = drawn.but(rooms=rooms.randrange(1, 6))
    queues = rng_of(seed, "queues")
    if queues.random() < _QUEUES_CHANCE:
        drawn = drawn.but(queue=queues.choice((200, 500, 2_000)))
    lasting = rng_of(seed, "lasting")
    if drawn.idle > 100_000 and lasting.random() < _LASTING_CHANCE:
        return _lasting(drawn, lasting)
    if not drawn.is_forgetful and rng_of(seed, "naps").random() < _NAPS_CHANCE:
        return _with_naps(drawn)
    return drawn


def _with_naps(options: Options) -> Options:
    """Where sessions end while a process is stopped for long, and nothing else excuses who serves them."""
    return options.but(
        naps=True,
        duration=options.duration + _NAPS_LONGER_MS,
        requests=options.requests * 2,
        faults=("pauses",),
    )


def _lasting(options: Options, rng: Random) -> Options:
    """Options of a run whose sessions live much longer than tombstones are kept, and are looked at again after that."""
    return options.but(
        tombstones=rng.randrange(*_LASTING_MS),
        grace=min(options.grace, 100),
        late=rng.choice((0, _LONG_MS, _LONG_MS)),
        afterlife=True,
        behaviours=tuple(kind for kind in BEHAVIOURS if kind in {*options.behaviours, "logouts"}),
    )


def _with_newcomers(options: Options) -> Options:
    """Where a server that comes has one other to ask, and is asked itself before it knows anything."""
    return options.but(
        nodes=1,
        handshake=_HANDSHAKE_MS,
        glances=True,
        faults=tuple(kind for kind in FAULTS if kind in {*options.faults, "joins"}),
    )


def _forgetful(options: Options) -> Options:
    """Where ended sessions are not remembered for long; partitions that last longer come as well.

    Sessions are long there: of one that lives shorter than the ends of others are remembered, the larger side's copies may
    have run out of time while it was used on the smaller one, which starts over.
    """
    return options.but(
        tombstones=_FORGETFUL_MS,
        grace=min(options.grace, 100),
        duration=options.duration + _LONGER_MS,
        requests=options.requests * 2,
        faults=tuple(kind for kind in FAULTS if kind in {*options.faults, "partitions"}),
    )


def _reads(seed: int) -> int:
    """How much is read where sessions are short."""
    return READS_OF_READERS if rng_of(seed, "readers").random() < _READERS_CHANCE else READS


def _idle(seed: int) -> int:
    """The idle timeout of a seed; of chance of its own, so that it left what older seeds found as it was."""
    return 2_000 if rng_of(seed, "short").random() < _SHORT_CHANCE else 1_800_000


def parse(text: str, onto: Options) -> Options:
    """These options with those of a text like `nodes=3,faults=crashes+pauses` replaced.

    Raises:
        SettingsError: the text names what is no option, or gives it what it cannot be.
    """
    given: dict[str, object] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        if name not in onto.__struct_fields__:
            raise SettingsError(f"{name!r} is no option of a run; there are {', '.join(onto.__struct_fields__)}")
        given[name] = _read(name, value, getattr(onto, name))
    return onto.but(**given)


def shown(value: object) -> str:
    """A value as `parse` reads it."""
    if isinstance(value, tuple):
        return "+".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(name: str, value: str, like: object) -> object:
    if isinstance(like, tuple):
        return tuple(filter(None, value.split("+")))
    if isinstance(like, bool):
        if value not in {"true", "false"}:
            raise SettingsError(f"{name}={value} is neither true nor false")
        return value == "true"
    if isinstance(like, int):
        try:
            return int(value)
        except ValueError:
            raise SettingsError(f"{name}={value} is no whole number") from None
    return value
