"""What `import sessile` offers."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

sessile = importlib.import_module("sessile")
MODULES = sorted(
    found.name for found in pkgutil.walk_packages(sessile.__path__, "sessile.") if not found.name.endswith("__main__")
)


def test_the_public_names_are_sorted_and_there() -> None:
    """Every name in `sessile.__all__` can be imported, and one finds it where one looks."""
    assert list(sessile.__all__) == sorted(sessile.__all__)
    for name in sessile.__all__:
        assert getattr(sessile, name, None) is not None, name


@pytest.mark.parametrize("name", MODULES)
def test_a_module_offers_what_it_names(name: str) -> None:
    """Every module can be imported by itself, and has each name of its `__all__`, once."""
    module = importlib.import_module(name)
    offered = list(getattr(module, "__all__", []))
    assert len(offered) == len(set(offered))
    assert [missing for missing in offered if not hasattr(module, missing)] == []
