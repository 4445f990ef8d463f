"""What users may attach to a document, and how its values compare.

Metadata is a JSON object: strings, numbers, booleans, lists of those, and nested objects. A dotted
path names a leaf ("publisher.country"); a key that itself has a dot names the same path. Values
keep their JSON type when stored. To compare, a boolean is the keyword "true" or "false", numbers
compare as numbers (1 equals 1.0 and not "1"), and strings compare as NFC text, case kept. A string
in ISO 8601 form is also a moment, so ranges apply to it.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import InvalidRequestError, LimitExceededError

MAX_FIELDS = 100
MAX_METADATA_DEPTH = 5
MAX_PATH_CHARS = 256
MAX_LIST_VALUES = 1000
MAX_METADATA_BYTES = 16 * 1024
MAX_INTEGER = 2**53  # beyond it a JSON number is not exact, and neither is a float index

RESERVED = frozenset({"and", "or", "not"})

_DATE = re.compile(
    r"(\d{4}-\d{2})(-\d{2})?([T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?)?\s?(Z|[+-]\d{2}:?\d{2})?", re.ASCII
)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def indexable(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Check user metadata and return it as plain JSON values ready to be a payload.

    Nulls are left out; dates become ISO 8601 strings. Raises InvalidRequestError for a key or value
    that cannot be stored and LimitExceededError past a limit, both naming the key.
    """
    checked = _object(metadata, "", 1)
    leaves = sum(1 for _ in flatten(checked))
    if leaves > MAX_FIELDS:
        raise LimitExceededError(f"Metadata has {leaves} fields; the limit is {MAX_FIELDS}.")
    size = len(json.dumps(checked, ensure_ascii=False).encode())
    if size > MAX_METADATA_BYTES:
        raise LimitExceededError(
            f"Metadata is {size:,} bytes as JSON; the limit is {MAX_METADATA_BYTES:,}.",
            remedy="It is stored with every passage: keep long text in the document.",
        )
    return checked


def flatten(payload: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Every leaf of a payload as its dotted path and its values; a scalar is a list of one."""
    for key, value in payload.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{path}.")
        elif value is not None:
            yield path, list(value) if isinstance(value, list | tuple) else [value]


def comparable(value: object) -> str | float:
    """What equality compares: NFC text for strings and booleans, a float for numbers."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return float(value)
    return unicodedata.normalize("NFC", str(value))


def number(value: object) -> float | None:
    """What ranges compare: a number itself, a date's seconds since the epoch in UTC, else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    span = moment(value) if isinstance(value, str) else None
    return span[0] if span else None


def moment(text: str) -> tuple[float, float] | None:
    """Seconds since the epoch at which an ISO 8601 date begins and ends, or None if it is none.

    A month or day lasts until the next one; a time is an instant. Without an offset it is UTC.
    """
    found = _DATE.fullmatch(text)
    if not found or (found[3] and not found[2]) or (found[4] and not found[3]):
        return None
    month, day, time, offset = found.groups()
    try:
        start = datetime.datetime.fromisoformat(f"{month}{day or '-01'}{time or ''}{offset or ''}")
        start = start if start.tzinfo else start.replace(tzinfo=datetime.UTC)
        if time:
            end = start
        elif day:
            end = start + datetime.timedelta(days=1)
        else:
            end = (start + datetime.timedelta(days=31)).replace(day=1)
    except (ValueError, OverflowError):
        return None
    return (start - _EPOCH).total_seconds(), (end - _EPOCH).total_seconds()


def field_types(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The type of every leaf by dotted path: keyword, number, boolean, date, or mixed."""
    types: dict[str, str] = {}
    for path, values in flatten(metadata):
        kinds = {_kind(value) for value in values}
        if path in types:
            kinds.add(types[path])
        if kinds:
            types[path] = merge_types(*kinds)
    return types


def merge_types(*kinds: str) -> str:
    """The type of a field that has these types in different documents."""
    return kinds[0] if len(set(kinds)) == 1 else "mixed"


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "date" if isinstance(value, str) and moment(value) else "keyword"


def _object(value: Mapping[str, Any], prefix: str, depth: int) -> dict[str, Any]:
    if depth > MAX_METADATA_DEPTH:
        raise LimitExceededError(
            f"Metadata {prefix[:-1]!r} is nested {depth} deep; the limit is {MAX_METADATA_DEPTH}."
        )
    checked: dict[str, Any] = {}
    for key, inner in value.items():
        _check_key(key, prefix)
        if inner is not None:
            checked[key] = _value(inner, f"{prefix}{key}", depth)
    return checked


def _check_key(key: object, prefix: str) -> None:
    where = f" in {prefix[:-1]!r}" if prefix else ""
    if not isinstance(key, str) or not key.strip():
        raise InvalidRequestError(
            f"Metadata key {key!r}{where} is not a name.", remedy="Keys are non-empty strings."
        )
    if key.startswith("_"):
        raise InvalidRequestError(
            f"Metadata key {key!r}{where} starts with an underscore.",
            remedy="Such names belong to the index; rename the key.",
        )
    if key in RESERVED:
        raise InvalidRequestError(
            f"Metadata key {key!r}{where} is a word of the filter language.", remedy="Rename the key."
        )
    if len(prefix) + len(key) > MAX_PATH_CHARS:
        raise LimitExceededError(
            f"Metadata key {key[:40]!r}...{where} is {len(prefix) + len(key)} characters long with the keys "
            f"around it; the limit is {MAX_PATH_CHARS}."
        )
    _check_text(key, f"{prefix}{key}")


def _value(value: object, path: str, depth: int) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, Mapping):
        return _object(value, f"{path}.", depth + 1)
    if isinstance(value, list | tuple):
        if len(value) > MAX_LIST_VALUES:
            raise LimitExceededError(
                f"Metadata {path!r} has {len(value)} values; the limit is {MAX_LIST_VALUES}."
            )
        return [_scalar(element, path) for element in value]
    return _scalar(value, path)


def _scalar(value: object, path: str) -> str | int | float | bool:
    if isinstance(value, str):
        _check_text(value, path)
        return value
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise InvalidRequestError(
            f"Metadata {path!r} is {value}, past the largest exact integer {MAX_INTEGER}.",
            remedy="Store it as a string.",
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequestError(f"Metadata {path!r} is {value}, which JSON cannot hold.")
    if isinstance(value, bool | int | float):
        return value
    raise InvalidRequestError(
        f"Metadata {path!r} holds a {type(value).__name__}.",
        remedy="Values are strings, numbers, booleans, lists of those, or objects.",
    )


def _check_text(text: str, path: str) -> None:
    if not encodable(text) or "\0" in text:
        raise InvalidRequestError(f"Metadata {path!r} holds text that is not valid Unicode.")


def encodable(text: str) -> bool:
    """Whether the text has a UTF-8 form: False for lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
