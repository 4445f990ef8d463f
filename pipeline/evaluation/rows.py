"""Files of one JSON object a line: every fault is noted with file and line, and reading goes on."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SUFFIXES = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file, with ways to ask for its fields that note what is wrong."""

    place: str
    values: Mapping[str, Any]
    problems: list[str]

    def wrong(self, what: str) -> None:
        """Note a fault of this line."""
        self.problems.append(f"{self.place}: {what}")

    def text(self, name: str, *, required: bool = False) -> str:
        """A field that is a text, or nothing where there is none or another kind of value."""
        value = self.values.get(name)
        if value is None and not required:
            return ""
        if not isinstance(value, str) or (required and not value.strip()):
            self.wrong(f"{name} is {short(value)}; it must be a text{' with words' * required}.")
            return ""
        return value


@dataclass(frozen=True, slots=True)
class File:
    """The rows of one file. ``whole`` is False where some could not be read: their ids may be named."""

    rows: Sequence[Row]
    whole: bool


def paths(folder: Path, name: str) -> list[Path]:
    """The files of this name there are, plain and packed."""
    return [path for suffix in _SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]


def read(folder: Path, name: str, problems: list[str]) -> File:
    """Every row of a file; ``problems`` gets what is wrong with it."""
    found = paths(folder, name)
    if len(found) != 1:
        both = " and ".join(path.name for path in found)
        why = f"there are {both}; keep one of them." if found else "there is no such file."
        problems.append(f"{folder / name}.jsonl: {why}")
        return File((), whole=False)
    [path] = found
    rows: list[Row] = []
    told, number = len(problems), 0
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                text = line.decode("utf-8-sig")
                if text.strip():
                    try:
                        rows.append(Row(f"{path}:{number}", _parsed(text), problems))
                    except ValueError as error:
                        problems.append(f"{path}:{number}: {error}")
    except UnicodeDecodeError as error:
        byte = f"0x{error.object[error.start]:02x} at byte {error.start + 1}"
        problems.append(f"{path}:{number}: this line is not UTF-8 ({byte}); save the file as UTF-8.")
    except (OSError, EOFError, zlib.error) as error:
        problems.append(f"{path}:{number + 1}: it cannot be read: {error}.")
    return File(rows, whole=len(problems) == told)


def _parsed(line: str) -> Mapping[str, Any]:
    """The object of a line. Raises ValueError that says what the line is instead."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not value:
        raise ValueError("this line is not a JSON object.")
    if "\\ud" in line.casefold():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise ValueError(f"{half} alone is half of a character; leave it out.") from error
    return value


def short(value: object) -> str:
    """How a value is told in a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
