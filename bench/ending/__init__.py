"""Shared by the shows about ended sessions: a service on every kind of server, its stores, and requests with old cookies."""
