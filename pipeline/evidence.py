"""Question + Context -> the sentences that answer it best, and whether they answer it at all.

A sentence is scored by a linear model over what can be seen without a language model: likeness to the
question, how much of the question's rarer words it and its neighbours contain, the passage's retrieval
score, and whether it holds the kind of thing asked for. Weights were fitted by logistic regression on
sentences of eight public question sets at once and rounded; leaving any one set out moved its result
by at most two points. ``docs/answering.md`` gives the measurements.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline import cues
from pipeline.sentences import sentences
from pipeline.similarity import Similarity
from pipeline.types import Hit

Terms = Callable[[str], list[str]]
MAX_SENTENCE_CHARS = 480  # a longer "sentence" is a table or a list; it is quoted in pieces
MAX_SENTENCES = 600
_OPENING = re.compile(r"^\W*(?:he|she|it|they|this|that|these|those|his|her|its|their|such)\b", re.IGNORECASE)
_RANK_WEIGHTS = {
    "likeness": 1.4, "previous": 0.6, "following": 0.13, "coverage": 2.4, "nearby": 2.2,
    "passage": 0.2, "answer_type": 0.75, "length": 0.2, "echo": -1.5,
}  # fmt: skip
_FOUND_WEIGHTS = {
    "likeness": 1.6,
    "rank": 0.75,
    "stands_out": 0.7,
    "names_missing": -0.85,
    "terms_missing": -0.55,
}
_FOUND_BIAS = -4.05


@dataclass(frozen=True, slots=True)
class Reader:
    """How words are compared: by meaning, and by stem with stop words left out."""

    similarity: Similarity
    terms: Terms


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a passage: ``hit.text[start:end]``, with its terms and its place in the passage."""

    hit: Hit
    start: int
    end: int
    terms: frozenset[str]
    first: bool
    last: bool

    @property
    def text(self) -> str:
        """The exact words."""
        return self.hit.text[self.start : self.end]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Every sentence of the passages read, and unit vectors float32 ``(n, dim)`` in the same order."""

    sentences: tuple[Sentence, ...]
    vectors: NDArray[np.float32]
    weights: Mapping[str, float]

    def weight(self, term: str) -> float:
        """Inverse document frequency among these sentences; highest for a term none contains."""
        return self.weights.get(term, math.log(2 * len(self.sentences) + 2))

    def coverage(self, wanted: frozenset[str], present: frozenset[str]) -> float:
        """Share of ``wanted`` that is present, weighted by rarity; 1 if nothing is wanted."""
        total = sum(self.weight(term) for term in wanted)
        return sum(self.weight(term) for term in wanted & present) / total if total else 1.0


@dataclass(frozen=True, slots=True)
class Ranking:
    """Indices into ``Evidence.sentences`` best first, their scores, and how likely they answer.

    ``answerable`` is in ``[0, 1]``, 0.5 being even odds on the calibration sets.
    """

    order: tuple[int, ...]
    scores: tuple[float, ...]
    answerable: float


def gather(passages: Sequence[Hit], reader: Reader) -> Evidence:
    """The sentences of the passages with vectors and terms; at most ``MAX_SENTENCES``, best passages first.

    Raises EmbeddingError from the embedder.
    """
    found: list[Sentence] = []
    for hit in sorted(passages, key=lambda hit: -hit.score):
        spans = [
            piece
            for span in sentences(hit.text)
            for piece in _pieces(hit.text, *span)
            if cues.words(hit.text[slice(*piece)])
        ]
        for i, (start, end) in enumerate(spans):
            stems = frozenset(reader.terms(hit.text[start:end]))
            found.append(Sentence(hit, start, end, stems, i == 0, i == len(spans) - 1))
    found = found[:MAX_SENTENCES]
    if not found:
        return Evidence((), np.zeros((0, 0), dtype=np.float32), {})
    vectors = reader.similarity.vectors([sentence.text for sentence in found])
    counts = Counter(term for sentence in found for term in sentence.terms)
    n = len(found)
    weights = {term: math.log(1 + (n - seen + 0.5) / (seen + 0.5)) for term, seen in counts.items()}
    return Evidence(tuple(found), vectors, weights)


def rank(question: str, evidence: Evidence, reader: Reader) -> Ranking:
    """Order the sentences by how well they answer, and say how likely they answer at all."""
    if not evidence.sentences:
        return Ranking((), (), 0.0)
    likeness = reader.similarity.between(evidence.vectors, reader.similarity.vectors([question])[0])
    wanted = frozenset(reader.terms(question))
    scores = _scores(question, wanted, evidence, likeness)
    order = np.argsort(-scores, kind="stable")
    answerable = _answerable(
        question, wanted, evidence, likeness, float(scores[order[0]]), terms=reader.terms
    )
    return Ranking(tuple(int(i) for i in order), tuple(float(scores[i]) for i in order), answerable)


def best(evidence: Evidence, ranking: Ranking, most: int, margin: float) -> list[tuple[Hit, int, int]]:
    """Up to ``most`` spans to quote, best first: the best, and others within ``margin`` of its score
    that say something else. Spans are into the hit's text and do not overlap."""
    chosen: list[tuple[Hit, int, int]] = []
    said: list[frozenset[str]] = []
    for index, score in zip(ranking.order, ranking.scores, strict=True):
        if len(chosen) == most or score < ranking.scores[0] - margin:
            break
        sentence = evidence.sentences[index]
        start, end = quote_span(evidence, index)
        taken = any(hit is sentence.hit and start < b and a < end for hit, a, b in chosen)
        same = any(len(sentence.terms & s) >= 0.8 * len(sentence.terms) for s in said)
        if not taken and (not same or not chosen):
            chosen.append((sentence.hit, start, end))
            said.append(sentence.terms)
    return chosen


def is_beside_the_question(
    evidence: Evidence, ranking: Ranking, chunk_id: str, span: tuple[int, int], margin: float
) -> bool:
    """Whether every sentence in ``span`` of the document scores more than ``margin`` below the best."""
    return not any(
        score >= ranking.scores[0] - margin
        and (hit := evidence.sentences[index].hit).chunk_id == chunk_id
        and hit.start + evidence.sentences[index].start < span[1]
        and span[0] < hit.start + evidence.sentences[index].end
        for index, score in zip(ranking.order, ranking.scores, strict=True)
    )


def passages_by_evidence(evidence: Evidence, ranking: Ranking) -> list[Hit]:
    """The passages, best first by their best sentence, with that sentence's score as the hit's; the search's
    own score becomes the stage ``search``."""
    found: dict[str, Hit] = {}
    for index, score in zip(ranking.order, ranking.scores, strict=True):
        hit = evidence.sentences[index].hit
        searched = hit.scores.get("retrieved", hit.score)  # a reranker keeps it there
        scores = {**hit.scores, "search": searched}
        found.setdefault(f"{hit.chunk_id}:{hit.start}", replace(hit, score=score, scores=scores))
    return list(found.values())


def quote_span(evidence: Evidence, index: int) -> tuple[int, int]:
    """Span in the passage to quote: the sentence, with the one before it where it cannot stand alone.

    Three words or an opening pronoun are not understandable without what they refer to.
    """
    sentence = evidence.sentences[index]
    lone = len(sentence.text.split()) <= 3 or _OPENING.match(sentence.text)
    if lone and not sentence.first:
        return evidence.sentences[index - 1].start, sentence.end
    return sentence.start, sentence.end


def _scores(
    question: str, wanted: frozenset[str], evidence: Evidence, likeness: NDArray[np.float32]
) -> NDArray[np.float64]:
    found = evidence.sentences
    passage = np.array([sentence.hit.score for sentence in found])
    passage = np.clip((passage - passage.max()) / (passage.std() + 1e-9), -3, 0)
    scores = np.zeros(len(found))
    for i, sentence in enumerate(found):
        before, after = i - (not sentence.first), i + (not sentence.last and i + 1 < len(found))
        nearby = found[before].terms | sentence.terms | found[after].terms
        features = {
            "likeness": float(likeness[i]),
            "previous": float(likeness[before]) * (1 if before < i else 0.5),
            "following": float(likeness[after]) * (1 if after > i else 0.5),
            "coverage": evidence.coverage(wanted, sentence.terms) if wanted else 0.0,
            "nearby": evidence.coverage(wanted, nearby) if wanted else 0.0,
            "passage": float(passage[i]),
            "answer_type": cues.answer_type_fit(question, sentence.text),
            "length": min(1.0, len(sentence.terms) / 8),
            # A heading, or the question itself, has hardly a word that the question lacks.
            "echo": float(len(sentence.terms - wanted) < 2),
        }
        scores[i] = sum(_RANK_WEIGHTS[name] * value for name, value in features.items())
    return scores


def _answerable(
    question: str,
    wanted: frozenset[str],
    evidence: Evidence,
    likeness: NDArray[np.float32],
    best_score: float,
    *,
    terms: Terms,
) -> float:
    present = frozenset().union(*(sentence.terms for sentence in evidence.sentences))
    titles = {sentence.hit.title for sentence in evidence.sentences}
    present |= frozenset(term for title in titles for term in terms(title))
    anchors = frozenset(term for name in cues.names(question)[1:] for term in terms(name))
    anchors |= frozenset(term for term in wanted if term.isdigit())
    nearest = np.sort(likeness)[::-1][:10]
    features = {
        "likeness": float(nearest[0]),
        "rank": best_score,
        "stands_out": float(nearest[0] - nearest.mean()),
        "names_missing": len(anchors - present) / len(anchors) if anchors else 0.0,
        "terms_missing": len(wanted - present) / len(wanted) if wanted else 0.0,
    }
    return 1 / (
        1 + math.exp(-_FOUND_BIAS - sum(_FOUND_WEIGHTS[name] * value for name, value in features.items()))
    )


def _pieces(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The span in pieces of at most ``MAX_SENTENCE_CHARS``, cut at white space where there is some."""
    pieces = []
    while end - start > MAX_SENTENCE_CHARS:
        cut = max(
            text.rfind(" ", start, start + MAX_SENTENCE_CHARS),
            text.rfind("\n", start, start + MAX_SENTENCE_CHARS),
        )
        cut = cut if cut > start else start + MAX_SENTENCE_CHARS
        pieces.append((start, cut))
        start = cut + (text[cut] in " \n")
    pieces.append((start, end))
    return [(a, b) for a, b in pieces if text[a:b].strip()]
