"""What ingestion reports of each source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pipeline.errors import LongleafError
from pipeline.read.builder import clean
from pipeline.records import DocumentRecord, VersionRecord

Seconds = Mapping[str, float]
Status = Literal["created", "replaced", "unchanged", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What became of one source. It is durable and searchable unless ``failed``, or ``skipped`` because a
    document of that id was there.

    ``code``, ``message`` and ``remedy`` say what failed. ``seconds`` are by stage; the parts that
    documents share (embedding and indexing several together) are divided by their tokens.
    """

    name: str
    document_id: str
    status: Status
    version: int = 0
    title: str = ""
    code: str = ""
    message: str = ""
    remedy: str = ""
    warnings: tuple[str, ...] = ()
    pages: int = 0
    chars: int = 0
    tokens: int = 0
    passages: int = 0
    units: int = 0
    windowing: str = ""
    seconds: Seconds = field(default_factory=dict)

    @classmethod
    def failed(cls, name: str, document_id: str, error: Exception) -> IngestResult:
        """A source that could not be ingested, with what is wrong and what to do. Names and messages may come
        from a file system, and are made what can be stored and sent."""
        if isinstance(error, LongleafError):
            said = (error.code, error.message, error.remedy)
        else:
            said = (
                "internal",
                f"{type(error).__name__}: {error}",
                "This is a defect of Longleaf: report it.",
            )
        code, message, remedy = said
        return cls(
            clean(name), clean(document_id), "failed", code=code, message=clean(message), remedy=remedy
        )

    @classmethod
    def stored(
        cls,
        record: VersionRecord | DocumentRecord,
        status: Status,
        version: int,
        seconds: Mapping[str, float],
    ) -> IngestResult:
        """A source that is in the ledger as this record says."""
        return cls(
            name=record.source_name,
            document_id=record.id if isinstance(record, DocumentRecord) else record.document_id,
            status=status,
            version=version,
            title=record.title,
            warnings=record.warnings,
            pages=record.pages,
            chars=record.chars,
            tokens=record.tokens,
            passages=record.passages,
            units=record.units,
            windowing=record.windowing,
            seconds=seconds,
        )

    @classmethod
    def unchanged(cls, name: str, record: DocumentRecord, seconds: Seconds) -> IngestResult:
        """A source whose live version is the same already; ``name`` is what it is called now."""
        return replace(cls.stored(record, "unchanged", record.version, seconds), name=name)
