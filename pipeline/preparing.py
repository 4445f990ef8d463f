"""From sources to groups of documents that only lack their vectors.

Three steps run ahead of the embedder in two threads: reading (which waits for the reader process),
then encoding, chunking and counting words. Small documents are gathered until they fill the embedder's
batches. A source that fails becomes its result and travels along in order; it never stops the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.ahead import ahead
from pipeline.chunk import ChunkConfig
from pipeline.errors import (
    ConfigurationError,
    ConflictError,
    EmptyDocumentError,
    FingerprintMismatchError,
    IndexDamagedError,
    IndexOwnedError,
    InvalidRequestError,
    MissingDependencyError,
    ModelError,
    StorageError,
    UnavailableError,
    WorkCancelledError,
)
from pipeline.jobs import OnConflict
from pipeline.layers import Lexical
from pipeline.ledger import Ledger
from pipeline.lexical import Analyser
from pipeline.metadata import indexable
from pipeline.records import CollectionRecord, DocumentRecord
from pipeline.results import IngestResult, Seconds
from pipeline.sources import Arrival, Claim, Source
from pipeline.stages import Stages
from pipeline.types import ChunkedDocument, Document
from pipeline.watch import Watch

GROUP_TOKENS = 32_000
GROUP_DOCUMENTS = 256

_READ_AHEAD = 2  # documents
_SAMPLE_PASSAGES = 50
_ORDINARY_WORDS = 2_000  # a paper or contract
_ORDINARY_DOCUMENTS = 3  # how many real ones weigh as much as that belief
_FATAL = (
    StorageError,
    UnavailableError,
    ConfigurationError,
    ModelError,
    FingerprintMismatchError,
    IndexOwnedError,
    IndexDamagedError,
    WorkCancelledError,
)


def is_fatal(error: Exception) -> bool:
    """Whether the next document would fail in the same way, so that the batch must stop."""
    return isinstance(error, _FATAL) and not isinstance(error, MissingDependencyError)  # of one format


@dataclass(frozen=True, slots=True)
class Cut:
    """A document cut into chunks."""

    claim: Claim
    original: Path | None
    chunked: ChunkedDocument
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document with everything but its vectors."""

    cut: Cut
    lexical: Lexical
    seconds: Mapping[str, float]


Group = list[Prepared | IngestResult]


@dataclass(frozen=True, slots=True)
class Preparation:
    """How the sources of one call are prepared. ``collection`` gives the record of the collection,
    making it from the first documents if there is none yet."""

    ledger: Ledger
    stages: Stages
    analyser: Analyser
    tenant: str
    collection_name: str
    collection: Callable[[Sequence[ChunkedDocument]], CollectionRecord]
    on_conflict: OnConflict
    watch: Watch

    def groups(self, sources: Iterable[Source]) -> Iterator[Group]:
        """Groups in the order of the sources. Raises what would stop every document."""
        with (
            closing(ahead(self._read(sources), _READ_AHEAD)) as arrivals,
            closing(ahead(self._counted(_grouped(self._cut(arrivals))), 1)) as groups,
        ):
            yield from groups

    def _read(self, sources: Iterable[Source]) -> Iterator[Arrival | IngestResult]:
        seen: set[str] = set()
        for source in sources:
            began = time.perf_counter()
            name = source.document_id or source.name
            try:
                self.watch.enter("reading", source.name)
                claimed = self.stages.claim(source)
                name = claimed.document_id
                known = (
                    self.ledger.find(self.tenant, self.collection_name, name) if name not in seen else None
                )
                seen.add(name)
                settled = met(claimed, known, self.on_conflict, _since("reading", began))
                yield settled or replace(self.stages.read(claimed), seconds=_since("reading", began))
            except Exception as error:  # noqa: BLE001 - one bad file, however bad, must not stop the others
                yield _failure(source.name, name, error)

    def _cut(self, arrivals: Iterable[Arrival | IngestResult]) -> Iterator[Cut | IngestResult]:
        for arrival in arrivals:
            if isinstance(arrival, IngestResult):
                yield arrival
                continue
            began = time.perf_counter()
            claimed = arrival.claim
            try:
                self.watch.enter("chunking", claimed.source.name)
                document = _finished(arrival)
                chunked = self.stages.chunk(claimed, document)
                if not chunked.passages:
                    raise EmptyDocumentError(
                        f"{claimed.source.name} has no words.",
                        remedy="If it shows images of text, run OCR first.",
                    )
                yield Cut(
                    claimed, arrival.original, chunked, {**arrival.seconds, **_since("chunking", began)}
                )
            except Exception as error:  # noqa: BLE001 - as above
                yield _failure(claimed.source.name, claimed.document_id, error)

    def _counted(self, groups: Iterable[list[Cut | IngestResult]]) -> Iterator[Group]:
        """Add lexical weights, with the average lengths that the collection was made with."""
        for group in groups:
            ready = [item.chunked for item in group if isinstance(item, Cut)]
            averages = self.collection(ready).lexical["avg_len"] if ready else {}
            yield [self._count(item, averages) if isinstance(item, Cut) else item for item in group]

    def _count(self, cut: Cut, averages: Mapping[str, float]) -> Prepared:
        began = time.perf_counter()
        weights = lexical(self.analyser, cut.chunked, averages)
        return Prepared(cut, weights, {**cut.seconds, **_since("counting", began)})


def met(
    claimed: Claim, known: DocumentRecord | None, on_conflict: OnConflict, seconds: Seconds
) -> IngestResult | None:
    """What becomes of a source whose document is ``known``; None if it is to be ingested.

    Raises ConflictError for another content where that is to fail.
    """
    if known is None:
        return None
    if known.digest == claimed.digest:
        return IngestResult.unchanged(claimed.source.name, known, seconds)
    if on_conflict == "skip":
        return replace(IngestResult.unchanged(claimed.source.name, known, seconds), status="skipped")
    if on_conflict == "fail":
        raise ConflictError(
            f"There is a document {claimed.document_id!r} with another content already.",
            remedy="Give another id, delete it first, or ask for on_conflict=replace.",
        )
    return None


def lexical(analyser: Analyser, chunked: ChunkedDocument, averages: Mapping[str, float]) -> Lexical:
    """Lexical weights of a document and its passages."""
    title, text = chunked.document.title, chunked.document.text
    return Lexical(
        analyser.whole_vector(title, text, averages["documents"]),
        analyser.passage_vectors([part.text for part in chunked.passages], averages["passages"], title, text),
    )


def typical_lengths(
    analyser: Analyser, chunked: Sequence[ChunkedDocument], chunking: ChunkConfig
) -> dict[str, float]:
    """The ``avg_len`` of BM25 for each lexical layer, in words, fixed by the first documents.

    Words a token are measured on passages spread over those documents. A passage is taken to be as
    long as the chunker makes it. The mean length of documents is drawn (in logarithms) towards that of
    an ordinary one while few are seen, because being 10 times off costs up to .05 nDCG, 300 times up
    to .2, and 3 times hardly any; it is at least a passage.
    """
    passages = [passage for document in chunked for passage in document.passages]
    sample = passages[:: max(1, len(passages) // _SAMPLE_PASSAGES)]
    tokens = sum(passage.token_end - passage.token_start for passage in sample)
    words_per_token = max(sum(analyser.length(passage.text) for passage in sample), 1) / max(tokens, 1)
    passage_words = words_per_token * chunking.passage_tokens
    mean_words = words_per_token * sum(len(document.encoding) for document in chunked) / len(chunked)
    share = len(chunked) / (len(chunked) + _ORDINARY_DOCUMENTS)
    document_words = mean_words**share * _ORDINARY_WORDS ** (1 - share)
    return {"passages": passage_words, "documents": max(document_words, passage_words)}


def _grouped(items: Iterable[Cut | IngestResult]) -> Iterator[list[Cut | IngestResult]]:
    """Enough documents to fill the embedder's batches, and none twice in a group."""
    group: list[Cut | IngestResult] = []
    for item in items:
        if isinstance(item, Cut) and item.claim.document_id in {c.claim.document_id for c in _cuts(group)}:
            yield group
            group = []
        group.append(item)
        tokens = sum(len(cut.chunked.encoding) for cut in _cuts(group))
        if tokens >= GROUP_TOKENS or len(group) >= GROUP_DOCUMENTS:
            yield group
            group = []
    if group:
        yield group


def _cuts(group: Iterable[Cut | IngestResult]) -> Iterator[Cut]:
    return (item for item in group if isinstance(item, Cut))


def _finished(arrival: Arrival) -> Document:
    """The document with the caller's title and metadata over the file's own.

    What the file says of itself and cannot be indexed is left out, with a warning.
    """
    document, claimed = arrival.document, arrival.claim
    metadata: dict[str, Any] = {}
    warnings = list(document.warnings)
    for key, value in document.metadata.items():
        try:
            metadata |= indexable({key: value})
        except InvalidRequestError as error:
            warnings.append(f"Left out of the file's own metadata: {error.message}")
    return replace(
        document,
        title=claimed.title or document.title or claimed.source.name or claimed.document_id,
        metadata=indexable({**metadata, **claimed.metadata}),
        warnings=tuple(warnings),
    )


def _failure(name: str, document_id: str, error: Exception) -> IngestResult:
    """The result of a source that failed. Raises ``error`` itself when the batch must stop."""
    if is_fatal(error):
        raise error
    return IngestResult.failed(name, document_id, error)


def _since(stage: str, began: float) -> dict[str, float]:
    return {stage: time.perf_counter() - began}
