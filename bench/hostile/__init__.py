"""Hostile input: what a balancer and a session core must survive, and a judge that does not take their word for it.

`vectors*.py` hold requests as bytes with the rule each stands for, `answers.py` the lies of an origin, `mutator.py` makes
thousands of others of them, `slow.py` those who take their time. `origin.py` records every byte it is sent;
`grammar.py` reads bytes by RFC 9112 and nothing else, `readings.py` has h11 and httptools read the same bytes, `policy.py`
says what the balancer's rules make of a head, and `judge.py` compares all of them with what the clients saw. Nothing here imports
the balancer: it is a process behind a port, so the same judge can try any proxy.
"""
