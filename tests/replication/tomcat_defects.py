"""The ways in which Tomcat's session managers were seen to lose writes without a word, played here with real engines.

Each scenario is a function that returns what is wrong at its end, in words; nothing where all is well. What happens in
Tomcat 10.1.60 stands in its docstring, as it was reproduced there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.replication.engines import Browser, Engines

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SCENARIOS"]


def missing(cluster: Engines, browser: Browser, expected: dict[str, object]) -> str:
    """What a browser that saw everything does not find, at each server, once all is quiet."""
    cluster.run(300)
    wrong = []
    for name in cluster.servers:
        seen = cluster.request(name, browser)
        if seen != expected:
            wrong.append(f"at {name}: {seen}, not {expected}")
    return "; ".join(wrong)


def begin(names: str, strategy: str) -> tuple[Engines, Browser, list[str]]:
    """A session that everybody who should holds, and the servers in its order."""
    cluster = Engines(names, strategy=strategy)
    browser = Browser()
    cluster.request(names[0], browser, x=1)
    key = bytes.fromhex(cluster.open(names[0], browser).key)
    return cluster, browser, list(cluster.servers[names[0]].node.placement.order(key))


def a_change_arrives_during_a_request() -> str:
    """DeltaManager: a delta of A that arrives while a request at B has changes pending throws these away."""
    cluster, browser, (first, second, *_) = begin("abc", "all-to-all")
    pending = cluster.open(second, browser)
    pending["b"] = 2
    cluster.request(first, browser, a=1)
    cluster.run(50)
    cluster.finish(second, browser, pending)
    return missing(cluster, browser, {"x": 1, "a": 1, "b": 2})


def a_change_arrives_during_a_request_at_the_backup() -> str:
    """BackupManager: the same by way of its map, whose diff begins with a reset of what is pending."""
    cluster, browser, (primary, backup, *_) = begin("abc", "primary-backup")
    pending = cluster.open(backup, browser)
    pending["b"] = 2
    cluster.request(primary, browser, a=1)
    cluster.run(50)
    cluster.finish(backup, browser, pending)
    return missing(cluster, browser, {"x": 1, "a": 1, "b": 2})


def two_requests_at_primary_and_backup() -> str:
    """BackupManager: the second request takes the primary's role, and what the first one set is sent to nobody."""
    cluster, browser, (primary, backup, *_) = begin("abc", "primary-backup")
    one, other = cluster.open(primary, browser), cluster.open(backup, browser)
    one["p"], other["q"] = 1, 2
    another_tab = Browser()
    another_tab.cookies = dict(browser.cookies)
    cluster.finish_together((primary, browser, one), (backup, another_tab, other))
    return missing(cluster, browser, {"x": 1, "p": 1, "q": 2})


def the_backup_dies() -> str:
    """BackupManager: a proxy asks only the backup, which is dead, and its user gets a new session; the primary lives."""
    cluster, browser, (_, backup, proxy) = begin("abc", "primary-backup")
    cluster.kill(backup)
    session = cluster.open(proxy, browser)
    if session.new:
        return f"at {proxy}: no such session"
    return missing(cluster, browser, {"x": 1})


def one_name_twice_in_a_request() -> str:
    """DeltaManager: two different changes of one name in a request are taken for one, and the replicas miss a value."""
    cluster, browser, (first, *_) = begin("abc", "all-to-all")
    session = cluster.open(first, browser)
    session["k"] = 1
    del session["k"]
    session["k"] = 2
    session.increment("n")
    session["n"] = 10
    session.increment("n", 5)
    cluster.finish(first, browser, session)
    return missing(cluster, browser, {"x": 1, "k": 2, "n": 15})


SCENARIOS: Final[dict[str, Callable[[], str]]] = {
    "a change arrives during a request (DeltaManager loses the request's)": a_change_arrives_during_a_request,
    "the same at the backup (BackupManager loses the request's)": a_change_arrives_during_a_request_at_the_backup,
    "requests at primary and backup at once (BackupManager loses one)": two_requests_at_primary_and_backup,
    "the backup dies, the primary lives (BackupManager: no such session)": the_backup_dies,
    "one name changed twice in a request (DeltaManager's replicas miss one)": one_name_twice_in_a_request,
}
