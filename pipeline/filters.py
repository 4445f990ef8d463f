"""One small typed filter language, shared by HTTP, command line and every index.

JSON form (what users write)::

    {"author": "Tolstoy"}                                    equals (also {"equals": "Tolstoy"})
    {"year": {"gte": 1860, "lt": 1870}}                      range (numbers or ISO 8601 dates)
    {"language": {"any_of": ["en", "fr"]}}                   any of
    {"reviewer": {"exists": true}}                           exists
    {"and": [...]}, {"or": [...]}, {"not": {...}}            combinations
    several fields in one object                             all of them

A dotted name ("publisher.country") reaches into nested metadata. Fields of the index itself start
with an underscore; users may write ``_document_id`` and ``_title``. A bound that is a whole day or
month covers all of it. How values compare is told in :mod:`pipeline.metadata`; :func:`matches` is
the reference that every index reproduces.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import FilterError
from pipeline.metadata import MAX_INTEGER, MAX_PATH_CHARS, comparable, encodable, flatten, moment, number

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


Condition = Equals | AnyOf | Range | Exists
Filter = Condition | And | Or | Not

EVERYTHING = And(())
_BOUNDS = ("gt", "gte", "lt", "lte")
_OPERATORS = ("equals", "any_of", "exists", *_BOUNDS)
_SYSTEM_FIELDS: Mapping[str, str] = {"_document_id": "keyword", "_title": "keyword"}


def parse(value: object) -> Filter:
    """Read the JSON form of a filter.

    Raises FilterError naming the path of what is wrong, or the limit that was passed.
    """
    return _Parser().node(value, "filter", 1)


class _Parser:
    """Counts nodes while descending, so that a hostile filter is refused before it costs anything."""

    def __init__(self) -> None:
        self._nodes = 0

    def node(self, value: object, path: str, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise FilterError(f"The filter is nested {depth} deep at {path}; the limit is {MAX_DEPTH}.")
        if not isinstance(value, Mapping):
            raise FilterError(f"{path} is {_shown(value)}, not an object.", remedy='Write {"field": value}.')
        parts = [self._entry(key, inner, path, depth) for key, inner in value.items()]
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _entry(self, key: object, value: object, path: str, depth: int) -> Filter:
        if not isinstance(key, str) or not 0 < len(key) <= MAX_PATH_CHARS or not encodable(key):
            raise FilterError(
                f"{path} has the key {_shown(key)}, which is no field name.",
                remedy=f"Names are 1 to {MAX_PATH_CHARS} characters of valid Unicode.",
            )
        where = f"{path}.{key}"
        self._count(where)
        if key == "not":
            return Not(self.node(value, where, depth + 1))
        if key in ("and", "or"):
            if not isinstance(value, list | tuple) or not value:
                raise FilterError(f"{where} is {_shown(value)}, not a list with filters in it.")
            parts = tuple(self.node(inner, f"{where}[{i}]", depth + 1) for i, inner in enumerate(value))
            return And(parts) if key == "and" else Or(parts)
        if isinstance(value, Mapping):
            return self._operators(key, value, where)
        return Equals(key, _scalar(value, where))

    def _operators(self, field: str, value: Mapping[Any, object], path: str) -> Filter:
        if not value:
            raise FilterError(f"{path} is an empty object.", remedy=f"Operators: {', '.join(_OPERATORS)}.")
        parts: list[Filter] = []
        bounds: dict[str, float] = {}
        for operator, operand in value.items():
            where = f"{path}.{str(operator)[:40]!r}" if operator not in _OPERATORS else f"{path}.{operator}"
            self._count(where)
            if operator in _BOUNDS:
                name, bound = _bound(operator, operand, where)
                if name in bounds:
                    raise FilterError(f"{where} and another bound of {path} say the same thing.")
                bounds[name] = bound
            else:
                parts.append(_condition(field, operator, operand, where))
        if bounds:
            parts.append(Range(field, **bounds))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _count(self, path: str) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise FilterError(f"The filter has more than {MAX_NODES} conditions (the limit), at {path}.")


def _condition(field: str, operator: object, operand: object, path: str) -> Filter:
    if operator == "equals":
        return Equals(field, _scalar(operand, path))
    if operator == "any_of":
        if not isinstance(operand, list | tuple) or not operand:
            raise FilterError(f"{path} is {_shown(operand)}, not a list with values in it.")
        if len(operand) > MAX_ANY_OF:
            raise FilterError(f"{path} has {len(operand)} values; the limit is {MAX_ANY_OF}.")
        return AnyOf(field, tuple(_scalar(value, f"{path}[{i}]") for i, value in enumerate(operand)))
    if operator == "exists":
        if not isinstance(operand, bool):
            raise FilterError(f"{path} is {_shown(operand)}, not true or false.")
        return Exists(field) if operand else Not(Exists(field))
    close = difflib.get_close_matches(str(operator), _OPERATORS, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    raise FilterError(f"{path} is no operator.", remedy=f"{hint}Operators: {', '.join(_OPERATORS)}.")


def _bound(operator: str, operand: object, path: str) -> tuple[str, float]:
    """A bound's name and number. A whole day or month in ``lte`` includes its last moment, and in
    ``gt`` excludes it, as people mean it."""
    if not isinstance(operand, str):
        value = _scalar(operand, path)
        if isinstance(value, str):
            raise FilterError(f"{path} is {_shown(operand)}; a bound is a number or an ISO 8601 date.")
        return operator, float(value)
    span = moment(operand)
    if span is None:
        raise FilterError(
            f"{path} is {_shown(operand)}; a bound is a number or an ISO 8601 date.",
            remedy="Write dates like 2024-05-31 or 2024-05-31T12:00:00Z.",
        )
    start, end = span
    if end > start and operator in ("lte", "gt"):
        return ("lt" if operator == "lte" else "gte"), end
    return operator, start


def _scalar(value: object, path: str) -> Scalar:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if not encodable(value):
            raise FilterError(f"{path} is not valid Unicode.")
        return value
    if isinstance(value, int) and abs(value) <= MAX_INTEGER:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    remedy = {
        list: "Use any_of to match one of several values.",
        type(None): 'Use {"exists": false} for a field that is not there.',
    }
    raise FilterError(
        f"{path} is {_shown(value)}; a value is a string, a finite number up to 2^53, or a boolean.",
        remedy=remedy.get(type(value), ""),
    )


def _shown(value: object) -> str:
    text = ascii(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def fields(where: Filter) -> Iterator[Condition]:
    """Every condition on a field, in order."""
    match where:
        case And(parts) | Or(parts):
            for part in parts:
                yield from fields(part)
        case Not(inner):
            yield from fields(inner)
        case _:
            yield where


def check_fields(where: Filter, known: Mapping[str, str]) -> None:
    """Refuse conditions that no document could answer.

    ``known`` maps each metadata field of the collection to its type as
    :func:`pipeline.metadata.field_types` names it. Raises FilterError for a field that no document
    has, with the nearest name, and for a comparison that the field's type does not allow.
    """
    types = {**known, **_SYSTEM_FIELDS}
    for condition in fields(where):
        kind = types.get(condition.field)
        if kind is None and isinstance(condition, Exists):
            kind = next((t for name, t in types.items() if name.startswith(f"{condition.field}.")), None)
        if kind is None:
            raise FilterError(
                f"No document has the field {condition.field!r}.", remedy=_nearest(condition.field, types)
            )
        _check_type(condition, kind)


def _nearest(field: str, types: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(field, types, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    names = sorted(types)
    more = ", ..." if len(names) > 20 else ""
    return f"{hint}Fields: {', '.join(names[:20])}{more}."


def _check_type(condition: Condition, kind: str) -> None:
    if isinstance(condition, Range):
        if kind in ("keyword", "boolean"):
            raise FilterError(
                f"The field {condition.field!r} holds {kind} values, which have no range.",
                remedy="Ranges are for numbers and ISO 8601 dates.",
            )
    elif not isinstance(condition, Exists):
        values = (condition.value,) if isinstance(condition, Equals) else condition.values
        for value in values:
            if kind != "mixed" and isinstance(value, str) == (kind == "number"):
                raise FilterError(
                    f"The field {condition.field!r} holds {kind} values; {value!r} can never equal one.",
                    remedy="Write numbers without quotation marks and text with them.",
                )


def matches(where: Filter, payload: Mapping[str, Any]) -> bool:
    """Whether a payload satisfies the filter: the meaning every index must reproduce."""
    match where:
        case And(parts):
            return all(matches(part, payload) for part in parts)
        case Or(parts):
            return any(matches(part, payload) for part in parts)
        case Not(inner):
            return not matches(inner, payload)
    return _holds(where, list(flatten(payload)))


def _holds(condition: Condition, leaves: list[tuple[str, list[Any]]]) -> bool:
    field = condition.field
    values = [value for path, found in leaves if path == field for value in found]
    match condition:
        case Equals(_, wanted):
            return any(comparable(value) == comparable(wanted) for value in values)
        case AnyOf(_, wanted):
            return not {comparable(value) for value in values}.isdisjoint(map(comparable, wanted))
        case Range():
            return any(_within(number(value), condition) for value in values)
        case Exists():
            return bool(values) or any(path.startswith(f"{field}.") for path, found in leaves if found)


def _within(value: float | None, bounds: Range) -> bool:
    return (
        value is not None
        and (bounds.gt is None or value > bounds.gt)
        and (bounds.gte is None or value >= bounds.gte)
        and (bounds.lt is None or value < bounds.lt)
        and (bounds.lte is None or value <= bounds.lte)
    )
