"""Manifests: JSON lines that say what to ingest, one document a line.

``{"path": "a/lease.pdf", "id": "lease", "title": "Lease", "metadata": {"year": 1869}}``, with paths from the
manifest's folder, or ``{"id": "note", "text": "..."}``. The whole manifest is checked before any work.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.sources import mode_of
from pipeline.errors import InvalidRequestError, NotFoundError

if TYPE_CHECKING:
    from pipeline.sources import Source

FIELDS: Mapping[str, type] = {
    "path": str,
    "text": str,
    "id": str,
    "title": str,
    "media_type": str,
    "metadata": dict,
}


def read_manifest(
    path: Path, metadata: Mapping[str, Any], prefix: str = "", others: Sequence[Source] = ()
) -> list[Source]:
    """The sources of a manifest; a line's own metadata goes over ``metadata``, and ``prefix`` before paths
    that become ids. ``others`` are ingested with them.

    Raises NotFoundError for a manifest that is not there, and InvalidRequestError, naming the line, for one
    that is malformed, names a file that is not there, or an id twice or that another file of ``others`` has.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # no other line break ends a line of JSON
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no manifest {path}.", remedy="Check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path} cannot be read: {error}.", remedy="Write it as UTF-8.") from error
    sources: list[Source] = []
    seen: dict[str, str] = {}
    beside = {_document_id(other, "the command line"): _file(other) for other in others}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        source = _source(_fields(line, where), path.parent, metadata, prefix, where)
        name = _document_id(source, where)
        if name in beside and beside[name] != _file(source):
            seen[name] = "on the command line"
        if name and name in seen:
            raise InvalidRequestError(
                f"{where}: {name[:80]!r} is {seen[name]} already.", remedy="Give each its own id."
            )
        seen[name] = f"in line {number}"
        sources.append(source)
    if not sources:
        raise InvalidRequestError(f"{path} has no line.", remedy="Write one JSON object for each document.")
    return sources


def _fields(line: str, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"{where} is not JSON ({error}).", remedy="One object in each line."
        ) from error
    if not isinstance(fields, dict):
        raise InvalidRequestError(f"{where} is no object.", remedy='Write {"path": "file.pdf"}.')
    for key, value in fields.items():
        kind = FIELDS.get(key)
        if kind is None or not isinstance(value, kind):
            raise InvalidRequestError(
                f"{where}: {key[:40]!r} is {'unknown' if kind is None else 'of the wrong type'}.",
                remedy=f"Fields are {', '.join(FIELDS)}; metadata is an object, the others are strings.",
            )
    return fields


def _source(
    fields: dict[str, Any], folder: Path, metadata: Mapping[str, Any], prefix: str, where: str
) -> Source:
    from pipeline.sources import Source

    if ("path" in fields) == ("text" in fields):
        raise InvalidRequestError(f"{where} must have either a path or a text.", remedy="Give one of them.")
    data = folder / fields["path"] if "path" in fields else None
    if data is not None and not stat.S_ISREG(mode_of(data)):
        raise InvalidRequestError(
            f"{where}: there is no file {fields['path'][:200]!r}.",
            remedy="Paths are relative to the manifest's folder.",
        )
    return Source(
        name=prefix + fields["path"] if "path" in fields else "",
        data=data,
        text=fields.get("text"),
        media_type=fields.get("media_type"),
        metadata={**metadata, **fields.get("metadata", {})},
        document_id=fields.get("id"),
        title=fields.get("title"),
    )


def _file(source: Source) -> Path | None:
    return source.data.resolve() if isinstance(source.data, Path) else None


def _document_id(source: Source, where: str) -> str:
    """The id that it gets; empty where that depends on its content."""
    from pipeline.sources import identify

    if source.document_id is None and not source.name:
        return ""
    try:
        return identify(source, "")
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{where}: {error.message}", remedy=error.remedy) from error
