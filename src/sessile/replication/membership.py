"""Which members there are, and how each of them is in this node's own judgement.

Theory of operation. The *list* says who is a member: name, host, incarnation, stage. It spreads through any member and is
merged: the higher incarnation counts, then the higher stage. How a member *is*, its `Standing`, is never taken from
others: only a node's own link to it, heard from or silent, speaks for it. A link that is silent until its member counts
as dead is hung up, so whoever comes back greets, and then it shows for how long it was silent.

Known members without a link are dialled, by the smaller name first; the other side gives it a moment, then dials too. Of
two links between a pair both ends keep the one that the smaller name dialled. Addresses that discovery names are dialled
until somebody greets there, and are the second name of who did. Pure: time and chance are arguments.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from sessile.replication.dials import Dials
from sessile.replication.member import (
    BY_STAGE,
    HERE,
    NAME_CHARS_MAX,
    NEVER_MS,
    Change,
    Greeting,
    Member,
    Stage,
    Standing,
    Timings,
    is_sane,
)
from sessile.replication.placement import Place

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from random import Random

    from sessile.replication.messages import MemberInfo

__all__ = ["MEMBERS_MAX", "Change", "Greeting", "Membership", "Standing", "Steps", "Timings", "Unlinked"]

MEMBERS_MAX: Final = 1024
READ_AGAIN_MS: Final = 5
"""A member that seems silent is judged this much later, when everything that has arrived by now has been read."""


class Steps(NamedTuple):
    """What is to be done now."""

    dial: tuple[str, ...] = ()
    hang_up: tuple[int, ...] = ()
    """Links that were silent for too long; the membership has forgotten them already."""


_NOTHING: Final = Steps()


class Unlinked(NamedTuple):
    """Somebody to whom a link is wanted, and there is none."""

    address: str
    """Where it is dialled."""
    standing: Standing | None
    """How the member is; None where nobody has greeted at this address."""
    is_named: bool
    """Whether discovery names it now."""

    @property
    def is_met(self) -> bool:
        """Whether this node has ever been linked to it, as far as it knows."""
        return self.standing is not None and self.standing is not Standing.UNKNOWN


class Membership:
    """The members as one node sees them.

    Args:
        me: this node.
        timings: when silence means what.
        rng: spreads dials that would otherwise come all at once.
    """

    def __init__(self, me: MemberInfo, timings: Timings, rng: Random) -> None:
        self.me = me
        """This node, in its present incarnation."""
        self.counts: Counter[str] = Counter()
        self._timings = timings
        self._members: dict[str, Member] = {}
        self._by_link: dict[int, Member] = {}
        self._dials = Dials(rng)
        self._named: dict[str, None] = {}
        """The addresses that discovery names, in its order."""
        self._owners: dict[str, str] = {}
        """Address that discovery names → whoever greeted there, if it goes by another name."""
        self._changes: list[Change] = []
        self._silent: list[int] = []
        self._placeable: tuple[Place, ...] | None = None
        self._is_news = False
        self._highest_of_me = me.incarnation
        self._refuted_ms = -NEVER_MS
        self._now_ms = self._read_ms = 0
        self._due_ms = NEVER_MS
        """Nothing is to be done before."""

    # -- what happened -----------------------------------------------------------------------------------------------

    def find(self, addresses: Iterable[str], now_ms: int) -> None:
        """Discovery names these addresses, and no others any more."""
        self._pass(now_ms)
        short = (one for one in list(addresses)[:MEMBERS_MAX] if len(one) <= NAME_CHARS_MAX)
        self._named = dict.fromkeys(one for one in short if one != self.me.name)
        self._owners = {address: name for address, name in self._owners.items() if address in self._named}
        for member in self._members.values():
            if member.address not in self._named:
                member.address = member.info.name
            member.was_named = member.was_named or self._is_named(member)
        self._prune()
        self._hurry()

    def greet(self, link: int, info: MemberInfo, *, address: str, now_ms: int) -> Greeting:
        """Somebody greeted on a link; `address` is what this node dialled for it, empty where the other side did."""
        self._pass(now_ms)
        self._hurry()
        reason, remedy = self._refusal(info, address)
        if not reason and info.name not in self._members and not self._add(info):
            reason, remedy = "there are too many members", f"a cluster has at most {MEMBERS_MAX}"
        if reason:
            if address:
                self._dials.failed(address, now_ms)
            return Greeting(reason, remedy=remedy)
        member = self._members[info.name]
        if address:
            self._dials.succeeded(address)
            self._claim(address, info.name)
        replaced = member.link
        is_restarted = member.greeted is not None and (
            info.incarnation > member.greeted
            or (info.incarnation < member.greeted and replaced is None)  # its clock was set back; the list raises it
        )
        if replaced is not None and not is_restarted and not self._prefers_new(member, is_dialler=bool(address)):
            return Greeting("there is another link already")
        self._take_info(member, info)
        is_new, member.greeted = member.greeted != info.incarnation, info.incarnation
        self._unlink(member)
        self._by_link[link] = member
        member.link, member.is_dialler = link, bool(address)
        member.up_ms = member.since_ms = now_ms
        member.is_confirmed = False
        self._settle(member, BY_STAGE[Stage(member.info.stage)])
        return Greeting("", replaced, is_restarted, is_new, now_ms - member.heard_ms, member.is_met)

    def heard(self, link: int, now_ms: int) -> None:
        """Something arrived on a link; one that was refused or replaced says nothing."""
        self._pass(now_ms)
        member = self._by_link.get(link)
        if member is not None:
            member.heard_ms = member.since_ms = now_ms
            member.is_met = True
            if member.standing is Standing.SUSPECT:
                self._settle(member, Standing.ALIVE)

    def link_down(self, link: int, now_ms: int) -> None:
        """A link is gone; one that never greeted, was refused or replaced is no loss."""
        self._pass(now_ms)
        member = self._by_link.get(link)
        if member is None:
            return
        self._unlink(member)
        member.since_ms = now_ms
        is_brief = now_ms - member.up_ms < self._timings.dead_after_ms
        # The smaller name dials. If it cannot, the other one wants to know soon whether anybody listens there still.
        patience_ms = 0 if self.me.name < member.info.name else self._timings.return_ms // 4
        self._dials.lost(member.address, now_ms, is_brief=is_brief, patience_ms=patience_ms)
        self._hurry()

    def dial_failed(self, address: str, is_refused: bool, now_ms: int) -> None:  # noqa: FBT001  # as the event has it
        """No link came of a dial. `is_refused`: nobody listens there, so the process is gone."""
        self._pass(now_ms)
        self._dials.failed(address, now_ms, is_refused=is_refused)
        member = self._members.get(self._owners.get(address, address))
        if is_refused and member is not None and member.link is None:
            member.is_confirmed = True
            if member.standing in HERE:
                self._settle(member, Standing.DEAD)
        self._hurry()

    def merge(self, infos: Iterable[MemberInfo], now_ms: int) -> bool:
        """Take over what another member's list says.

        Returns:
            Whether this node's list has changed since it was last asked, and must be passed on: `take_news`.
        """
        self._pass(now_ms)
        for info in infos:
            if not is_sane(info):
                self.counts["refused_members"] += 1
            elif info.name == self.me.name:
                self._consider_myself(info)
            elif info.name in self._members:
                self._take_info(self._members[info.name], info)
            elif info.stage != Stage.GONE:  # of one that is gone there is nothing to know
                self._add(info)
        self._hurry()
        return self.take_news()

    def said_goodbye(self, name: str, now_ms: int) -> None:
        """A member goes for good."""
        self._pass(now_ms)
        member = self._members.get(name)
        if member is not None:
            self._take_info(member, replace(member.info, stage=Stage.GONE))
            self._hurry()

    def leave(self) -> None:
        """This node is about to go: it holds nothing any more, and says so."""
        self._announce(self._highest_of_me, Stage.LEAVING)

    def renew(self, side: Collection[str]) -> None:
        """This node dropped its table, and takes over what these hold: it is as near to them, and as far from others.

        Until they are in another incarnation, nobody else counts as heard, however lately this node did. These are dialled
        at once, whatever came of it before: were that late, the node would have to start over again.
        """
        self._announce(self._highest_of_me + 1, Stage(self.me.stage))
        for member in self._members.values():
            member.heard_ms = -NEVER_MS
            member.is_met = False
            if member.info.name in side:
                member.heard_ms = self._now_ms
                self._dials.lost(member.address, self._now_ms, is_brief=False)
        self._hurry()

    def tick(self, now_ms: int, read_ms: int | None = None) -> Steps:
        """Judge silent members, and return which addresses to dial; costs next to nothing while there is nothing to do.

        Args:
            now_ms: the time.
            read_ms: everything that arrived before this time has been handled; None: everything that arrived before now.
                Silence counts only up to then. Otherwise a late loop of this node would look like silence of its peers.
        """
        self._pass(now_ms)
        if now_ms < self._due_ms:
            return _NOTHING
        self._read_ms = now_ms if read_ms is None else read_ms
        judged_ms = min((self._judge(member) for member in list(self._members.values())), default=NEVER_MS)
        wanted = [address for address, _ in self._targets()]
        dialled = self._dials.start(wanted, now_ms)
        if judged_ms <= now_ms:
            judged_ms = now_ms + READ_AGAIN_MS
        self._due_ms = min(judged_ms, self._dials.next_ms(wanted, NEVER_MS))
        silent, self._silent = self._silent, []
        return Steps(dialled, tuple(silent))

    # -- what is so --------------------------------------------------------------------------------------------------

    def next_wakeup(self, now_ms: int) -> int | None:
        """When to call `tick`, at the latest."""
        return None if self._due_ms == NEVER_MS else max(self._due_ms, now_ms)

    def standing(self, name: str) -> Standing:
        """How a member is; of one nobody has heard of, nothing is known."""
        if name == self.me.name:
            return BY_STAGE[Stage(self.me.stage)]
        member = self._members.get(name)
        return Standing.UNKNOWN if member is None else member.standing

    def is_confirmed_dead(self, name: str) -> bool:
        """Whether a member is gone for certain: it left, nobody listens there, or what it has is too old to be used."""
        member = self._members.get(name)
        return member is not None and member.is_confirmed

    def link_of(self, name: str) -> int | None:
        member = self._members.get(name)
        return None if member is None else member.link

    def name_of(self, link: int) -> str | None:
        member = self._by_link.get(link)
        return None if member is None else member.info.name

    def placeable(self) -> tuple[Place, ...]:
        """Who may hold sessions, by name; the same object while nothing changed."""
        if self._placeable is None:
            infos = [
                member.info
                for member in self._members.values()
                if member.standing in {Standing.ALIVE, Standing.SUSPECT}
            ]
            if self.me.stage == Stage.PRESENT:
                infos.append(self.me)
            self._placeable = tuple(sorted(Place(info.name, info.host) for info in infos))
        return self._placeable

    def linked(self) -> tuple[str, ...]:
        """The members to which a link is up."""
        return tuple(member.info.name for member in self._by_link.values())

    def known(self) -> tuple[str, ...]:
        """The members that are there as far as can be told: alive, suspect or leaving."""
        return tuple(name for name, member in self._members.items() if member.standing in HERE)

    def unlinked(self) -> tuple[Unlinked, ...]:
        """Members and named addresses to which this node has no link, and which have not left."""
        return tuple(
            Unlinked(address, None, is_named=True)
            if member is None
            else Unlinked(address, member.standing, is_named=self._is_named(member))
            for address, member in self._targets()
        )

    def linked_at(self) -> frozenset[str]:
        """The addresses and names of the members to which a link is up."""
        at = {name for member in self._by_link.values() for name in (member.info.name, member.address)}
        at.update(address for address, name in self._owners.items() if name in at)
        return frozenset(at)

    @property
    def named(self) -> int:
        """How many addresses of others discovery names, each member once."""
        return len({self._owners.get(address, address) for address in self._named} - {self.me.name})

    def has_missing(self, now_ms: int) -> bool:
        """Whether somebody may be linked in a moment: a link just closed, or a first dial has not come to its end."""
        for member in self._members.values():
            if member.link is None and member.standing in HERE and now_ms < member.since_ms + self._timings.return_ms:
                return True
        return any(
            self._dials.is_untried(address)
            for address, member in self._targets()
            if member is None or member.standing is Standing.UNKNOWN
        )

    def is_complete(self) -> bool:
        """Whether everybody who may hold something can be asked: all others are gone for certain."""
        return all(member.link is not None or member.is_confirmed for member in self._members.values()) and all(
            self._dials.is_refused(address) for address in self._strangers()
        )

    def is_whole(self) -> bool:
        """Whether no unreachable member may come back: each is linked or has left, and each address belongs to a member."""
        return all(
            member.link is not None or member.standing is Standing.LEFT for member in self._members.values()
        ) and not any(self._strangers())

    def has_quorum(self) -> bool:
        """Whether this node reaches at least half of all that are not gone for certain, itself included.

        An address where nobody has greeted yet, and which does not refuse, counts as a member's.
        """
        reached = total = 1
        for member in self._members.values():
            total += not member.is_confirmed
            reached += member.standing in {Standing.ALIVE, Standing.LEAVING}
        total += sum(not self._dials.is_refused(address) for address in self._strangers())
        return 2 * reached >= total

    def is_apart(self, name: str, longest_ms: float) -> bool:
        """Whether a member without a link has not been heard for longer than that."""
        member = self._members.get(name)
        return member is not None and member.link is None and self._now_ms - member.heard_ms > longest_ms

    def infos(self) -> tuple[MemberInfo, ...]:
        """The list, this node first."""
        return (self.me, *(member.info for member in self._members.values()))

    # -- what is taken once ------------------------------------------------------------------------------------------

    def take_changes(self) -> list[Change]:
        """Who became what since this was last asked, in order."""
        changes, self._changes = self._changes, []
        return changes

    def take_news(self) -> bool:
        """Whether the list changed, by whatever, since this was last asked: then it must be passed on."""
        is_news, self._is_news = self._is_news, False
        return is_news

    # -- time --------------------------------------------------------------------------------------------------------

    def _pass(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def was_away(self, now_ms: int) -> None:
        """This node was away: its members' silence until now does not count."""
        self._pass(now_ms)
        for member in self._members.values():
            member.forgive(now_ms, self._timings)
        self._hurry()

    def _hurry(self) -> None:
        self._due_ms = self._now_ms

    def _judge(self, member: Member) -> int:
        """What a member's silence makes of it; returns when to look again."""
        while True:
            due_ms, after = member.outlook(self._timings)
            if self._read_ms < due_ms:
                return due_ms
            if member.standing is Standing.DEAD:
                member.is_confirmed = True
                continue
            if after is not Standing.SUSPECT:
                if member.link is not None:
                    self._silent.append(member.link)
                    self._unlink(member)
                    self._dials.lost(member.address, self._now_ms, is_brief=False)
                member.since_ms = self._now_ms
            self._settle(member, after)
            if after is Standing.UNKNOWN:
                self._forget(member)

    def _settle(self, member: Member, standing: Standing) -> None:
        if standing is not member.standing:
            self._changes.append(Change(member.info.name, member.standing, standing))
            member.standing = standing
            self._placeable = None

    # -- the list ----------------------------------------------------------------------------------------------------

    def _add(self, info: MemberInfo) -> bool:
        """Enter a member nobody here has heard of, if there is room."""
        if len(self._members) >= MEMBERS_MAX - 1 and not self._make_room():
            self.counts["refused_members"] += 1
            return False
        member = self._members[info.name] = Member(info, self._now_ms)
        member.was_named = self._is_named(member)
        self._is_news = True
        return True

    def _make_room(self) -> bool:
        """Forget the one that has been gone for certain the longest, of those that discovery does not name."""
        members = self._members.values()
        gone = [one for one in members if one.is_confirmed and one.link is None and not self._is_named(one)]
        if gone:
            self._forget(min(gone, key=lambda member: member.since_ms))
        return bool(gone)

    def _forget(self, member: Member) -> None:
        del self._members[member.info.name]
        self._owners = {address: name for address, name in self._owners.items() if name != member.info.name}
        self._prune()

    def _take_info(self, member: Member, info: MemberInfo) -> None:
        """What the list says of a known member, and what follows for its standing."""
        if (info.incarnation, info.stage) <= member.rank():
            return
        is_new = info.incarnation > member.info.incarnation
        member.info = info
        if is_new:
            member.heard_ms, member.is_met = self._now_ms, False
        self._is_news = True
        self._placeable = None
        if info.stage == Stage.GONE:
            member.is_confirmed = True
            member.since_ms = self._now_ms
            self._settle(member, Standing.LEFT)
        elif member.link is not None or member.standing in HERE:
            member.is_confirmed = False
            if info.stage == Stage.LEAVING or member.standing is not Standing.SUSPECT:
                self._settle(member, BY_STAGE[Stage(info.stage)])
        elif is_new:  # it was started again, and this node has not met it
            member.is_confirmed = False
            self._settle(member, Standing.UNKNOWN)
            self._dials.lost(member.address, self._now_ms, is_brief=False)

    def _consider_myself(self, info: MemberInfo) -> None:
        """Refute what a list says of this node, unless it is what this node said of itself."""
        me = self.me
        self._highest_of_me = max(self._highest_of_me, info.incarnation)
        if info.incarnation < me.incarnation or (me.stage == Stage.LEAVING and info.stage == Stage.GONE):
            return
        if info.incarnation == me.incarnation and info.stage <= me.stage and info.host == me.host:
            return
        if self._now_ms < self._refuted_ms + self._timings.beat_ms:
            return  # two nodes of one name would outbid each other as fast as they can
        self._refuted_ms = self._now_ms
        self.counts["refutations"] += 1
        self._announce(self._highest_of_me + 1, Stage(me.stage))

    def _announce(self, incarnation: int, stage: Stage) -> None:
        self.me = replace(self.me, incarnation=incarnation, stage=int(stage))
        self._highest_of_me = incarnation
        self._is_news = True
        self._placeable = None

    # -- links and addresses -----------------------------------------------------------------------------------------

    def _refusal(self, info: MemberInfo, address: str) -> tuple[str, str]:
        """Why nobody of this name is welcome, if so, and what a person does about it, if anything."""
        if not is_sane(info):
            self.counts["refused_members"] += 1
            return "a member has no such name, host, incarnation or stage", "run the same release on every server"
        if info.name == self.me.name and info.host == self.me.host:
            self._claim(address, info.name)
            return "that is this node itself", ""
        known = self._members.get(info.name)
        if info.name != self.me.name and (known is None or known.link is None or known.info.host == info.host):
            return "", ""
        if known is not None and known.is_silent(self._now_ms, self._timings):
            return "", ""
        self.counts["name_clashes"] += 1
        return f"two nodes are called {info.name!r}", "give every server a me= of its own"

    def _prefers_new(self, member: Member, *, is_dialler: bool) -> bool:
        """Whether a second link replaces the first: the smaller name dialled it, or whoever dialled the first did."""
        if is_dialler is member.is_dialler or member.is_silent(self._now_ms, self._timings):
            return True
        return is_dialler is (self.me.name < member.info.name)

    def _unlink(self, member: Member) -> None:
        if member.link is not None:
            del self._by_link[member.link]
            member.link = None

    def _claim(self, address: str, name: str) -> None:
        """Whoever has this name greets at this address, and nobody else does."""
        for member in self._members.values():
            if member.info.name == name:
                member.address = address
                member.was_named = member.was_named or address in self._named
            elif member.address == address:
                member.address = member.info.name
        if address in self._named and address != name:
            self._owners[address] = name

    def _is_named(self, member: Member) -> bool:
        return member.info.name in self._named or member.address in self._named

    def _strangers(self) -> Iterator[str]:
        """Addresses where nobody has greeted yet."""
        return (one for one in self._named if one not in self._owners and one not in self._members)

    def _targets(self) -> Iterator[tuple[str, Member | None]]:
        """The addresses to which a link is wanted, dialled now or later, and whose they are."""
        for member in self._members.values():
            is_over = member.standing in {Standing.UNKNOWN, Standing.DEAD}
            is_dropped = is_over and member.was_named and not self._is_named(member)
            if member.link is None and member.standing is not Standing.LEFT and not is_dropped:
                yield member.address, member
        for address in self._strangers():
            yield address, None

    def _prune(self) -> None:
        self._dials.keep({*self._named, *(member.address for member in self._members.values())})
