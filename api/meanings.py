"""What each field of a configuration class means, taken from where its author wrote it.

Looked for in this order: pydantic's ``Field(description=...)``, a string below the field, and the
words of the class's docstring that follow the field's name in double backquotes.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Collection
from typing import Any

import pydantic


def field_names(kind: type[Any]) -> list[str]:
    """The fields of a configuration class; none for any other class."""
    if issubclass(kind, pydantic.BaseModel):
        return list(kind.model_fields)
    return [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []


def meanings(kind: type[Any]) -> dict[str, str]:
    """Field name to meaning, in order. A meaning that nobody wrote is empty."""
    names = field_names(kind)
    described = {}
    if issubclass(kind, pydantic.BaseModel):
        described = {name: field.description or "" for name, field in kind.model_fields.items()}
    found: dict[str, str] = {}
    for ancestor in kind.__mro__:
        if not field_names(ancestor):
            continue
        below = _strings_below(ancestor)
        prose = ancestor.__doc__ or ""
        for name in names:
            found[name] = found.get(name) or below.get(name) or _phrase(prose, name, names)
    return {name: described.get(name) or found.get(name, "") for name in names}


def _strings_below(kind: type[Any]) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[field.target.id] = " ".join(after.value.value.split())
    return found


def _phrase(prose: str, name: str, names: Collection[str]) -> str:
    """What follows ``name`` in double backquotes, up to the next field or the end of the sentence."""
    flat = " ".join(prose.split())
    _, mark, rest = flat.partition(f"``{name}``")
    if not mark:
        return ""
    stops = [m.start() for other in names if (m := re.search(f"``{other}``", rest))]
    end = re.search(r"\.(?=\s|$)", rest)
    stops.append(end.start() if end else len(rest))
    phrase = re.sub(r"[\s,;]*\b(and)?$", "", rest[: min(stops)].strip()).strip(" ,;")
    if len(phrase.split()) > 1:
        return phrase
    sentences = re.split(r"(?<=[.;])\s+", flat)
    return next(text for text in sentences if mark in text).replace("``", "").strip(" .;")
