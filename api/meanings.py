"""What each field of a configuration class means: the string below it in the source."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from typing import Any

import pydantic


def field_names(kind: type[Any]) -> list[str]:
    """The fields of a configuration class; none for any other class."""
    if issubclass(kind, pydantic.BaseModel):
        return list(kind.model_fields)
    return [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []


def meanings(kind: type[Any]) -> dict[str, str]:
    """Field name to meaning, in order, inherited ones included. A meaning that nobody wrote is empty."""
    written: dict[str, str] = {}
    for ancestor in reversed(kind.__mro__):
        if field_names(ancestor):
            written |= _strings_below(ancestor)
    return {name: written.get(name, "") for name in field_names(kind)}


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
