"""One embedder's vectors of a task's documents, and how well questions find what they ask for.

Scores are those of :mod:`pipeline.fuse` over every unit and passage, without limits on candidates; so an
exact index over the same vectors ranks the same. ``dense`` leaves words out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.embedding_sets import Question, Task
from pipeline.chunk import ChunkConfig, chunk
from pipeline.fuse import FAIR_MATCH, Fusion
from pipeline.lexical import Analyser
from pipeline.preparing import lexical, typical_lengths
from pipeline.read.text import from_text
from pipeline.retrieve import query_parts
from pipeline.seams import Embedder
from pipeline.types import ChunkedDocument, DocumentEmbeddings, SparseVector

Array = NDArray[np.float32]
_ANALYSER = Analyser()


@dataclass(frozen=True)
class Cut:
    """A task's documents as chunks, with what words say; shared by all embedders of one tokenizer."""

    task: Task
    documents: list[ChunkedDocument]
    words: Words | None


class Words:
    """BM25 of passages and of whole documents, exactly as an index has it."""

    def __init__(self, documents: Sequence[ChunkedDocument], chunking: ChunkConfig) -> None:
        self.analyser = Analyser()
        averages = typical_lengths(self.analyser, documents, chunking)
        made = [lexical(self.analyser, document, averages) for document in documents]
        self.passages = self._matrix([vector for each in made for vector in each.passages])
        self.documents = self._matrix([each.document for each in made])

    @staticmethod
    def _matrix(
        vectors: Sequence[SparseVector],
    ) -> tuple[sparse.csc_matrix, dict[int, int], NDArray[np.float64]]:
        terms = np.unique(np.concatenate([v.indices for v in vectors]))
        column = {int(term): i for i, term in enumerate(terms)}
        rows = np.repeat(np.arange(len(vectors)), [len(v.indices) for v in vectors])
        columns = np.searchsorted(terms, np.concatenate([v.indices for v in vectors]))
        values = np.concatenate([v.values for v in vectors])
        matrix = sparse.csc_matrix((values, (rows, columns)), (len(vectors), len(terms)))
        found = np.diff(matrix.indptr)
        return matrix, column, np.log1p((len(vectors) - found + 0.5) / (found + 0.5))

    def scores(self, layer: str, query: SparseVector) -> Array:
        """BM25 of every text of a layer."""
        matrix, column, idf = getattr(self, layer)
        weights = np.zeros(matrix.shape[1])
        for term, value in zip(query.indices.tolist(), query.values.tolist(), strict=True):
            if term in column:
                weights[column[term]] = value * idf[column[term]]
        return np.asarray(matrix @ weights, np.float32)


def cut(task: Task, embedder: Embedder, *, words: bool, chunking: ChunkConfig | None = None) -> Cut:
    """Chunk every document as ingestion does."""
    documents, sizes = [], chunking or ChunkConfig()
    for name, text in task.documents.items():
        document = from_text(text, name)
        documents.append(chunk(document, embedder.encode(document.text), sizes))
    return Cut(task, documents, Words(documents, sizes) if words else None)


class Index:
    """All vectors of a cut, in rows by document; ``found`` are they where they have been made already.

    ``transform`` is applied to the vectors of queries.
    """

    def __init__(
        self,
        made: Cut,
        embedder: Embedder,
        found: Sequence[DocumentEmbeddings] | None = None,
        transform: Callable[[Array], Array] | None = None,
    ) -> None:
        self.cut, self.embedder = made, embedder
        self.found = found = embedder.embed_documents(made.documents) if found is None else found
        self._transform = transform or (lambda vectors: vectors)
        self.windowing = found[0].windowing
        self.names = list(made.task.documents)
        self.units = np.concatenate([f.units for f in found])
        self.passages = np.concatenate([f.passages for f in found])
        self.unit_starts = _starts([len(f.units) for f in found])
        self.passage_starts = _starts([len(f.passages) for f in found])
        counts = [np.bincount([u.parent for u in d.units], minlength=len(d.passages)) for d in made.documents]
        self.passage_of_units = _starts(np.concatenate(counts).tolist())
        self.owner = np.repeat(np.arange(len(found)), [len(f.passages) for f in found])
        self._asked: dict[str, Array] = {}

    def prepare(self, questions: Sequence[Question], parts: int = 16) -> None:
        """Embed what these questions say, whole and in sentences, in one go."""
        texts = {t for q in questions for t in (q.text, *query_parts(q.text, parts))} - self._asked.keys()
        listed = sorted(texts)
        if listed:
            vectors = self._transform(self.embedder.embed_queries(listed).vectors)
            self._asked |= dict(zip(listed, vectors, strict=True))

    def document_vectors(self) -> Array:
        """One vector a document: the mean of its units' weighted by tokens, as one long pass would give."""
        sizes = [max(u.token_end - u.token_start, 1) for d in self.cut.documents for u in d.units]
        total = np.add.reduceat(self.units * np.array(sizes, np.float32)[:, None], self.unit_starts, axis=0)
        return np.asarray(total / np.linalg.norm(total, axis=1, keepdims=True), np.float32)

    def rank(self, question: Question, weights: Fusion, *, parts: int = 16) -> tuple[Array, Array]:
        """Scores of all passages before regularisation, and of all documents (their best passage's)."""
        self.prepare([question], parts)
        vectors = np.stack([self._asked[part] for part in query_parts(question.text, parts)])
        units = vectors @ self.units.T
        by_passage = np.maximum.reduceat(units, self.passage_of_units, axis=1).mean(0)
        by_document = np.maximum.reduceat(units, self.unit_starts, axis=1).mean(0)
        own = vectors @ self.passages.T
        whole = np.maximum.reduceat(own, self.passage_starts, axis=1).mean(0)
        passage = _joined(weights, by_passage, own.mean(0))
        document = _joined(weights, by_document, whole)
        if weights.method == "convex":
            document -= weights.length_discount * np.log(np.bincount(self.owner))
        if weights.dense < 1 and self.cut.words is not None:
            query = self.cut.words.analyser.query_vector(question.text)
            fair = FAIR_MATCH * float(query.values.sum())
            for name, dense in (("passages", passage), ("documents", document)):
                scores = self.cut.words.scores(name, query)
                best = max(float(scores.max(initial=0)), fair) or 1.0
                dense[:] = weights.dense * dense + (1 - weights.dense) * scores / best
        share = weights.share_of_passage(_ANALYSER.length(question.text))
        scores = share * passage + (1 - share) * document[self.owner]
        if question.scope is not None:
            scores = np.where(self.owner == self.names.index(question.scope), scores, -np.inf)
        return scores, np.maximum.reduceat(scores, self.passage_starts)

    def measure(
        self, question: Question, weights: Fusion, *, parts: int = 16, budget_tokens: int = 1000
    ) -> dict[str, float]:
        """What this question says of the vectors: ``acc@1`` for a hidden sentence, else ``ndcg@10``, and
        ``span_recall`` where spans are known."""
        passages, documents = self.rank(question, weights, parts=parts)
        order = [self.names[i] for i in np.argsort(-documents, kind="stable")[:10]]
        if question.one:
            return {"acc@1": float(question.relevance.get(order[0], 0) > 0)}
        found = {"ndcg@10": ndcg(order, question.relevance)} if question.scope is None else {}
        if question.spans:
            found["span_recall"] = self._covered(question, passages, budget_tokens)
        return found

    def one_vector(self, question: Question, documents: Array) -> dict[str, float]:
        """The same with one vector a document, as LongEmbed ranks."""
        vector = self._asked[question.text]
        order = [self.names[i] for i in np.argsort(-(documents @ vector), kind="stable")[:10]]
        if question.one:
            return {"acc@1": float(question.relevance.get(order[0], 0) > 0)}
        return {"ndcg@10": ndcg(order, question.relevance)}

    def precision(self, question: Question, k: int = 5) -> float:
        """Share of the best ``k`` units of the question's own document that lie in its spans."""
        at = self.names.index(str(question.scope))
        first = self.unit_starts[at]
        units = self.cut.documents[at].units
        vector = self._asked[question.text]
        best = np.argsort(-(self.units[first : first + len(units)] @ vector), kind="stable")[:k]
        spans = question.spans[str(question.scope)]
        right = [any(units[i].start < b and units[i].end > a for a, b in spans) for i in best]
        return float(np.mean(right))

    def _covered(self, question: Question, scores: Array, budget_tokens: int) -> float:
        wanted = sum(b - a for spans in question.spans.values() for a, b in spans)
        covered, left = 0, budget_tokens
        for i in np.argsort(-scores, kind="stable").tolist():
            at = int(self.owner[i])
            passage = self.cut.documents[at].passages[i - self.passage_starts[at]]
            left -= passage.token_end - passage.token_start
            if left < 0:
                break
            spans = question.spans.get(self.names[at], ())
            covered += sum(max(0, min(b, passage.end) - max(a, passage.start)) for a, b in spans)
        return min(1.0, covered / wanted)


def _joined(weights: Fusion, unit: Array, passage: Array) -> Array:
    """As :mod:`pipeline.fuse` joins what a best unit and a passage's own vector say."""
    share, t = weights.unit, weights.join_temperature
    if weights.join == "mean" or not 0 < share < 1:
        return share * unit + (1 - share) * passage
    return np.asarray(t * np.logaddexp(np.log(share) + unit / t, np.log(1 - share) + passage / t), np.float32)


def _starts(sizes: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)


def ndcg(ranking: Sequence[str], relevance: Mapping[str, float], k: int = 10) -> float:
    """Normalised discounted cumulative gain (Järvelin and Kekäläinen 2002), gain = relevance."""
    gained = sum(relevance.get(d, 0) / math.log2(rank + 2) for rank, d in enumerate(ranking[:k]))
    best = sorted((r for r in relevance.values() if r > 0), reverse=True)[:k]
    ideal = sum(r / math.log2(rank + 2) for rank, r in enumerate(best))
    return gained / ideal if ideal else 0.0
