"""Figures beside a peer's, and what is promised, shown: `make bench`, `make show`.

`show/` holds one module per promise; `catalogue.py` finds and runs them, `report.py` prints and saves what they found.
The other modules do the measuring; `peers/` holds what runs inside the peers' own environments.
"""
