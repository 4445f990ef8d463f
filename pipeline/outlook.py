"""What an ingestion would do with a source: found out without parsing it, and without writing anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

from pipeline.errors import LongleafError
from pipeline.jobs import OnConflict
from pipeline.preparing import met
from pipeline.read import SUFFIXES, Limits
from pipeline.records import DocumentRecord
from pipeline.results import IngestResult, Status
from pipeline.sources import Source, claim


@dataclass(frozen=True, slots=True)
class Outlook:
    """What would become of one source. Whether its format is what it says, and whether it can be read,
    only reading tells."""

    name: str
    document_id: str
    status: Status
    bytes: int = 0
    format: str = ""
    code: str = ""
    message: str = ""
    remedy: str = ""


def foresee(
    source: Source, find: Callable[[str], DocumentRecord | None], on_conflict: OnConflict, limits: Limits
) -> Outlook:
    """Hash a source and compare it with the document of its id, which ``find`` gives."""
    name = source.document_id or source.name
    try:
        claimed = claim(source, limits)
        name = claimed.document_id
        known = find(name)
        settled = met(claimed, known, on_conflict, {})
    except LongleafError as error:
        failed = IngestResult.failed(source.name, name, error)
        return Outlook(
            failed.name,
            failed.document_id,
            failed.status,
            code=failed.code,
            message=failed.message,
            remedy=failed.remedy,
        )
    status: Status = settled.status if settled else "replaced" if known else "created"
    return Outlook(claimed.source.name, name, status, claimed.bytes, _format(source))


def _format(source: Source) -> str:
    """As it is declared, or as its name says; empty where only its bytes would tell."""
    suffix = PurePath(source.name).suffix.lower()
    return source.media_type or ("text" if source.text is not None else SUFFIXES.get(suffix, ""))
