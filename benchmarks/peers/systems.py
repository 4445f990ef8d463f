"""Each tool behind two methods: take documents in (durably where it can), and find pieces of them.

All use the model folder they are given, on chunks that the model reads whole (it is packaged for 256
tokens). Titles that a text does not begin with are put before it. What is found is told as spans of the
original text. Choices follow each tool's own documentation:

- ``plain``: sentence-transformers, a flat FAISS index, rank-bm25 on lower-cased words, reciprocal ranks.
- ``txtai``: ``Embeddings(hybrid=True)``, which sums normalised scores half and half; recursive chunks.
- ``llamaindex``: ``SentenceSplitter``, vector index and BM25 joined by ``QueryFusionRetriever``
  (``reciprocal_rerank``), without generated queries. Chunks have 256 tokens, because of the default of
  1,024 this model would read the first quarter only.
- ``haystack``: ``DocumentSplitter`` by words, in-memory BM25 and embedding retrievers, ``DocumentJoiner``
  with reciprocal rank fusion. Its in-memory store is written to disk as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

CHUNK_TOKENS = 254  # with the two special tokens, what the packaged model reads
OVERLAP_TOKENS = 20
RRF_K = 60


class Document(NamedTuple):
    """What goes in."""

    id: str
    title: str
    text: str


class Piece(NamedTuple):
    """What comes out: a span of a document's text, best first. One that ``repeats`` what was read is only
    named, not read again."""

    document: str
    start: int
    end: int
    repeats: bool = False


class System(Protocol):
    """One tool."""

    def take(self, documents: Sequence[Document]) -> None:
        """Read, cut, embed, index and save."""
        ...

    def find(self, question: str, scope: str | None, limit: int) -> list[Piece]:
        """The best pieces, of one document if ``scope`` names it."""
        ...


def tokenizer_of(model: Path) -> Any:
    """The model's tokenizer, as it reads a text of any length."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def with_title(document: Document) -> tuple[str, int]:
    """The text as it goes in, and how many characters were put before it."""
    begins = " ".join(document.text[:1000].split()).casefold()
    if not document.title or " ".join(document.title.split()).casefold() in begins:
        return document.text, 0
    return f"{document.title}\n{document.text}", len(document.title) + 1


def cut(documents: Sequence[Document], model: Path) -> list[tuple[Piece, str]]:
    """Recursive chunks of at most 254 tokens, by paragraph, sentence, then word (chonkie)."""
    from chonkie import RecursiveChunker

    chunker = RecursiveChunker(tokenizer_of(model), chunk_size=CHUNK_TOKENS)
    found = []
    for document in documents:
        text, before = with_title(document)
        for chunk in chunker(text):
            start, end = (max(0, at - before) for at in (chunk.start_index, chunk.end_index))
            found.append((Piece(document.id, start, end), chunk.text))
    return found


class Plain:
    """The parts put together by hand."""

    def __init__(self, model: Path, work: Path) -> None:
        from sentence_transformers import SentenceTransformer

        self._model, self._path, self._work = SentenceTransformer(str(model)), model, work

    def take(self, documents: Sequence[Document]) -> None:
        """Both indexes, the dense one saved."""
        import faiss
        from rank_bm25 import BM25Okapi

        chunks = cut(documents, self._path)
        self._pieces = [piece for piece, _ in chunks]
        texts = [text for _, text in chunks]
        vectors = self._model.encode(texts, normalize_embeddings=True, batch_size=32)
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(vectors)
        faiss.write_index(self._index, str(self._work / "index.faiss"))
        self._bm25 = BM25Okapi([text.lower().split() for text in texts])

    def find(self, question: str, scope: str | None, limit: int) -> list[Piece]:
        """Reciprocal ranks of both."""
        import numpy as np

        count = len(self._pieces)
        vector = self._model.encode([question], normalize_embeddings=True)
        _, dense = self._index.search(vector, count if scope else min(count, 100))
        words = np.argsort(-self._bm25.get_scores(question.lower().split()), kind="stable")
        words = words if scope else words[:100]
        scores: dict[int, float] = {}
        for ranking in (dense[0].tolist(), words.tolist()):
            inside = [i for i in ranking if scope is None or self._pieces[i].document == scope]
            for rank, i in enumerate(inside, 1):
                scores[i] = scores.get(i, 0.0) + 1 / (RRF_K + rank)
        return [self._pieces[i] for i in sorted(scores, key=lambda i: -scores[i])[:limit]]


class Txtai:
    """Hybrid embeddings."""

    def __init__(self, model: Path, work: Path) -> None:
        from txtai import Embeddings

        self._embeddings, self._model, self._work = Embeddings(path=str(model), hybrid=True), model, work

    def take(self, documents: Sequence[Document]) -> None:
        """Index and save."""
        chunks = cut(documents, self._model)
        self._pieces = [piece for piece, _ in chunks]
        self._embeddings.index((i, text, None) for i, (_, text) in enumerate(chunks))
        self._embeddings.save(str(self._work / "txtai"))

    def find(self, question: str, scope: str | None, limit: int) -> list[Piece]:
        """By the convex sum that is its default; one document's pieces out of all of them."""
        found = self._embeddings.search(question, len(self._pieces) if scope else limit)
        pieces = [self._pieces[int(i)] for i, _ in found]
        return [piece for piece in pieces if scope is None or piece.document == scope][:limit]


class LlamaIndex:
    """Vector and BM25 retrievers fused."""

    def __init__(self, model: Path, work: Path) -> None:
        from llama_index.core import Settings
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding

        self._embedding: Any = HuggingFaceEmbedding(model_name=str(model))
        Settings.embed_model = self._embedding
        Settings.llm = None  # type: ignore[assignment]
        self._model, self._work = model, work

    def take(self, documents: Sequence[Document]) -> None:
        """Split, index, persist."""
        from llama_index.core import Document as LlamaDocument
        from llama_index.core import VectorStoreIndex
        from llama_index.core.node_parser import SentenceSplitter
        from llama_index.retrievers.bm25 import BM25Retriever

        tokenizer = tokenizer_of(self._model)

        def encode(text: str) -> list[int]:
            return list(tokenizer.encode(text, add_special_tokens=False).ids)

        splitter = SentenceSplitter(chunk_size=CHUNK_TOKENS, chunk_overlap=OVERLAP_TOKENS, tokenizer=encode)
        given = []
        for document in documents:
            text, before = with_title(document)
            given.append(LlamaDocument(text=text, doc_id=document.id, metadata={"before": before}))
        for document in given:
            document.excluded_embed_metadata_keys = document.excluded_llm_metadata_keys = ["before"]
        nodes = splitter.get_nodes_from_documents(given)
        self._count = len(nodes)
        self._index = VectorStoreIndex(nodes, show_progress=False)
        self._index.storage_context.persist(str(self._work / "llamaindex"))
        self._bm25 = BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=min(100, self._count))
        self._deep = BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=self._count)

    def find(self, question: str, scope: str | None, limit: int) -> list[Piece]:
        """Fused by reciprocal ranks."""
        from llama_index.core.retrievers import QueryFusionRetriever

        depth = self._count if scope else min(100, self._count)
        fused = QueryFusionRetriever(
            [self._index.as_retriever(similarity_top_k=depth), self._deep if scope else self._bm25],
            similarity_top_k=depth,
            num_queries=1,
            mode="reciprocal_rerank",  # type: ignore[arg-type]
            use_async=False,
        )
        found = []
        for each in fused.retrieve(question):
            node: Any = each.node
            if scope is None or node.ref_doc_id == scope:
                before = node.metadata["before"]
                start, end = node.start_char_idx - before, node.end_char_idx - before
                found.append(Piece(node.ref_doc_id, max(0, start), max(0, end)))
        return found[:limit]


class Haystack:
    """BM25 and embeddings joined."""

    def __init__(self, model: Path, work: Path) -> None:
        from haystack.components.embedders import (
            SentenceTransformersDocumentEmbedder,
            SentenceTransformersTextEmbedder,
        )

        self._texts = SentenceTransformersTextEmbedder(model=str(model), progress_bar=False)
        self._documents = SentenceTransformersDocumentEmbedder(model=str(model), progress_bar=False)
        for each in (self._texts, self._documents):
            each.warm_up()
        self._work = work

    def take(self, documents: Sequence[Document]) -> None:
        """Split by words, embed, write."""
        from haystack import Document as HaystackDocument
        from haystack.components.joiners import DocumentJoiner
        from haystack.components.preprocessors import DocumentSplitter
        from haystack.components.retrievers.in_memory import (
            InMemoryBM25Retriever,
            InMemoryEmbeddingRetriever,
        )
        from haystack.document_stores.in_memory import InMemoryDocumentStore

        given = []
        for document in documents:
            text, before = with_title(document)
            given.append(HaystackDocument(content=text, meta={"source": document.id, "before": before}))
        splitter = DocumentSplitter(split_by="word", split_length=150, split_overlap=15)
        splitter.warm_up()
        pieces = splitter.run(documents=given)["documents"]
        store = InMemoryDocumentStore(embedding_similarity_function="cosine")
        store.write_documents(self._documents.run(documents=pieces)["documents"])
        store.save_to_disk(str(self._work / "haystack.json"))
        self._count = len(pieces)
        self._bm25, self._dense = InMemoryBM25Retriever(store), InMemoryEmbeddingRetriever(store)
        self._joiner = DocumentJoiner(join_mode="reciprocal_rank_fusion")

    def find(self, question: str, scope: str | None, limit: int) -> list[Piece]:
        """Joined by reciprocal ranks."""
        filters = {"field": "meta.source", "operator": "==", "value": scope} if scope else None
        depth = self._count if scope else min(100, self._count)
        vector = self._texts.run(text=question)["embedding"]
        lists = [
            self._bm25.run(query=question, top_k=depth, filters=filters)["documents"],
            self._dense.run(query_embedding=vector, top_k=depth, filters=filters)["documents"],
        ]
        found = self._joiner.run(documents=lists)["documents"]
        pieces = []
        for each in found[:limit]:
            start = each.meta["split_idx_start"] - each.meta["before"]
            pieces.append(Piece(each.meta["source"], max(0, start), max(0, start + len(each.content))))
        return pieces


SYSTEMS: dict[str, type[Any]] = {
    "plain": Plain,
    "txtai": Txtai,
    "llamaindex": LlamaIndex,
    "haystack": Haystack,
}
