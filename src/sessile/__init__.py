"""Sessile: sessions that stay put when servers don't."""

__version__ = "0.1.0"
