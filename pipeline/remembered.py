"""Small files of what was computed once. Each is a cache: losing one costs computing it again, no more."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def recall(file: Path) -> Any:  # noqa: ANN401 - whatever was remembered
    """The JSON value that was remembered; None where there is none, or the file is damaged."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def remember(file: Path, content: Any) -> None:  # noqa: ANN401 - any JSON value
    """Replace the file in one step. A folder that cannot be written is no error."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.stem}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as aside:
                json.dump(content, aside, indent=1)
            Path(temporary).replace(file)
        finally:
            Path(temporary).unlink(missing_ok=True)
