"""Texts of a request as documents that an embedder takes: alone, or one after the other as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from api.sections import ServerSettings
from pipeline.chunk import ChunkConfig, chunk
from pipeline.errors import InvalidRequestError, LimitExceededError
from pipeline.seams import Embedder, Reranker
from pipeline.types import Chunk, ChunkedDocument, Document, Encoding, Hit

Vectors = NDArray[np.float32]
_SEPARATOR = "\n\n"
_UNITS = ChunkConfig()


def encoded(texts: Sequence[str], embedder: Embedder, limits: ServerSettings) -> list[Encoding]:
    """The tokens of every text.

    Raises InvalidRequestError for a text without any, and LimitExceededError for too many.
    """
    if not texts:
        raise InvalidRequestError("There is no text.", remedy="Send at least one.")
    if len(texts) > limits.max_embedding_texts:
        raise LimitExceededError(
            f"There are {len(texts)} texts; at most {limits.max_embedding_texts} are taken.",
            remedy="Send fewer at once, or raise server.max_embedding_texts.",
        )
    encodings, total = [], 0
    for i, text in enumerate(texts):
        encodings.append(embedder.encode(text))
        total += len(encodings[-1])
        if not len(encodings[-1]):
            raise InvalidRequestError(f"Text {i} has no words.", remedy="Leave empty texts out.")
        if total > limits.max_embedding_tokens:
            raise LimitExceededError(
                f"The texts have more than {limits.max_embedding_tokens} tokens.",
                remedy="Send fewer at once, or raise server.max_embedding_tokens.",
            )
    return encodings


def embedded(texts: Sequence[str], encodings: Sequence[Encoding], embedder: Embedder) -> Vectors:
    """Vectors float32 ``(texts, dim)`` of unit rows, each text by itself."""
    documents = [_document([text], encoding) for text, encoding in zip(texts, encodings, strict=True)]
    return np.concatenate([made.passages for made in embedder.embed_documents(documents)])


def together(texts: Sequence[str], embedder: Embedder) -> tuple[Vectors, str]:
    """Vectors of texts that are read as one document, and how it was read (late chunking)."""
    [made] = embedder.embed_documents([_document(texts, embedder.encode(_SEPARATOR.join(texts)))])
    return made.passages, made.windowing


def best_similarity(query: str, texts: Sequence[str], embedder: Embedder, limits: ServerSettings) -> Vectors:
    """Cosine, float32 ``(texts,)``, of the query with each text or its nearest part, whichever is more."""
    encodings = encoded(texts, embedder, limits)
    documents = [_document([text], encoding) for text, encoding in zip(texts, encodings, strict=True)]
    asked = embedder.embed_queries([query]).vectors[0]
    made = embedder.embed_documents(documents)
    return np.array(
        [max((one.passages @ asked).max(), (one.units @ asked).max()) for one in made], np.float32
    )


def reranked(query: str, texts: Sequence[str], reranker: Reranker) -> Vectors:
    """Scores of a reranker, float32 ``(texts,)`` in 0 to 1 by the logistic function, in the texts' order."""
    hits = [Hit(str(i), str(i), 0, "", text, 0, len(text), 0.0) for i, text in enumerate(texts)]
    scores = np.zeros(len(texts), np.float64)
    for hit in reranker.rerank(query, hits):
        scores[int(hit.document_id)] = hit.score
    return (1 / (1 + np.exp(-scores))).astype(np.float32)


def _document(texts: Sequence[str], encoding: Encoding) -> ChunkedDocument:
    """A document whose passages are the texts, cut into units small enough for any embedder's window."""
    whole = _SEPARATOR.join(texts)
    passages: list[Chunk] = []
    units: list[Chunk] = []
    start = 0
    for ordinal, text in enumerate(texts):
        end = start + len(text)
        first, last = np.searchsorted(encoding.offsets[:, 0], [start, end])
        first, last = int(first), int(last)
        passages.append(Chunk("passage", ordinal, ordinal, start, end, first, last, text))
        part = Encoding(encoding.ids[first:last], encoding.offsets[first:last] - np.int32(start))
        for unit in chunk(Document("", text), part, _UNITS).units:
            moved = replace(
                unit,
                ordinal=len(units),
                parent=ordinal,
                start=unit.start + start,
                end=unit.end + start,
                token_start=unit.token_start + first,
                token_end=unit.token_end + first,
            )
            units.append(moved)
        start = end + len(_SEPARATOR)
    return ChunkedDocument(Document("", whole), encoding, tuple(passages), tuple(units))
