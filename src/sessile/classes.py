"""The classes of the application whose objects may be values of a session, by the name their bytes carry.

Dataclasses and msgspec Structs, each registered once, by all processes under the same name. An object is its fields: a
dataclass's is put together again field by field without running its code, a Struct's by its constructor.

This module does not know what bytes look like.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, overload

import msgspec

from sessile.errors import DecodeError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BY_CLASS", "BY_NAME", "Registered", "register"]


class Registered(NamedTuple):
    """A class, and what it takes to take its objects apart and put them together."""

    name: str
    cls: type
    fields: tuple[str, ...]
    is_frozen: bool
    build: Callable[[dict[str, object]], object]
    """An object from its fields' values. Some may be missing: the class has got more fields since.

    Raises DecodeError if one of these has no default.
    """


BY_CLASS: Final[dict[type, Registered]] = {}
BY_NAME: Final[dict[str, Registered]] = {}

_Class = TypeVar("_Class", bound=type)


@overload
def register(cls: _Class, *, name: str | None = None) -> _Class: ...
@overload
def register(cls: None = None, *, name: str | None = None) -> Callable[[_Class], _Class]: ...
def register(cls: Any = None, *, name: str | None = None) -> Any:
    """Let the objects of a class be values: `@register`, `@register(name="cart")`, `register(Cart)`.

    The bytes carry the name (the class's own, unless given) and the fields by name. A class may get more fields later,
    with defaults.

    Raises:
        SettingsError: it is neither a dataclass nor a msgspec Struct, or the name is another class's.
    """
    if cls is None:
        return lambda decorated: register(decorated, name=name)
    if not isinstance(cls, type):
        raise SettingsError(f"register({cls!r:.80}): is no class; give a dataclass or a msgspec Struct")
    registered = _describe(cls, cls.__qualname__ if name is None else name)
    taken = [other for other in (BY_NAME.get(registered.name), BY_CLASS.get(cls)) if other is not None]
    for other in taken:
        if (other.cls, other.name) != (cls, registered.name):
            raise SettingsError(
                f"register({cls.__qualname__}, name={registered.name!r}): {other.cls.__module__}."
                f"{other.cls.__qualname__} is registered as {other.name!r} already; give each class one name of its own"
            )
    BY_NAME[registered.name] = BY_CLASS[cls] = registered
    return cls


def _describe(cls: Any, name: str) -> Registered:
    if issubclass(cls, msgspec.Struct):
        return Registered(name, cls, cls.__struct_fields__, cls.__struct_config__.frozen, _struct_builder(cls))
    if "__dataclass_fields__" not in vars(cls):
        raise SettingsError(
            f"register({cls.__qualname__}): is neither a dataclass nor a msgspec Struct; make it one first"
        )
    try:
        object.__new__(cls)
    except TypeError as error:
        raise SettingsError(f"register({cls.__qualname__}): an object is more than its fields: {error}") from None
    fields = dataclasses.fields(cls)
    names = tuple(field.name for field in fields)
    return Registered(name, cls, names, cls.__dataclass_params__.frozen, _dataclass_builder(cls, fields))


def _struct_builder(cls: Any) -> Callable[[dict[str, object]], object]:
    def build(parts: dict[str, object]) -> object:
        try:
            return cls(**parts)
        except TypeError as error:
            raise DecodeError(f"object of the class {cls.__qualname__!r} cannot be made: {error}") from None

    return build


def _dataclass_builder(cls: Any, fields: tuple[dataclasses.Field[Any], ...]) -> Callable[[dict[str, object]], object]:
    def build(parts: dict[str, object]) -> object:
        made = object.__new__(cls)
        for field in fields:
            value = parts[field.name] if field.name in parts else _default(cls, field)
            object.__setattr__(made, field.name, value)
        return made

    return build


def _default(cls: type, field: dataclasses.Field[Any]) -> object:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is dataclasses.MISSING:
        raise DecodeError(
            f"object of the class {cls.__qualname__!r} lacks the field {field.name!r}, which has no default"
        )
    return field.default_factory()
