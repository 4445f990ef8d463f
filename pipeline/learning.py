"""What an embedder learns of the documents: from the first that are stored, or anew from a collection.

Embedders that wrap another one (``centred``, ``whitened``) take what vectors share from the first documents
ingested (:func:`embed_stored`). These may be few and alike, so :func:`learn` lets them learn it from
documents drawn from a collection.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.chunk import ChunkConfig, chunk
from pipeline.errors import ConfigurationError, InvalidRequestError
from pipeline.ledger import Ledger
from pipeline.records import VersionKey
from pipeline.seams import Embedder, Learner
from pipeline.types import ChunkedDocument, DocumentEmbeddings


def embed_stored(
    embedder: Embedder,
    documents: Sequence[ChunkedDocument],
    progress: Callable[[int], None] | None = None,
) -> list[DocumentEmbeddings]:
    """Vectors of documents that are about to be stored: the first ones are those that some learn from."""
    embed = embedder.learn if isinstance(embedder, Learner) else embedder.embed_documents
    return list(embed(documents, progress))


@dataclass(frozen=True, slots=True)
class Learnt:
    """From how much it was learnt, what the vectors are called from now on, and which collections (tenant and
    name) must be indexed anew before they can be searched again."""

    documents: int
    tokens: int
    vectors: int
    fingerprint: str
    outdated: Sequence[tuple[str, str]]


def learn(
    ledger: Ledger,
    embedder: Embedder,
    chunking: ChunkConfig,
    *,
    tenant: str = "default",
    collection: str = "default",
    tokens: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Learnt:
    """Let ``embedder`` learn from documents drawn from a collection, of about so many ``tokens`` at most.

    Collections indexed with what it knew before must be indexed anew. ``progress`` is told tokens read and
    to be read. Raises ConfigurationError if it learns nothing from documents, InvalidRequestError for a
    collection without text, NotFoundError, and UnavailableError while another process ingests.
    """
    if not isinstance(embedder, Learner):
        raise ConfigurationError(
            "The configured embedder learns nothing from documents.",
            remedy="Set embedder.name to whitened or centred, then run this and `longleaf reindex`.",
        )
    documents = list(ledger.every_document(tenant, collection))
    ledger.own_ingestion()
    taken: list[ChunkedDocument] = []
    total = 0
    random.Random(0).shuffle(documents)  # noqa: S311 - which documents, no secret
    for document in documents:
        if total >= tokens:
            break
        stored = ledger.originals.document(VersionKey(tenant, collection, document.id, document.version))
        made = chunk(stored, embedder.encode(stored.text), chunking)
        if made.units:
            taken.append(made)
            total += len(made.encoding)
    if not taken:
        raise InvalidRequestError(
            f"Collection {collection!r} has no text to learn from.", remedy="Ingest documents first."
        )
    before, done = str(embedder.fingerprint), 0

    def read(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    vectors = sum(len(made.units) for made in embedder.learn(taken, read, anew=True))
    outdated = [(c.tenant, c.name) for c in ledger.collections() if c.fingerprint == before]
    return Learnt(len(taken), total, vectors, str(embedder.fingerprint), outdated)
