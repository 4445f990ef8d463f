"""One small typed filter language, shared by HTTP, command line and every index.

JSON form (what users write)::

    {"author": "Tolstoy"}                                    equals
    {"year": {"gte": 1860, "lt": 1870}}                      range (numbers or ISO 8601 dates)
    {"language": {"any_of": ["en", "fr"]}}                   any of
    {"reviewer": {"exists": true}}                           exists
    {"and": [...]}, {"or": [...]}, {"not": {...}}            combinations
    several fields in one object                             all of them

A dotted name ("publisher.country") reaches into nested metadata. Fields of the index itself start
with an underscore; users may write ``_document_id`` and ``_title``.
"""

from __future__ import annotations

from dataclasses import dataclass

Scalar = str | int | float
MAX_NODES = 256
MAX_DEPTH = 16
MAX_ANY_OF = 1000


@dataclass(frozen=True, slots=True)
class Equals:
    """The field, or one element of it where it is a list, equals the value."""

    field: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The field, or one element of it, is among the values."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The field is a number within the bounds given; dates are seconds since the epoch, UTC."""

    field: str
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is there and not an empty list."""

    field: str


@dataclass(frozen=True, slots=True)
class And:
    """Every one matches; an empty one matches everything."""

    of: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one matches; an empty one matches nothing."""

    of: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The inner filter does not match."""

    of: Filter


Filter = Equals | AnyOf | Range | Exists | And | Or | Not
