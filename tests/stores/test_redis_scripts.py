from __future__ import annotations

from hashlib import sha1

from sessile.stores.redis_scripts import Script


def test_a_script_is_its_parts_one_behind_the_other() -> None:
    """As a whole, or by the hash that the server knows it by; one that may run without memory says so first."""
    (by_hash, digest), (whole, text) = Script("record", "merge").ways
    assert (by_hash, whole) == ("EVALSHA", "EVAL")
    assert text.index("local function held") < text.index("local function join(")
    assert digest == sha1(text.encode()).hexdigest()
    frugal = Script("record", "merge", is_frugal=True).ways[1][1]
    assert frugal == "#!lua flags=allow-oom\n" + text
