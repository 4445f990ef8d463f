"""Evidence of a whole set as matrices, from the vectors of :mod:`benchmarks.vectors`.

What a search gathers for one question (see :mod:`pipeline.retrieve`) is here made for all questions at
once and exactly, so that a choice of fusion is tried in seconds. Rows are questions (Q), columns passages
(P) or documents (N). What no candidate list would hold gets that list's last score, as in
:mod:`pipeline.fuse`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from pipeline import titles
from pipeline.evaluation.dataset import EvaluationSet, Question
from pipeline.lexical import Analyser, LexicalConfig
from pipeline.types import SparseVector, Vectors

Array = np.ndarray[Any, Any]
BLOCK = 64  # questions at a time


@dataclass(frozen=True)
class Choices:
    """What the signals are made from."""

    passage_tokens: int = 128
    late: float = 0.5
    passage_title: float = 0.5
    unit_title: float = 0.25
    unit_candidates: int = 150
    passage_candidates: int = 150
    rollup: str = "max"
    rollup_top: int = 3
    temperature: float = 0.05
    lexical: LexicalConfig = field(default_factory=LexicalConfig)
    removed: int = 0


@dataclass(frozen=True)
class Signals:
    """Six matrices, raw: cosines, and BM25 before it is made relative."""

    unit: Array
    passage: Array
    lexical: Array
    document_unit: Array
    document_passage: Array
    document_lexical: Array
    query_weight: Array
    query_words: Array
    """(Q,) how many words each question has."""
    allowed: Array | None
    """Boolean (Q, P), None where every question may find every passage."""
    best_unit: Array
    """(Q, P) the unit of each passage that matches best."""


class Set:
    """One set with its vectors."""

    def __init__(self, given: EvaluationSet, path: Path) -> None:
        self.given = given
        with np.load(path) as file:
            self.arrays: Mapping[str, Array] = {name: file[name] for name in file.files}
        self.doc = self.arrays["doc"]
        pieces = self.arrays["piece_question"]
        used = [i for i, q in enumerate(given.questions) if q.judged]
        self.questions: list[Question] = [given.questions[i] for i in used]
        row = {i: n for n, i in enumerate(used)}
        keep = np.array([i in row for i in pieces.tolist()])
        self.pieces = self.arrays["pieces"][keep].astype(np.float32)
        self.piece_of = np.array([row[i] for i in pieces[keep].tolist()])
        self.edges = np.searchsorted(self.piece_of, np.arange(len(self.questions) + 1))
        self.number = {d.id: i for i, d in enumerate(given.documents)}
        self._words: dict[tuple[LexicalConfig, int], list[SparseVector]] = {}
        self._lexical: dict[tuple[LexicalConfig, int], dict[str, Array]] = {}
        self.is_told = np.array([bool(titles.telling(d.title, d.text)) for d in given.documents])

    def sample(self, most: int) -> None:
        """Keep at most so many questions, evenly spread."""
        n = len(self.questions)
        if n <= most:
            return
        chosen = [i * n // most for i in range(most)]
        self.pieces = np.concatenate([self.pieces[self.edges[i] : self.edges[i + 1]] for i in chosen])
        sizes = [self.edges[i + 1] - self.edges[i] for i in chosen]
        self.questions = [self.questions[i] for i in chosen]
        self.edges = np.concatenate([[0], np.cumsum(sizes)])
        self.piece_of = np.repeat(np.arange(most), sizes)
        self._lexical.clear()

    def passages(self, size: int) -> dict[str, Array]:
        """Passages of about ``size`` tokens: document, start, end, tokens, and first unit of each."""
        parent = self.arrays[f"parent{size}"]
        firsts = np.flatnonzero(np.r_[True, (self.doc[1:] != self.doc[:-1]) | (parent[1:] != parent[:-1])])
        lasts = np.r_[firsts[1:], len(parent)] - 1
        return {
            "doc": self.doc[firsts],
            "start": self.arrays["start"][firsts],
            "end": self.arrays["end"][lasts],
            "tokens": np.add.reduceat(self.arrays["tokens"], firsts),
            "first": firsts,
        }

    def blended(self, late: float, title: float) -> Array:
        """Unit vectors of the units, with titles that their texts do not say."""
        parts = [self.arrays[name].astype(np.float32) for name in ("late", "own")]
        return self._titled(unit_rows(late * parts[0] + (1 - late) * parts[1]), self.doc, title)

    def _titled(self, vectors: Array, docs: Array, weight: float) -> Array:
        heading = self.arrays["titles"].astype(np.float32)
        mixed = unit_rows((1 - weight) * vectors + weight * heading[docs])
        return np.where(self.is_told[docs][:, None], mixed, vectors)

    def passage_vectors(self, size: int, late: float, title: float) -> Array:
        """Means of units by tokens, each pass by itself, then blended, with titles as in :meth:`blended`."""
        cut = self.passages(size)
        firsts = cut["first"]
        weights = np.maximum(self.arrays["tokens"], 1).astype(np.float32)[:, None]
        parts = [
            unit_rows(np.add.reduceat(self.arrays[name].astype(np.float32) * weights, firsts, axis=0))
            for name in ("late", "own")
        ]
        return self._titled(unit_rows(late * parts[0] + (1 - late) * parts[1]), cut["doc"], title)

    def allowed(self, docs: Array) -> Array | None:
        """Which passages (or documents) each question may find: its scope, its language."""
        languages = np.array([d.language for d in self.given.documents])
        if all(q.scope is None and not q.language for q in self.questions):
            return None
        rows = []
        for q in self.questions:
            row = np.ones(len(docs), bool)
            if q.scope is not None:
                row &= docs == self.number[q.scope]
            if q.language:
                row &= languages[docs] == q.language
            rows.append(row)
        return np.stack(rows)

    def signals(self, choices: Choices) -> Signals:
        """All of them for every question."""
        cut = self.passages(choices.passage_tokens)
        count = len(self.given.documents)
        units, passages = (
            self.blended(choices.late, choices.unit_title),
            self.passage_vectors(choices.passage_tokens, choices.late, choices.passage_title),
        )
        pieces = self.pieces
        if choices.removed:
            pieces = unit_rows(without_directions(pieces, units, choices.removed))
        allowed_units = self.allowed(self.doc)
        allowed_passages = self.allowed(cut["doc"])
        doc_firsts = np.flatnonzero(np.r_[True, self.doc[1:] != self.doc[:-1]])
        cut_doc_firsts = np.flatnonzero(np.r_[True, cut["doc"][1:] != cut["doc"][:-1]])
        present = cut["doc"][cut_doc_firsts]
        shape = (len(self.questions), len(cut["doc"]))
        made = {
            "unit": np.empty(shape, np.float32),
            "passage": np.empty(shape, np.float32),
            "document_unit": np.full((shape[0], count), -1, np.float32),
            "document_passage": np.full((shape[0], count), -1, np.float32),
        }
        best_unit = np.empty(shape, np.int32)
        for a in range(0, shape[0], BLOCK):
            b = min(a + BLOCK, shape[0])
            p0, p1 = self.edges[a], self.edges[b]
            owner = self.piece_of[p0:p1]
            by_unit = _floored(pieces[p0:p1] @ units.T, allowed_units, owner, choices.unit_candidates)
            by_passage = _floored(
                pieces[p0:p1] @ passages.T, allowed_passages, owner, choices.passage_candidates
            )
            starts = self.edges[a:b] - p0
            for name, scores, firsts, columns in (
                ("unit", by_unit, cut["first"], None),
                ("passage", by_passage, None, None),
                ("document_unit", by_unit, doc_firsts, present),
                ("document_passage", by_passage, cut_doc_firsts, present),
            ):
                rolled = scores if firsts is None else roll_up(scores, firsts, choices)
                mean = np.add.reduceat(rolled, starts, axis=0) / np.diff(self.edges[a : b + 1])[:, None]
                if columns is None:
                    made[name][a:b] = mean
                else:
                    made[name][a:b, columns] = mean
            best_unit[a:b] = _arg_best(np.maximum.reduceat(by_unit, starts, axis=0), cut["first"])
        key = choices.lexical, choices.passage_tokens
        if key not in self._lexical:
            self._lexical[key] = self.lexical(choices, cut)
        lexical = self._lexical[key]
        return Signals(**made, **lexical, allowed=allowed_passages, best_unit=best_unit)

    def stored(self, choices: Choices) -> list[Vectors]:
        """What an index would hold of each passage."""
        dense = self.passage_vectors(choices.passage_tokens, choices.late, choices.passage_title)
        return [Vectors(*both) for both in zip(dense, self.words(choices), strict=True)]

    def words(self, choices: Choices) -> list[SparseVector]:
        """Lexical vectors of passages."""
        key = choices.lexical, choices.passage_tokens
        if key not in self._words:
            self._words[key] = self._analysed(choices)
        return self._words[key]

    def _analysed(self, choices: Choices) -> list[SparseVector]:
        analyser, documents = Analyser(choices.lexical), self.given.documents
        cut = self.passages(choices.passage_tokens)
        texts = [
            documents[d].text[s:e]
            for d, s, e in zip(cut["doc"].tolist(), cut["start"].tolist(), cut["end"].tolist(), strict=True)
        ]
        average = max(1.0, float(np.mean([analyser.length(text) for text in texts])))
        firsts = np.searchsorted(cut["doc"], np.arange(len(documents) + 1))
        return [
            vector
            for d, (a, b) in enumerate(pairwise(firsts.tolist()))
            for vector in analyser.passage_vectors(texts[a:b], average, documents[d].title, documents[d].text)
        ]

    def lexical(self, choices: Choices, cut: Mapping[str, Array]) -> dict[str, Array]:
        """BM25 of passages and of whole documents."""
        analyser, documents = Analyser(choices.lexical), self.given.documents
        length = max(1.0, float(np.mean([analyser.length(d.text) for d in documents])))
        whole = [analyser.whole_vector(d.title, d.text, length) for d in documents]
        asked = [analyser.query_vector(q.text) for q in self.questions]
        found = {"lexical": bm25(self.words(choices), asked), "document_lexical": bm25(whole, asked)}
        for name, docs in (("lexical", cut["doc"]), ("document_lexical", np.arange(len(documents)))):
            allowed = self.allowed(docs)
            if allowed is not None:
                found[name] *= allowed
        return {
            **found,
            "query_weight": np.array([float(v.values.sum()) for v in asked]),
            "query_words": np.array([analyser.length(q.text) for q in self.questions]),
        }


def bm25(vectors: Sequence[SparseVector], asked: Sequence[SparseVector]) -> Array:
    """float32 (questions, texts)."""
    indices = np.concatenate([v.indices for v in (*vectors, *asked)])
    terms, columns = np.unique(indices, return_inverse=True)
    split = sum(len(v.indices) for v in vectors)
    matrices = []
    for some, where in ((vectors, columns[:split]), (asked, columns[split:])):
        values = np.concatenate([v.values for v in some])
        edges = np.r_[0, np.cumsum([len(v.indices) for v in some])]
        matrices.append(sparse.csr_matrix((values, where, edges), shape=(len(some), len(terms))))
    held, query = matrices
    frequency = np.bincount(columns[:split], minlength=len(terms))
    idf = np.log1p((len(vectors) - frequency + 0.5) / (frequency + 0.5))
    scores: Array = (query @ sparse.diags(idf) @ held.T.tocsr()).toarray().astype(np.float32)
    return scores


def unit_rows(vectors: Array) -> Array:
    """Rows of length 1."""
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def without_directions(vectors: Array, fitted: Array, count: int) -> Array:
    """Without the strongest principal directions of ``fitted`` (Mu and Viswanath 2018)."""
    sample = fitted[:: max(1, len(fitted) // 20_000)]
    _, _, directions = np.linalg.svd(sample - sample.mean(0), full_matrices=False)
    kept = np.concatenate([unit_rows(sample.mean(0)[None]), directions[: count - 1]])
    basis, _ = np.linalg.qr(kept.T)
    return vectors - (vectors @ basis) @ basis.T


def roll_up(scores: Array, firsts: Array, choices: Choices) -> Array:
    """Columns of each run as one, the run's beginnings given: max, mean of the top few, or log-sum-exp."""
    if choices.rollup == "max":
        return np.maximum.reduceat(scores, firsts, axis=1)
    edges = np.r_[firsts, scores.shape[1]]
    if choices.rollup == "logsumexp":
        t = choices.temperature
        top = np.maximum.reduceat(scores, firsts, axis=1)
        spread = np.exp((scores - np.repeat(top, np.diff(edges), axis=1)) / t)
        return top + t * np.log(np.add.reduceat(spread, firsts, axis=1))
    m = choices.rollup_top
    floor = scores.min(axis=1, keepdims=True)
    out = np.empty((scores.shape[0], len(firsts)), np.float32)
    for i, (a, b) in enumerate(pairwise(edges)):
        part = scores[:, a:b]
        if b - a > m:
            part = np.partition(part, b - a - m, axis=1)[:, -m:]
        missing = m - part.shape[1]
        out[:, i] = (part.sum(axis=1) + missing * floor[:, 0]) / m
    return out


def _floored(scores: Array, allowed: Array | None, owner: Array, most: int) -> Array:
    """What stands below the list of ``most`` best gets the list's last score."""
    if allowed is not None:
        scores = np.where(allowed[owner], scores, -1)
    if scores.shape[1] <= most:
        return scores
    last = np.partition(scores, scores.shape[1] - most, axis=1)[:, -most][:, None]
    return np.maximum(scores, last)


def _arg_best(scores: Array, firsts: Array) -> Array:
    """For each run of columns the column that scores best."""
    top = np.repeat(
        np.maximum.reduceat(scores, firsts, axis=1), np.diff(np.r_[firsts, scores.shape[1]]), axis=1
    )
    columns = np.where(scores >= top, np.arange(scores.shape[1]), scores.shape[1])
    return np.minimum.reduceat(columns, firsts, axis=1)
