"""Longleaf's parts as LangChain's: embeddings, a vector store, a retriever, a compressor.

Needs ``langchain-core`` (``pip install 'longleaf[langchain]'``). Each class wraps one seam and adds nothing
of its own, so that a chain sees the same vectors, hits and scores as everything else. Asynchronous methods
are those of LangChain, which run these in a thread.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from numbers import Real
from typing import Any

import numpy as np
from langchain_core.callbacks import CallbackManagerForRetrieverRun, Callbacks
from langchain_core.documents import BaseDocumentCompressor
from langchain_core.documents import Document as LangChainDocument
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from pydantic import ConfigDict, Field

from pipeline import filters
from pipeline.chunk import ChunkConfig, chunk
from pipeline.errors import EmbeddingError, FilterError, InvalidRequestError
from pipeline.learning import embed_stored
from pipeline.metadata import encodable, indexable
from pipeline.records import derived_id
from pipeline.rerank import Searching
from pipeline.seams import Embedder, Indexer, IndexSchema, IndexSearch, Reranker
from pipeline.types import Document, Hit, Match, Point, Query

_BATCH = 1_000


class LongleafEmbeddings(Embeddings):
    """An embedder. A text longer than a passage is cut, and its vector is the mean of its passages'."""

    def __init__(self, embedder: Embedder, chunking: ChunkConfig | None = None) -> None:
        self.embedder = embedder
        self._chunking = chunking or ChunkConfig()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One unit vector a text. Raises EmbeddingError, before any is embedded, for one without a token."""
        cut = [
            chunk(Document(title="", text=text), self.embedder.encode(text), self._chunking) for text in texts
        ]
        for place, document in enumerate(cut, 1):
            if not document.passages:
                raise EmbeddingError(
                    f"Text {place} of {len(texts)} is {document.document.text[:40]!r}: it has no token.",
                    remedy="Leave it out.",
                )
        made = embed_stored(self.embedder, cut)
        return [_unit(document.passages.mean(axis=0)).tolist() for document in made]

    def embed_query(self, text: str) -> list[float]:
        """The unit vector of a question."""
        vector: list[float] = self.embedder.embed_queries([text]).vectors[0].tolist()
        return vector


class LongleafVectorStore(VectorStore):
    """One index of an indexer, for texts that LangChain cut. Metadata are filtered in Longleaf's language:
    ``similarity_search("...", filter={"year": {"gte": 2020}})``."""

    def __init__(self, embedding: Embeddings, indexer: Indexer, name: str = "langchain") -> None:
        """``name`` is the index, made with the first text that is added. The indexer should be one of its
        own: Longleaf's backups and repairs do not know these texts (docs/indexes.md)."""
        self._embedding = embedding
        self._indexer = indexer
        self._name = name
        self._fields: set[str] = set()

    @property
    def embeddings(self) -> Embeddings:
        """What texts and questions are embedded with."""
        return self._embedding

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        batch_size: int = _BATCH,
        **kwargs: Any,
    ) -> list[str]:
        """Add or replace texts; their ids. So many as ``batch_size`` are embedded together.

        Raises InvalidRequestError, before anything is written, for blank texts and metadata that are no JSON.
        """
        _refuse(kwargs)
        written = list(texts)
        given: Sequence[str | None] = ids or [None] * len(written)
        names = [name if name is not None else str(uuid.uuid4()) for name in given]
        about = metadatas or [{}] * len(written)
        if not len(names) == len(about) == len(written):
            raise InvalidRequestError(
                f"{len(written)} texts have {len(names)} ids and {len(about)} metadata."
            )
        if batch_size < 1:
            raise InvalidRequestError(f"batch_size is {batch_size}.", remedy="Set 1 or more.")
        payloads = [
            _payload(place, text, name, about_it)
            for place, (text, name, about_it) in enumerate(zip(written, names, about, strict=True), 1)
        ]
        for start in range(0, len(written), batch_size):
            span = slice(start, start + batch_size)
            vectors = self._embedding.embed_documents(written[span])
            self._ensure(len(vectors[0]))
            self._indexer.upsert(
                self._name,
                [
                    Point(derived_id(self._name, name), payload, _unit(np.asarray(vector, np.float32)))
                    for name, payload, vector in zip(names[span], payloads[span], vectors, strict=True)
                ],
            )
        self._indexer.flush()
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Remove these texts, or all; ids that are not there are fine."""
        _refuse(kwargs)
        if self._indexer.schema(self._name) is not None:
            for start in range(0, len(ids) if ids is not None else 1, _BATCH):
                some = None if ids is None else filters.AnyOf("_id", tuple(ids[start : start + _BATCH]))
                self._indexer.delete(self._name, some or filters.EVERYTHING)
            self._indexer.optimize(self._name)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[LangChainDocument]:
        """The texts of these ids that are there."""
        if self._indexer.schema(self._name) is None:
            return []
        found = self._indexer.points(self._name, filters.AnyOf("_id", tuple(ids)))
        return [_document(payload) for _, payload in found]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[LangChainDocument]:
        """The nearest texts, best first; ``filter`` is JSON of Longleaf's language."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[LangChainDocument, float]]:
        """The nearest texts with their cosines."""
        return [
            (_document(match.payload), match.score)
            for match in self._search(self._embedding.embed_query(query), k, **kwargs)
        ]

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[LangChainDocument]:
        """The texts nearest to a vector."""
        return [_document(match.payload) for match in self._search(embedding, k, **kwargs)]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[LangChainDocument]:
        """Texts near the question and unlike each other: ``k`` of the ``fetch_k`` nearest ones."""
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[LangChainDocument]:
        """The same for a vector (Carbonell and Goldstein 1998); ``lambda_mult`` 1 is nearness alone."""
        near = self._search(embedding, max(k, fetch_k), **kwargs)
        kept = self._indexer.vectors(self._name, [match.id for match in near]) if near else {}
        near = [match for match in near if match.id in kept]  # others may delete meanwhile
        vectors = [kept[match.id].dense.tolist() for match in near]
        chosen = maximal_marginal_relevance(np.asarray(embedding, np.float32), vectors, lambda_mult, k)
        return [_document(near[place].payload) for place in chosen]

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> LongleafVectorStore:
        """A store of these texts; ``indexer`` is required, ``name`` is not."""
        store = cls(embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def _select_relevance_score_fn(self) -> Any:
        return lambda cosine: (1 + cosine) / 2

    def _search(
        self, vector: Sequence[float], k: int, filter: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[Match]:
        _refuse(kwargs)
        if self._indexer.schema(self._name) is None:
            return []
        where = filters.parse(filter) if filter else None
        if where is not None:
            self._check_fields(where)
        query = _unit(np.asarray(vector, np.float32))
        return self._indexer.search(self._name, [IndexSearch(k, dense=query, filter=where)])[0]

    def _check_fields(self, where: filters.Filter) -> None:
        """Refuse a condition on a field that no text has had, as the retriever does."""
        for field in {condition.field for condition in filters.fields(where)} - self._fields:
            if not self._indexer.count(self._name, filters.Exists(field)):
                raise FilterError(
                    f"No text has the field {field!r}.", remedy="Filter by the keys of the texts' metadata."
                )
            self._fields.add(field)

    def _ensure(self, dim: int) -> None:
        embedder = getattr(self._embedding, "embedder", None)
        made_with = str(embedder.fingerprint) if embedder is not None else type(self._embedding).__qualname__
        self._indexer.create(self._name, IndexSchema(made_with, dim, False, {}))


class LongleafRetriever(BaseRetriever):
    """Longleaf's own retrieval: dense and lexical evidence, fused, of one collection.

    Each document's metadata say where it is: ``document_id``, ``title``, ``start``, ``end``, pages, score,
    and in ``also`` where near-duplicates of it stand."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    retriever: Searching
    """A :class:`pipeline.retrieve.Retriever`, with or without a reranker."""
    collection: str = "default"
    tenant: str = "default"
    k: int = Field(default=10, ge=1)
    filter: dict[str, Any] | None = None
    budget_tokens: int | None = None

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[LangChainDocument]:
        asked = Query(
            query,
            collection=self.collection,
            tenant=self.tenant,
            top_k=self.k if k is None else k,
            filter=self.filter,
            budget_tokens=self.budget_tokens,
        )
        return [_of_hit(hit) for hit in self.retriever.search(asked).hits]


class LongleafCompressor(BaseDocumentCompressor):
    """A reranker: the same documents in a new order, the best ``top_n`` of them."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    reranker: Reranker
    top_n: int | None = Field(default=None, ge=1)

    def compress_documents(
        self, documents: Sequence[LangChainDocument], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[LangChainDocument]:
        """Best first, with the new score in their metadata as ``relevance_score``."""
        hits = [
            Hit(
                chunk_id=str(place),
                document_id=document.id or str(place),
                version=0,
                title=str(document.metadata.get("title", "")),
                text=document.page_content,
                start=0,
                end=len(document.page_content),
                score=_number(document.metadata.get("score")),
            )
            for place, document in enumerate(documents)
        ]
        ranked = self.reranker.rerank(query, hits)[: self.top_n]
        return [
            documents[int(hit.chunk_id)].model_copy(
                update={"metadata": {**documents[int(hit.chunk_id)].metadata, "relevance_score": hit.score}}
            )
            for hit in ranked
        ]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, Real) else 0.0


def _unit(vector: Any) -> Any:
    return vector / np.linalg.norm(vector)


def _payload(place: int, text: str, name: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    if not text.strip():
        raise InvalidRequestError(f"Text {place} is blank: {text[:40]!r}.", remedy="Leave it out.")
    if not encodable(text):
        raise InvalidRequestError(f"Text {place} is not valid Unicode.", remedy="Decode it anew.")
    checked = indexable(metadata)
    try:
        whole = json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(
            f"The metadata of text {place} are no JSON: {error}.", remedy="Write dates as text: 2024-05-31."
        ) from error
    return {**checked, "_text": text, "_id": name, "_metadata": whole}


def _document(payload: Mapping[str, Any]) -> LangChainDocument:
    return LangChainDocument(
        page_content=payload["_text"], metadata=json.loads(payload["_metadata"]), id=payload["_id"]
    )


def _of_hit(hit: Hit) -> LangChainDocument:
    where = {
        "document_id": hit.document_id,
        "version": hit.version,
        "title": hit.title,
        "section": hit.section,
        "start": hit.start,
        "end": hit.end,
        "page_start": hit.page_start,
        "page_end": hit.page_end,
        "score": hit.score,
        "also": [asdict(at) for at in hit.also],
    }
    return LangChainDocument(page_content=hit.text, metadata={**hit.metadata, **where}, id=hit.chunk_id)


def _refuse(unknown: Mapping[str, Any]) -> None:
    if unknown:
        raise InvalidRequestError(
            f"Unknown arguments: {', '.join(unknown)}.", remedy="See pipeline.langchain."
        )
