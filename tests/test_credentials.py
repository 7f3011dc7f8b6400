"""From a request's cookies to a visitor, and from a record to its cookies."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from sessile.credentials import DRAWS_MAX, FOREIGN_TOLD, Credentials
from sessile.errors import SettingsError
from sessile.record import ENDED, LIVE, ROTATED, Stamp
from sessile.settings import Settings
from sessile.token import ID_BYTES, Identity, Visitor, key_of
from tests.fakes import ELSEWHERE, HERE, SECRET, make_record

if TYPE_CHECKING:
    from sessile.token import SessionKey


class Bench:
    """Credentials with their counters, and the states of the records that are said to be held."""

    def __init__(self, **settings: Any) -> None:
        self.counts: Counter[str] = Counter()
        self.states: dict[SessionKey, int] = {}
        self.draws = 0
        keywords: dict[str, Any] = {"secret": SECRET, **settings}
        self.credentials = Credentials(Settings.load(**keywords), self.counts, self.states.get, self.draw)

    def draw(self, size: int) -> bytes:
        self.draws += 1
        return Random(self.draws).randbytes(size)

    def issue(self, identity: Identity, *, is_new: bool = True, **values: Any) -> list[str]:
        """The cookies, `name=value`, that somebody in a session with these values is given."""
        presented = self.credentials.policy.read([], is_https=False)
        cookies = self.credentials.issue(presented, Visitor(identity), make_record(values), is_new=is_new)
        return [cookie.decode().partition(";")[0] for cookie in cookies]

    def read(self, *pairs: str) -> Visitor | None:
        return self.credentials.read(["; ".join(pairs).encode()], is_https=False)[1]


def identity_of(number: int) -> Identity:
    session_id = bytes([number]) * 18
    return Identity(session_id, key_of(session_id))


def test_what_is_issued_is_read() -> None:
    """The id and the heads come back, by other credentials of the same secret too."""
    identity = identity_of(1)
    cookies = Bench().issue(identity, a=1)
    assert [cookie.partition("=")[0] for cookie in cookies] == ["sid", "sid_v"]
    visitor = Bench().read(*cookies)
    assert visitor is not None
    assert (visitor.identity, visitor.seen) == (identity, make_record({"a": 1}).heads)


def test_an_id_that_is_known_is_not_issued_again() -> None:
    """Only the version is told, so that a late answer cannot put an old id back."""
    assert [cookie.partition("=")[0] for cookie in Bench().issue(identity_of(1), is_new=False)] == ["sid_v"]


def test_nobody_is_nobody() -> None:
    """Without a cookie of ours nothing is counted."""
    bench = Bench()
    assert bench.read() is None
    assert bench.read("other=1") is None
    assert not bench.counts


def test_what_is_foreign_is_counted_each_time() -> None:
    """An id that is not ours, a version that is not, a version of another session."""
    bench = Bench()
    cookies, others = bench.issue(identity_of(1), a=1), bench.issue(identity_of(2), a=1)
    for number, pairs in enumerate((["sid=guess"], [cookies[0], "sid_v=guess"], [cookies[0], others[1]]), 1):
        visitor = bench.read(*pairs)
        assert visitor is None or visitor.seen == ()
        assert bench.counts["foreign"] == number


def test_many_foreign_cookies_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """One, with the remedy and without the secret: another server's secret differs, or another app uses the name."""
    bench = Bench()
    for number in range(3 * FOREIGN_TOLD):
        assert len(caplog.records) == (number >= FOREIGN_TOLD)
        bench.read(f"sid=guess{number}")
    (told,) = (record.getMessage() for record in caplog.records)
    assert all(word in told for word in ("sid", "SESSILE_SECRET", "cookie_name=")) and SECRET not in told


@pytest.mark.parametrize("states", [(LIVE, ROTATED), (LIVE, None), (LIVE, ENDED), (ROTATED, None), (None, ENDED)])
@pytest.mark.parametrize("is_first", [True, False])
def test_of_several_ids_the_most_alive_is_taken(states: tuple[int | None, int | None], *, is_first: bool) -> None:
    """Living, to be looked back at, unknown here, over: in this order, wherever in the header they stand."""
    bench = Bench()
    better, worse = identity_of(1), identity_of(2)
    for identity, state in zip((better, worse), states, strict=True):
        if state is not None:
            bench.states[identity.key] = state
    ids = [bench.issue(better)[0], bench.issue(worse)[0]]
    visitor = bench.read(*(ids if is_first else reversed(ids)), bench.issue(better, a=1)[1])
    assert visitor is not None
    assert visitor.identity == better
    assert visitor.seen == make_record({"a": 1}).heads
    assert not bench.counts["foreign"]


def test_a_secret_is_drawn_once_where_only_this_machine_can_come() -> None:
    """With one warning; a second request draws no second one."""
    bench = Bench(secret=None)
    assert bench.credentials.keyring is None
    for _ in range(2):
        bench.credentials.draw_secret("127.0.0.1", is_alone=True)
    assert bench.draws == 1
    assert bench.read(*bench.issue(identity_of(1))) is not None


@pytest.mark.parametrize(("server", "is_alone"), [("10.0.0.1", True), ("127.0.0.1", False), (None, False)])
def test_no_secret_is_drawn_where_others_must_know_it(server: str | None, *, is_alone: bool) -> None:
    """Browsers from elsewhere, or other servers: the error names the remedy, and nothing was drawn."""
    bench = Bench(secret=None)
    with pytest.raises(SettingsError, match="sessile keygen"):
        bench.credentials.draw_secret(server, is_alone=is_alone)
    assert (bench.draws, bench.credentials.keyring) == (0, None)


def test_a_warning_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each of them, not one of all."""
    bench = Bench()
    for about in ("one", "other", "one"):
        bench.credentials.warn_once(about, f"about {about}")
    assert [record.message for record in caplog.records] == ["about one", "about other"]


def test_an_id_is_drawn_until_one_is_wanted() -> None:
    """The first will do where nobody minds; a wish is granted if that takes a bounded number of draws."""
    bench = Bench()
    assert len(bench.credentials.draw_identity(None).id) == ID_BYTES
    assert bench.draws == 1
    identity = bench.credentials.draw_identity(lambda key: key[0] % 8 == 5)
    assert identity == Identity(identity.id, key_of(identity.id))
    assert identity.key[0] % 8 == 5
    before = bench.draws
    assert bench.credentials.draw_identity(lambda _: False).id
    assert bench.draws - before == DRAWS_MAX


def test_an_unknown_session_of_another_process_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """One that this process wrote alone ran out of time, which is nothing to warn of."""
    bench = Bench()
    for seen in ((), (Stamp(1, HERE),)):
        bench.credentials.warn_unknown(Visitor(identity_of(1), seen), HERE)
    assert not caplog.records
    for _ in range(2):
        bench.credentials.warn_unknown(Visitor(identity_of(1), (Stamp(1, HERE), Stamp(2, ELSEWHERE))), HERE)
    assert len(caplog.records) == 1


def test_the_lock_is_fresh_after_a_fork() -> None:
    """A thread of the parent may have held it."""
    bench = Bench(secret=None)
    with bench.credentials._lock:
        bench.credentials._after_fork()
        bench.credentials.draw_secret(None, is_alone=True)
    assert bench.draws == 1
