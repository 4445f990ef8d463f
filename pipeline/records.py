"""What the ledger returns: frozen records, and the names they may have."""

from __future__ import annotations

import re
import unicodedata
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from pipeline.errors import InvalidRequestError

MAX_DOCUMENT_ID_CHARS = 256

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_NAMESPACE = uuid.UUID("6f2b2f6e-5d0c-5d0a-9f0e-6c6f6e676c66")


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """A collection and what all its documents share.

    ``fingerprint`` is ``str(Fingerprint)`` of the embedder, ``chunking`` the chunker's settings and
    ``lexical`` the analyser's parameters with the frozen average lengths.
    """

    tenant: str
    name: str
    fingerprint: str
    chunking: Mapping[str, Any]
    lexical: Mapping[str, Any]
    settings: Mapping[str, Any]
    created: datetime


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """One version of a document, before the ledger has given it a number and a date.

    ``sha256`` is of the original's bytes; ``digest`` also covers the title and the metadata, so equal
    digests mean that there is nothing to do. ``metadata`` is what filters see: the caller's over the
    reader's.
    """

    document_id: str
    sha256: str
    digest: str
    title: str
    media_type: str
    source_name: str
    metadata: Mapping[str, Any]
    bytes: int
    pages: int
    chars: int
    tokens: int
    passages: int
    units: int
    windowing: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """A version of a document, the live one unless another was asked for. ``created`` is when its first
    version was stored, ``updated`` when this one was; both UTC."""

    tenant: str
    collection: str
    id: str
    version: int
    sha256: str
    digest: str
    title: str
    media_type: str
    source_name: str
    metadata: Mapping[str, Any]
    bytes: int
    pages: int
    chars: int
    tokens: int
    passages: int
    units: int
    windowing: str
    warnings: tuple[str, ...]
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True, order=True)
class VersionKey:
    """Names one version of one document, and thereby its folder and its points."""

    tenant: str
    collection: str
    document_id: str
    version: int

    @property
    def folder(self) -> str:
        """Where its files are, below ``documents/``."""
        name = folder_of(self)
        return f"{name[:2]}/{name}/{self.version}"


class LiveVersion(NamedTuple):
    """The version of a document that readers see, and how many passages it has."""

    version: int
    passages: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the live documents of a collection."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    passages: int = 0
    units: int = 0


@dataclass(frozen=True, slots=True)
class Published:
    """What became of one staged version: which live version it replaced (0: none), and which
    versions are to be removed now, or taken out of the index and kept. ``superseded`` is true when a
    newer one had been published."""

    replaced: int
    retired: tuple[VersionKey, ...] = field(default=())
    superseded: bool = False
    shelved: tuple[VersionKey, ...] = field(default=())


def derived_id(*parts: str | int) -> str:
    """The UUIDv5 that these parts always have; no part may contain a line break."""
    return str(uuid.uuid5(_NAMESPACE, "\n".join(map(str, parts))))


def folder_of(key: VersionKey) -> str:
    """Name of the folder of all versions of a document. It does not tell the document's id."""
    return derived_id(key.tenant, key.collection, key.document_id)


def check_name(kind: str, name: str) -> str:
    """A tenant's or collection's name. Raises InvalidRequestError saying what it may be."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{kind.capitalize()} name {_shown(name)} is not valid.",
            remedy="Use 1 to 64 of A-Z a-z 0-9 _ . - and begin with a letter, digit or underscore.",
        )
    return name


def tenant_option(tenant: str) -> str:
    """What makes a command line that is recommended mean this tenant, to be put behind it."""
    return "" if tenant == "default" else f" --tenant {tenant}"


def check_document_id(document_id: str) -> str:
    """A document id in NFC, as it is stored and compared. Raises InvalidRequestError."""
    name = unicodedata.normalize("NFC", document_id) if isinstance(document_id, str) else ""
    if (
        not name.strip()
        or name != name.strip()
        or not name.isprintable()
        or len(name) > MAX_DOCUMENT_ID_CHARS
    ):
        raise InvalidRequestError(
            f"Document id {_shown(document_id)} is not valid.",
            remedy=f"Use 1 to {MAX_DOCUMENT_ID_CHARS} printable characters without surrounding spaces.",
        )
    return name


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}... ({len(text)} characters)"
