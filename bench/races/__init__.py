"""Seven ways in which two requests of one session go wrong, played as fixed interleavings: `make show NAME=races`.

`hazards.py` tells each as a play of requests and says what was wrong; it knows no framework. `requests.py` sends them, in
process, and holds a request inside its handler for as long as the play wants. One module per framework builds the app with
the same handlers; `peer.py` runs them in that peer's own environment, `ours.py` runs Sessile's servers.

All but `ours.py` import the standard library only until an app is built: they run in the peers' environments.
"""
