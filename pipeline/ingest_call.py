"""One call of ingestion: what it was asked for, its last word before documents go live, what is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from pipeline.errors import ConflictError
from pipeline.jobs import OnConflict
from pipeline.preparing import Prepared
from pipeline.records import Published, VersionKey, VersionRecord
from pipeline.sources import Claim
from pipeline.stages import Stages
from pipeline.storing import Entry
from pipeline.types import DocumentEmbeddings
from pipeline.watch import Watch


@dataclass(frozen=True, slots=True)
class Call:
    """What one call of ingestion was asked for."""

    tenant: str
    collection: str
    on_conflict: OnConflict
    stages: Stages
    watch: Watch


def confirm(
    call: Call,
    claims: Sequence[Claim],
    connection: Connection,
    keys: Sequence[VersionKey],
    published: Sequence[Published],
) -> None:
    """The last word before documents go live, in the same transaction. Raises to take them back."""
    if call.on_conflict == "fail" and any(each.replaced for each in published):
        raise ConflictError("A document of that id was stored meanwhile.", remedy="Look at it, and decide.")
    if call.stages.journal is not None:
        call.stages.journal.published(connection, claims, keys, published)


def entry_of(item: Prepared, embeddings: DocumentEmbeddings) -> Entry:
    """A prepared document and its vectors, ready to be written."""
    claim, chunked = item.cut.claim, item.cut.chunked
    document = chunked.document
    record = VersionRecord(
        document_id=claim.document_id,
        sha256=claim.sha256,
        digest=claim.digest,
        title=document.title,
        media_type=document.media_type,
        source_name=claim.source.name,
        metadata=document.metadata,
        bytes=claim.bytes,
        pages=len(document.pages),
        chars=len(document.text),
        tokens=len(chunked.encoding),
        passages=len(chunked.passages),
        units=len(chunked.units),
        windowing=embeddings.windowing,
        warnings=document.warnings,
    )
    return Entry(record, chunked, embeddings, item.lexical, item.cut.original)
