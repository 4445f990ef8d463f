"""Paths from the command line as sources for ingestion: files, folders, patterns, and standard input."""

from __future__ import annotations

import glob
import json
import os
import stat
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

    @property
    def document_id(self) -> str:
        """The id it gets unless another is given. Names that differ may have one id."""
        from pipeline.sources import Source, identify

        return identify(Source(name=self.name), "")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What lies in a folder and is not ingested, and why."""

    path: str
    reason: str


def find(paths: Sequence[str], prefix: str = "") -> tuple[list[Found], list[LeftOut]]:
    """Files to ingest, folders searched to the bottom, and what is left out there. What is no
    file but a pattern (``reports/**/*.pdf``) stands for the files that fit it. ``prefix`` goes before
    every name.

    A file named outright is always taken, whatever its suffix, existing or not, so that its own error
    is told. Raises InvalidRequestError for a folder in which there is nothing to read, and for two files
    that would be one document.
    """
    found: list[Found] = []
    left_out: list[LeftOut] = []
    for given in paths:
        there, not_taken = find_one(given, prefix)
        found += there
        left_out += not_taken
    for first, twin in twins(found):
        raise two_of_one(first, twin)
    return found, left_out


def find_one(given: str, prefix: str) -> tuple[list[Found], list[LeftOut]]:
    """What one path stands for, as :func:`find` does, whatever else would be the same documents."""
    path = Path(given)
    mode = mode_of(path)
    if glob.has_magic(given) and not mode:
        return _fitting(given, prefix), []
    if not stat.S_ISDIR(mode):
        return [Found(path, prefix + path.name)], []
    known, left_out = _walk(path)
    if not known:
        why = "; ".join(summed_up(left_out))
        raise InvalidRequestError(
            f"The folder {str(path)!r} has no file that can be read{f' ({why})' if why else ''}.",
            remedy=f"Formats: {SUPPORTED}. Name a file outright to have it tried whatever its suffix.",
        )
    return [Found(file, prefix + file.relative_to(path).as_posix()) for file in known], left_out


def mode_of(path: Path) -> int:
    """What stands there, as :mod:`stat` tells kinds apart; 0 for nothing that can be seen. ``Path.is_file``
    and its like raise for what may not be looked at, or is on a server that does not answer."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def twins(found: Sequence[Found]) -> Iterator[tuple[Found, Found]]:
    """Files that would be two versions of one document, so that only the last would remain: the first of
    that id, and the other."""
    first: dict[str, Found] = {}
    for item in found:
        other = first.setdefault(item.document_id, item)
        if other is not item and other.path.resolve() != item.path.resolve():
            yield other, item


def two_of_one(first: Found, twin: Found) -> InvalidRequestError:
    """The error that says so."""
    form = ": their names differ in their Unicode form only" if first.name != twin.name else ""
    return InvalidRequestError(
        f"{str(first.path)!r} and {str(twin.path)!r} would both be the document {twin.document_id!r}{form}.",
        remedy="Ingest the folder above them, or one at a time with --prefix or --id.",
    )


def summed_up(left_out: Iterable[LeftOut]) -> list[str]:
    """How many things were left out for each reason, with an example."""
    paths: defaultdict[str, list[str]] = defaultdict(list)
    for item in left_out:
        paths[item.reason].append(item.path)
    return [f"{reason}: {len(those)}, such as {those[0]}" for reason, those in paths.items()]


def _fitting(pattern: str, prefix: str) -> list[Found]:
    """Files that fit a pattern, named from its first folder with a wildcard on; ``**`` is any folders."""
    parts = Path(pattern).parts
    fixed = Path(*takewhile(lambda part: not glob.has_magic(part), parts))
    rest = "/".join(parts[len(fixed.parts) :])
    try:
        fitting = sorted(path for path in fixed.glob(rest) if not _hidden(path, fixed))
    except OSError as error:
        raise InvalidRequestError(
            f"The pattern {pattern!r} cannot be followed ({error.strerror}).",
            remedy=f"Check that you may read {str(fixed)!r}.",
        ) from error
    files = [path for path in fitting if stat.S_ISREG(mode_of(path))]
    if not files:
        raise InvalidRequestError(
            f"No file fits the pattern {pattern!r}.", remedy="Write ** for any number of folders."
        )
    return [Found(path, prefix + path.relative_to(fixed).as_posix()) for path in files]


def _walk(folder: Path) -> tuple[list[Path], list[LeftOut]]:
    """Files below a folder that look readable, and what else is there; hidden things are in neither."""
    known: list[Path] = []
    left_out: list[LeftOut] = []

    def leave(path: Path, reason: str) -> None:
        left_out.append(LeftOut(os.fsencode(path).decode("utf-8", "replace"), reason))

    def unreadable(error: OSError) -> None:
        leave(Path(error.filename), f"folder that cannot be read ({error.strerror})")

    for where, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(where, name) for name in folders):
            if path.is_symlink():
                leave(path, "link to a folder")
        for path in (Path(where, name) for name in files if not name.startswith(".")):
            if reason := _reason_against(path):
                leave(path, reason)
            else:
                known.append(path)
    return sorted(known), sorted(left_out, key=lambda item: item.path)


def _reason_against(path: Path) -> str:
    """Why what is no folder is left out; empty for a file that looks readable."""
    try:
        kind = path.stat().st_mode
    except OSError as error:
        what = "link that cannot be followed" if path.is_symlink() else "file that cannot be looked at"
        return f"{what} ({error.strerror})"
    if not stat.S_ISREG(kind):
        return "pipe or other special file"
    return "" if path.suffix.lower() in SUFFIXES else "another kind of file"


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
    document_id: str | None = None,
    title: str | None = None,
    password: str | None = None,
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
