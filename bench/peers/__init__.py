"""What runs inside one contender's process, in that contender's own environment: `python -m bench.peers NAME`.

One module per framework builds two apps, `base` without sessions and `peer` with them, from the same handlers. Drivers
(`asgi.py`, `wsgi.py`) send them requests in process, as browsers that keep their cookies; `turn.py` reads the clocks.
Shared modules import the standard library only: nothing here may need a package that another contender brings.
"""
