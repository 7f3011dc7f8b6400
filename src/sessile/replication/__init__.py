"""The protocol by which servers share sessions, as pure code: events in, effects out, time and chance as arguments."""
