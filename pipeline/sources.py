"""What is to be ingested, under which id, and whether it is news."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import unicodedata
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import InvalidRequestError, LimitExceededError, NotFoundError, ReadError
from pipeline.metadata import indexable
from pipeline.originals import disk_errors
from pipeline.read import Limits, read
from pipeline.read.builder import clean
from pipeline.read.text import from_text
from pipeline.records import MAX_DOCUMENT_ID_CHARS, check_document_id
from pipeline.types import Document

MAX_TITLE_CHARS = 500

_BLOCK_BYTES = 1 << 20
# Clients shorten an address with such a segment, and would mean another document or a whole collection.
_DOTS = re.compile(r"(?<![^/\\])\.{1,2}(?![^/\\])")


@dataclass(frozen=True, slots=True)
class Source:
    """One document as its giver has it: either ``data`` (a file's bytes or path) or ``text``.

    ``name`` is the file's relative path or another label; it is the document's id unless
    ``document_id`` is given. ``title`` overrides the file's own, ``metadata`` goes over what the
    file says of itself. The password is used for reading and kept nowhere.
    """

    name: str
    data: bytes | Path | None = None
    text: str | None = None
    media_type: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    document_id: str | None = None
    title: str | None = None
    password: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """What a source says it is, checked; ``metadata`` is ready to be indexed.

    The source's name is as it can be stored. Equal ``digest`` means equal content, title, media type and
    metadata.
    """

    source: Source
    document_id: str
    title: str
    metadata: Mapping[str, Any]
    sha256: str
    digest: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """A source that has been read. ``original`` is its copy on the ledger's disk, None for a text."""

    claim: Claim
    document: Document
    original: Path | None
    seconds: Mapping[str, float] = field(default_factory=dict)


def claim(source: Source, limits: Limits) -> Claim:
    """Check a source and hash its content, without parsing or copying it.

    Raises InvalidRequestError, LimitExceededError, or ReadError for a file that cannot be opened.
    """
    if (source.data is None) == (source.text is None):
        raise InvalidRequestError(
            f"{source.name!r} must have either a file or a text.", remedy="Give one of data and text."
        )
    size, sha256 = _measure(source, limits)
    metadata = indexable(source.metadata)
    title = " ".join(clean(source.title or "").split())[:MAX_TITLE_CHARS]
    said = json.dumps([sha256, title, source.media_type or "", metadata], sort_keys=True)
    return Claim(
        source=replace(source, name=clean(source.name)),
        document_id=identify(source, sha256),
        title=title,
        metadata=metadata,
        sha256=sha256,
        digest=hashlib.sha256(said.encode()).hexdigest(),
        bytes=size,
    )


def identify(source: Source, sha256: str) -> str:
    """The document id of a source: as given, or its name made valid, or from its content.

    Raises InvalidRequestError for a given id that is not valid.
    """
    if source.document_id is not None:
        given = check_document_id(source.document_id)
        if dots := _DOTS.search(given):
            raise InvalidRequestError(
                f"Document id {given!r} has the part {dots[0]!r}, which clients shorten away in addresses.",
                remedy="Choose an id without the parts '.' and '..' between slashes.",
            )
        return given
    name = unicodedata.normalize("NFC", source.name.encode("utf-8", "replace").decode())
    plain = "".join(c if c.isprintable() else "_" for c in name).strip()
    plain = _DOTS.sub(lambda dots: "_" * len(dots[0]), plain)
    if plain == unicodedata.normalize("NFC", source.name) and 0 < len(plain) <= MAX_DOCUMENT_ID_CHARS:
        return plain
    if not plain:
        return f"text-{sha256[:16]}"
    mark = hashlib.sha256(source.name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{plain[: MAX_DOCUMENT_ID_CHARS - 13].strip()}-{mark}"


def arrive(
    claimed: Claim,
    spool: Path,
    limits: Limits,
    original: Path | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Arrival:
    """Copy a claimed source to ``spool`` and parse the copy, or parse ``original``, which is one.

    Raises a ReadError for what cannot become a document, ReadError also for a file that changed
    since it was hashed, DiskFullError when there is no room for the copy.
    """
    source = claimed.source
    if source.text is not None:
        return Arrival(claimed, _from_text(source, claimed), None)
    copy = original or spool / uuid.uuid4().hex
    try:
        if original is None:
            _copy(source, claimed, copy)
        document = read(
            copy,
            name=source.name or claimed.document_id,
            media_type=source.media_type,
            password=source.password,
            limits=limits,
            cancelled=cancelled,
        )
    except BaseException:
        if original is None:
            copy.unlink(missing_ok=True)
        raise
    return Arrival(claimed, document, copy)


def _from_text(source: Source, claimed: Claim) -> Document:
    return from_text(source.text or "", title=claimed.title or source.name or claimed.document_id)


def _measure(source: Source, limits: Limits) -> tuple[int, str]:
    if isinstance(source.data, Path):
        return _measure_file(source.data, limits)
    content = source.data if source.data is not None else (source.text or "").encode("utf-8", "surrogatepass")
    _check_size(source.name, len(content), limits)
    return len(content), hashlib.sha256(content).hexdigest()


def _measure_file(path: Path, limits: Limits) -> tuple[int, str]:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or device may have no end
            raise ReadError(f"{path} is not a file.", remedy="Name a file.")
        size = status.st_size
        _check_size(str(path), size, limits)
        with path.open("rb") as file:
            return size, hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no file {path}.", remedy="Check the path.") from error
    except OSError as error:
        raise ReadError(
            f"{path} cannot be opened ({error.strerror}).", remedy="Check that it is a file you may read."
        ) from error


def _check_size(name: str, size_bytes: int, limits: Limits) -> None:
    if size_bytes > limits.input_bytes:
        raise LimitExceededError(
            f"{name} has {size_bytes:,} bytes; the limit is {limits.input_bytes:,}.",
            remedy="Split the file, or raise the reading limit input_bytes.",
        )


def _copy(source: Source, claimed: Claim, copy: Path) -> None:
    digest = hashlib.sha256()
    with disk_errors(copy), copy.open("wb") as target:
        if isinstance(source.data, Path):
            with source.data.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
                    target.write(block)
        else:
            digest.update(source.data or b"")
            target.write(source.data or b"")
    if digest.hexdigest() != claimed.sha256:
        raise ReadError(
            f"{source.name} changed while it was being read.", remedy="Ingest it again when it is complete."
        )
