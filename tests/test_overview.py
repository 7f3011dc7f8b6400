from __future__ import annotations

from typing import Any

from sessile.overview import remarks, sights, totals


def server(name: str, sees: str = "", state: str = "ready", *, sessions: int = 0, **cluster: Any) -> dict[str, Any]:
    """One server of three; `sees` tells the first letters of how it sees the others, in order."""
    words = {"a": "alive", "s": "suspect", "l": "leaving", "d": "dead"}
    others = [other for other in ("s1", "s2", "s3") if other != name]
    members = {f"host:{other}": words[letter] for other, letter in zip(others, sees, strict=False)}
    told = {"members": members, **cluster} if sees else {}
    return {
        "name": name,
        "node": f"host:{name}",
        "state": state,
        "stats": {"sessions": sessions, "stale": 1, "late": 2},
        "cluster": told,
    }


def test_members_are_told_by_the_names_of_their_servers() -> None:
    """A member that is none of these servers keeps its own; a server that tells of no members sees nobody."""
    told = sights([server("s1", "aa"), server("s2"), {**server("s3", "sd"), "node": ""}])
    assert told == {"s1": {"s2": "alive", "host:s3": "alive"}, "s3": {"s1": "suspect", "s2": "dead"}}


def test_nothing_is_remarked_while_all_see_each_other_alive() -> None:
    """Nor where servers do not talk."""
    assert remarks([server("s1", "aa"), server("s2", "aa"), server("s3", "aa")]) == []
    assert remarks([server("s1"), server("s2")]) == []


def test_those_who_disagree_are_named() -> None:
    """Each standing with its observers."""
    told = [server("s1", "aa"), server("s2", "as"), server("s3", "aa")]
    assert remarks(told) == ["s3 is seen as alive by s1, suspect by s2"]


def test_what_a_silent_server_saw_is_no_view() -> None:
    """It is of another moment."""
    told = [server("s1", "ad"), server("s2", "ad"), server("s3", "dd", "paused")]
    assert remarks(told) == ["s3 is seen as dead by s1 and s2"]


def test_of_many_of_one_mind_nobody_is_named() -> None:
    """And servers come in the order of their numbers."""
    views = {f"n{number}": "dead" for number in (10, 9)}
    told = [{"name": f"n{at}", "state": "ready", "stats": {}, "cluster": {"members": views}} for at in (1, 2, 3)]
    assert remarks(told) == ["n9 is seen as dead by all others", "n10 is seen as dead by all others"]


def test_distinct_sessions_are_told_not_copies() -> None:
    """By the directory where there is one, by primaries and full tables elsewhere, and as a sum where nothing is copied."""
    alone = [server("s1", sessions=3), server("s2", sessions=4)]
    assert totals(alone)["sessions"] == 7
    listed = [server("s1", "aa", sessions=5, directory=6, primary=2, backup=2, other=1)] * 3
    assert (totals(listed)["sessions"], totals(listed)["copies"], totals(listed)["directory"]) == (6, 9, 6)
    everywhere = [server(name, "aa", sessions=9, primary=3, backup=6) for name in ("s1", "s2", "s3")]
    assert (totals(everywhere)["sessions"], totals(everywhere)["copies"]) == (9, 18)
    apart = [server(name, "aa", sessions=4, primary=2, backup=2) for name in ("s1", "s2", "s3")]
    assert totals(apart)["sessions"] == 6


def test_figures_of_a_silent_server_count_as_far_as_they_stay_true() -> None:
    """What it had counted and sent has happened; whose primary it is has changed since."""
    told = [
        server("s1", "aa", sessions=2, primary=2, bytes_sent=10, bytes_received=1, lag_ms=1.5),
        server("s2", "aa", "paused", sessions=2, primary=1, bytes_sent=5, bytes_received=2, lag_ms=9.0),
    ]
    whole = totals(told)
    assert (whole["sessions"], whole["bytes_sent"], whole["bytes_received"], whole["lag_ms"]) == (2, 15, 3, 1.5)
    assert (whole["stale"], whole["late"], whole["degraded"]) == (2, 4, 0)


def test_nobody_holds_nothing() -> None:
    """No server, or none that answers."""
    assert (totals([])["sessions"], totals([])["lag_ms"]) == (0, None)
    assert totals([server("s1", "aa", "paused", sessions=2)])["sessions"] == 2


def test_what_servers_tell_of_each_other_is_compared() -> None:
    """Who was never met, and by whom; who is no member to another; whose cookies are read nowhere else."""
    one, two = server("s1", "a"), server("s2", "a")
    one["cluster"]["unmet"] = {"host:s3": "no answer", "host:s9": "no answer"}
    assert remarks([one, two]) == [
        "host:s3 was never met by s1: no answer",
        "host:s9 was never met by s1: no answer",
    ]
    del two["cluster"]["members"]["host:s1"]
    assert "s1 is no member to s2: see members= and me=" in remarks([server("s1", "a"), two])
    first, second = {**server("s1", "a"), "secrets": ["x", "y"]}, {**server("s2", "a"), "secrets": ["y", "x"]}
    assert remarks([first, second]) == []
    (sentence,) = remarks([first, {**second, "secrets": ["y"]}])
    assert sentence.startswith("s1 signs cookies that s2 cannot read: ") and "SESSILE_SECRET" in sentence


def test_who_serves_without_its_store_or_not_at_all_is_told() -> None:
    """Those with one reason together."""
    away = [{**server(f"s{at}"), "cluster": {"state": "away", "reason": "refused"}} for at in (1, 2)]
    assert remarks(away) == ["the store is not reached by s1 and s2: refused"]
    unheard = {**server("s1"), "cluster": {"state": "ready", "channel": "down"}}
    assert remarks([unheard]) == ["the store's channel is not heard by s1, so each request asks: see the log"]
    for channel in ("up", "none"):
        assert remarks([{**unheard, "cluster": {"state": "ready", "channel": channel}}]) == []
    assert remarks([server("s1"), server("s2", state="dead")]) == ["s2 is dead"]
    assert remarks([server("s1"), server("s2", state="draining")]) == []
