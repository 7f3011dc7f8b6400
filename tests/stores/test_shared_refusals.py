"""What a server does not know yet and the store does: a session that is over takes no change, and none is told as kept."""

from __future__ import annotations

from typing import Any

import pytest

from sessile.errors import SessionEnded, SessionRotated
from sessile.session import Session
from tests.network.clusters import Tab
from tests.stores.sharing import Servers, count, ran, servers_of


async def meanwhile(servers: Servers, during: Any, late: Any) -> tuple[Tab, Tab]:
    """A request at the second server that is under way while another one begins and ends at the first.

    Returns the browser, with what both answers set, and one with the cookies of before.
    """
    one, other = servers.engines
    tab = Tab(one)
    await tab.ask(one, count)
    await tab.ask(other, dict)
    before = Tab(one)
    before.cookies = dict(tab.cookies)
    session = other.open((tab.header,), is_https=tab.is_https)
    await other.prepare(session)
    dict(session)
    await tab.ask(one, during)
    late(session)
    await other.settle(other.commit(session))
    tab.keep(other.cookies(session))
    return tab, before


def log_in(session: Session) -> None:
    session.login("ann")


@pytest.mark.parametrize("cache", ["leased", "checked", "off"])
@pytest.mark.parametrize("has_channel", [True, False])
@pytest.mark.parametrize("late", [count, log_in, Session.rotate])
@pytest.mark.parametrize(("during", "refusal"), [(Session.logout, SessionEnded), (log_in, SessionRotated)])
def test_what_the_store_did_not_keep_is_refused(
    cache: str, late: Any, during: Any, refusal: type[Exception], *, has_channel: bool
) -> None:
    """A session that another server ended or rotated: the slow request's change is no success, nor does it bring it back."""
    are_both_kept = late is not count and refusal is SessionRotated  # two logins at once are two sessions

    async def run() -> None:
        async with servers_of(2, cache=cache, has_channel=has_channel) as servers:
            if are_both_kept:
                tab, _ = await meanwhile(servers, during, late)
                assert await tab.look(servers.engines[0]) == {"n": 1}
                return
            with pytest.raises(refusal):
                await meanwhile(servers, during, late)
            by_store, by_itself = servers.backend(1).counts["refused"], servers.engines[1].counts["conflicts"]
            assert by_store + by_itself == 1

    ran(run())


def test_an_end_that_is_known_already_is_no_refusal() -> None:
    """Who logs out twice, at two servers at once, is logged out."""

    async def run() -> None:
        async with servers_of(2) as servers:
            tab, before = await meanwhile(servers, Session.logout, Session.logout)
            assert not tab.cookies
            for engine in servers.engines:
                assert await before.look(engine) == {}

    ran(run())
