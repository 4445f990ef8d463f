"""The stages that a source passes on its way in, and the journal in which their results may be kept.

With a journal a stage that was finished before is not run again: its result is taken from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sqlalchemy.engine import Connection

from pipeline.chunk import ChunkConfig, chunk
from pipeline.learning import embed_stored
from pipeline.read import Limits
from pipeline.records import Published, VersionKey
from pipeline.seams import Embedder
from pipeline.sources import Arrival, Claim, Source, arrive, claim
from pipeline.types import ChunkedDocument, Document, DocumentEmbeddings, Fingerprint


class Journal(Protocol):
    """Remembers what finished stages made of sources, by their claim."""

    def original(self, claimed: Claim) -> Path | None:
        """The source's file, where it lies on the ledger's disk already and stays as it is."""
        ...

    def document(self, claimed: Claim) -> Document | None:
        """What was read."""
        ...

    def keep_document(self, claimed: Claim, document: Document) -> None:
        """Reading is done."""
        ...

    def chunks(
        self, claimed: Claim, document: Document, fingerprint: Fingerprint, config: ChunkConfig
    ) -> ChunkedDocument | None:
        """How it was cut, with these settings."""
        ...

    def keep_chunks(
        self, claimed: Claim, chunked: ChunkedDocument, fingerprint: Fingerprint, config: ChunkConfig
    ) -> None:
        """Chunking is done."""
        ...

    def vectors(
        self, claimed: Claim, chunked: ChunkedDocument, fingerprint: Fingerprint
    ) -> DocumentEmbeddings | None:
        """Its vectors, of this embedder."""
        ...

    def keep_vectors(self, claims: Sequence[Claim], made: Sequence[DocumentEmbeddings]) -> None:
        """Embedding is done, of these documents together."""
        ...

    def published(
        self,
        connection: Connection,
        claims: Sequence[Claim],
        keys: Sequence[VersionKey],
        published: Sequence[Published],
    ) -> None:
        """Indexing is done: within the transaction that makes these documents live. What it raises
        undoes that."""
        ...


@dataclass(frozen=True, slots=True)
class Stages:
    """How sources become documents, chunks and vectors, for one call of ingestion."""

    embedder: Embedder
    chunking: ChunkConfig
    limits: Limits
    spool: Path
    journal: Journal | None = None
    cancelled: Callable[[], bool] | None = None

    def claim(self, source: Source) -> Claim:
        """Check and hash a source."""
        return claim(source, self.limits)

    def read(self, claimed: Claim) -> Arrival:
        """Parse a source."""
        if self.journal is None:
            return arrive(claimed, self.spool, self.limits, cancelled=self.cancelled)
        original = self.journal.original(claimed)
        document = self.journal.document(claimed)
        if document is not None:
            return Arrival(claimed, document, original)
        arrival = arrive(claimed, self.spool, self.limits, original, self.cancelled)
        self.journal.keep_document(claimed, arrival.document)
        return arrival

    def chunk(self, claimed: Claim, document: Document) -> ChunkedDocument:
        """Tokenise and cut a document."""
        made_with = (self.embedder.fingerprint, self.chunking)
        known = self.journal.chunks(claimed, document, *made_with) if self.journal else None
        if known is not None:
            return known
        chunked = chunk(document, self.embedder.encode(document.text), self.chunking)
        if self.journal and chunked.passages:
            self.journal.keep_chunks(claimed, chunked, *made_with)
        return chunked

    def embed(
        self, claims: Sequence[Claim], chunked: Sequence[ChunkedDocument], progress: Callable[[int], None]
    ) -> list[DocumentEmbeddings]:
        """Vectors of these documents; ``progress`` is told of tokens."""
        if self.journal is None:
            return embed_stored(self.embedder, chunked, progress)
        print_ = self.embedder.fingerprint
        pairs = list(zip(claims, chunked, strict=True))
        known = [self.journal.vectors(claimed, each, print_) for claimed, each in pairs]
        missing = [i for i, vectors in enumerate(known) if vectors is None]
        if missing:
            made = embed_stored(self.embedder, [chunked[i] for i in missing], progress)
            self.journal.keep_vectors([claims[i] for i in missing], made)
            fresh = iter(made)
            known = [next(fresh) if vectors is None else vectors for vectors in known]
        return [vectors for vectors in known if vectors is not None]
