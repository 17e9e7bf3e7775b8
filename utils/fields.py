"""The values that a field of a config accepts: numbers in a range, or the names of a registry."""

import math
from collections.abc import Collection
from dataclasses import Field, dataclass, field, fields
from pkgutil import resolve_name
from typing import Any, get_args, get_origin

from data.errors import InputError


@dataclass(frozen=True)
class Range:
    """The finite numbers from ``low`` (``above``: but not ``low`` itself) to ``high``."""

    low: float
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high and value < math.inf

    def __str__(self) -> str:
        most = f" and at most {self.high}" if self.high < math.inf else ""
        return f"{'above' if self.above else 'at least'} {self.low}{most}"


def number(default: float | None, low: float, high: float = math.inf, *, above: bool = False) -> Any:
    """A field for a number in a ``Range``; it is an integer if the field's type is ``int``."""
    return field(default=default, metadata={"range": Range(low, high, above)})


def one_of(default: str | None, names: Collection[str] | str) -> Any:
    """A field for one of the ``names``, or of the keys of a registry, given as ``"module:REGISTRY"``.

    A registry is looked up when it is used: some of the modules import the configs.
    """
    return field(default=default, metadata={"names": names})


def names_of(option: Field) -> list[str]:
    """The names that a field made by ``one_of`` accepts; of another field, an empty list."""
    names = option.metadata.get("names", ())
    return list(resolve_name(names) if isinstance(names, str) else names)


def admits(option: Field, kind: type) -> bool:
    """Whether the type of a field is ``kind``, or a union with it."""
    return kind is option.type or kind in get_args(option.type)


def check(config: Any) -> None:
    """Raise InputError for the first field of a dataclass whose value is of another type, range or name."""
    for option in fields(config):
        value, kind, accepted = getattr(config, option.name), option.type, option.metadata.get("range")
        is_integer = isinstance(value, int) and admits(option, float)
        if not (get_origin(kind) is list or is_integer or isinstance(value, kind)):  # type: ignore[arg-type]
            expected = getattr(kind, "__name__", kind)
            raise InputError(f"--{option.name} {value!r}: not of type {expected}; give such a value")
        if value is None:
            continue
        if accepted and value not in accepted:
            raise InputError(f"--{option.name} {value}: must be {accepted}")
        if (names := names_of(option)) and value not in names:
            raise InputError(f"--{option.name} {value}: not one of {', '.join(names)}; give one of these")
