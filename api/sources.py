"""Paths from the command line as sources for ingestion: files, folders, and standard input."""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InvalidRequestError
from pipeline.read import SUFFIXES, SUPPORTED

if TYPE_CHECKING:
    from pipeline.sources import Source

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Found:
    """One file to ingest and the name it goes by: relative to the folder it was found in."""

    path: Path
    name: str


def find(paths: Sequence[str]) -> tuple[list[Found], list[Path]]:
    """Files to ingest, folders searched to the bottom, and the files there of no known format. What is no
    file but a pattern (``reports/**/*.pdf``) stands for the files that fit it.

    A file named outright is always taken, whatever its suffix, existing or not, so that its own error
    is told. Raises InvalidRequestError for a folder in which there is nothing to read.
    """
    found: list[Found] = []
    skipped: list[Path] = []
    for given in paths:
        path = Path(given)
        if glob.has_magic(given) and not path.exists():
            found += _fitting(given)
            continue
        if not path.is_dir():
            found.append(Found(path, path.name))
            continue
        known, unknown = _split(path)
        if not known:
            raise InvalidRequestError(
                f"The folder {str(path)!r} has no file that can be read ({len(unknown)} of other kinds).",
                remedy=f"Formats: {SUPPORTED}. Name a file outright to have it tried whatever its suffix.",
            )
        found += [Found(file, file.relative_to(path).as_posix()) for file in known]
        skipped += unknown
    _refuse_twins(found)
    return found, skipped


def _fitting(pattern: str) -> list[Found]:
    """Files that fit a pattern, named from its first folder with a wildcard on; ``**`` is any folders."""
    parts = Path(pattern).parts
    fixed = Path(*takewhile(lambda part: not glob.has_magic(part), parts))
    rest = "/".join(parts[len(fixed.parts) :])
    files = sorted(path for path in fixed.glob(rest) if path.is_file() and not _hidden(path, fixed))
    if not files:
        raise InvalidRequestError(
            f"No file fits the pattern {pattern!r}.", remedy="Write ** for any number of folders."
        )
    return [Found(path, path.relative_to(fixed).as_posix()) for path in files]


def _refuse_twins(found: Sequence[Found]) -> None:
    """Two files of one name would be two versions of one document, and only the last would remain."""
    first: dict[str, Path] = {}
    for item in found:
        twin = first.setdefault(item.name, item.path)
        if twin.resolve() != item.path.resolve():
            raise InvalidRequestError(
                f"{str(twin)!r} and {str(item.path)!r} would both be the document {item.name!r}.",
                remedy="Ingest the folder above them, or one at a time with --id.",
            )


def _split(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files below a folder that look readable, and the others; hidden ones are left out of both."""
    known: list[Path] = []
    unknown: list[Path] = []
    for file in sorted(folder.rglob("*")):
        if not _hidden(file, folder) and file.is_file():
            (known if file.suffix.lower() in SUFFIXES else unknown).append(file)
    return known, unknown


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def read_metadata(given: Sequence[str]) -> dict[str, Any]:
    """``key=value`` pairs and JSON objects, merged in order. A value that is JSON counts as JSON."""
    metadata: dict[str, Any] = {}
    for item in given:
        if item.lstrip().startswith("{"):
            metadata.update(_object(item))
            continue
        key, equals, value = item.partition("=")
        if not (equals and key.strip()):
            raise InvalidRequestError(
                f"Metadata {item!r} is neither key=value nor a JSON object.",
                remedy="Write --metadata year=1869.",
            )
        metadata[key.strip()] = _value(value)
    return metadata


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidRequestError(
            f"Metadata {text!r} is not valid JSON: {error}.", remedy="Write --metadata '{\"year\": 1869}'."
        ) from error
    assert isinstance(value, dict)  # it begins with a brace
    return value


def _value(text: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def to_sources(
    found: Sequence[Found],
    *,
    metadata: Mapping[str, Any],
    document_id: str | None,
    title: str | None,
    password: str | None,
) -> Iterator[Source]:
    """Sources in order. Standard input is read when its turn comes. ``document_id`` and ``title`` are for
    one source only: raises InvalidRequestError otherwise."""
    from pipeline.sources import Source

    if len(found) != 1 and (document_id or title):
        raise InvalidRequestError(
            f"--id and --title name one document, but there are {len(found)} files.",
            remedy="Ingest it alone.",
        )
    for item in found:
        is_input = str(item.path) == STANDARD_INPUT
        yield Source(
            name="" if is_input else item.name,
            data=sys.stdin.buffer.read() if is_input else item.path,
            metadata=metadata,
            document_id=document_id,
            title=title,
            password=password,
        )


class Watcher:
    """Tells which files of some paths are new or changed since it last did, once they are written.

    A file counts as written when two looks in a row find the same size and time.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = [path for path in paths if path != STANDARD_INPUT]
        self._seen: dict[Path, tuple[int, int]] = {}
        self._told: dict[Path, tuple[int, int]] = {}

    def changed(self) -> list[Found]:
        """Files to ingest now. A folder that is empty, or gone for the moment, has none."""
        found = []
        for path in self._paths:
            with suppress(InvalidRequestError):
                found += find([path])[0]
        ready = []
        before, self._seen = self._seen, {}
        for item in found:
            with suppress(OSError):
                state = item.path.stat()
                stamp = (state.st_mtime_ns, state.st_size)
                self._seen[item.path] = stamp
                if before.get(item.path) == stamp != self._told.get(item.path):
                    self._told[item.path] = stamp
                    ready.append(item)
        return ready
