"""Sessile: sessions that stay put when servers don't."""

from sessile.engine import Engine
from sessile.errors import SessileError
from sessile.session import Session
from sessile.settings import Settings

__all__ = ["Engine", "SessileError", "Session", "Settings", "__version__"]

__version__ = "0.1.0"
