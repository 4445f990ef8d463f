"""Values of the pipeline as JSON has them: the same shape on the command line and over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from pipeline.errors import LongleafError


def plain(value: Any) -> Any:  # noqa: ANN401, PLR0911 - any value in; a return for each kind
    """Dataclasses become objects, errors ``code``, ``message`` and ``remedy``, times ISO 8601."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path | SecretStr):  # a secret says that it is one, and no more
        return str(value)
    if isinstance(value, LongleafError):
        return {"code": value.code, "message": value.message, "remedy": value.remedy}
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")
