"""Fusion: evidence from every layer and both kinds of search, rolled up to one score a passage.

A passage is judged by four signals: its best small unit and its own vector (dense), its words
(lexical), and the same evidence for the whole document it stands in. They are combined convexly
(Bruch et al. 2023, "An Analysis of Fusion Functions for Hybrid Retrieval", eq. 3): dense scores stay
cosines, lexical scores are divided by the best of the query, or by what a fair match would have where even
the best has little more than a function word of it. Rank fusion, z-scores and min-max over the
candidates all measured worse on development data (see docs/decisions/fusion.md).

A question of several sentences is searched sentence by sentence, and dense evidence is the mean over
them of the best match of each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pipeline.types import Match

# A word of the question that is in a fair match adds about this much BM25 on average. In collections of any
# size the best match has far more; without it, sharing only "can" would count as the best of matches.
FAIR_MATCH = 1 / 3

Place = tuple[str, int, int]  # document id, version, ordinal of the passage
Whole = tuple[str, int]  # document id, version
Key = TypeVar("Key", Place, Whole)


@dataclass(frozen=True, slots=True)
class Weights:
    """Shares of the evidence, each in [0, 1].

    ``dense`` against lexical; ``unit`` against the passage's own vector within dense; ``passage``
    against the whole document.
    """

    dense: float = 0.6
    unit: float = 0.5
    passage: float = 0.5


@dataclass(frozen=True, slots=True)
class Evidence:
    """Matches of one query: for units and passages one list a sentence, best first.

    ``query_weight`` is the sum of the query's lexical weights.
    """

    units: Sequence[Sequence[Match]]
    passages: Sequence[Sequence[Match]]
    passages_lexical: Sequence[Match]
    documents_lexical: Sequence[Match]
    query_weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Ranked:
    """A passage, its fused score, and its scores by stage."""

    document_id: str
    version: int
    ordinal: int
    score: float
    scores: dict[str, float] = field(default_factory=dict)


def fuse(evidence: Evidence, weights: Weights) -> list[Ranked]:
    """Every passage that any search found, best first; ties by document and ordinal."""
    units = _mean_of_best(evidence.units, _passage_of_unit)
    passages = _mean_of_best(evidence.passages, _passage)
    fair = FAIR_MATCH * evidence.query_weight
    lexical = _relative(evidence.passages_lexical, fair, _passage)
    in_document = {
        "units": _mean_of_best(evidence.units, _document),
        "passages": _mean_of_best(evidence.passages, _document),
    }
    documents_lexical = _relative(evidence.documents_lexical, fair, _document)
    ranked = []
    for place in units.scores.keys() | passages.scores.keys() | lexical.scores.keys():
        document = place[0], place[1]
        scores = {
            "unit": units.of(place),
            "passage": passages.of(place),
            "lexical": lexical.of(place),
            "document_unit": in_document["units"].of(document),
            "document_passage": in_document["passages"].of(document),
            "document_lexical": documents_lexical.of(document),
        }
        own = _convex(weights, scores["unit"], scores["passage"], scores["lexical"])
        whole = _convex(
            weights, scores["document_unit"], scores["document_passage"], scores["document_lexical"]
        )
        score = weights.passage * own + (1 - weights.passage) * whole
        ranked.append(Ranked(*place, score, scores))
    return sorted(ranked, key=lambda r: (-r.score, r.document_id, r.ordinal))


def _convex(weights: Weights, unit: float, passage: float, lexical: float) -> float:
    dense = weights.unit * unit + (1 - weights.unit) * passage
    return weights.dense * dense + (1 - weights.dense) * lexical


@dataclass(frozen=True, slots=True)
class _Scores(Generic[Key]):
    """Scores of what was found; what was not found cannot be better than ``missing``."""

    scores: Mapping[Key, float]
    missing: float

    def of(self, key: Key) -> float:
        return self.scores.get(key, self.missing)


def _mean_of_best(searches: Sequence[Sequence[Match]], key_of: Callable[[Match], Key]) -> _Scores[Key]:
    """For each thing the mean over the sentences of its best match.

    In a sentence whose list does not have it, it gets that list's last score: a list holds the best
    matches, so the true value is at most that.
    """
    floors = [matches[-1].score if matches else 0.0 for matches in searches]
    total: dict[Key, float] = defaultdict(float)
    for matches, floor in zip(searches, floors, strict=True):
        best: dict[Key, float] = {}
        for match in matches:  # best first, so the first of a thing is its best
            best.setdefault(key_of(match), match.score)
        for key, score in best.items():
            total[key] += score - floor
    count = max(1, len(searches))
    base = sum(floors) / count
    return _Scores({key: base + value / count for key, value in total.items()}, base)


def _relative(matches: Sequence[Match], fair: float, key_of: Callable[[Match], Key]) -> _Scores[Key]:
    best = max((match.score for match in matches), default=0.0)
    if best <= 0:
        return _Scores({}, 0.0)
    return _Scores({key_of(match): match.score / max(best, fair) for match in matches}, 0.0)


def _passage_of_unit(match: Match) -> Place:
    return match.payload["_document_id"], match.payload["_version"], match.payload["_parent"]


def _passage(match: Match) -> Place:
    return match.payload["_document_id"], match.payload["_version"], match.payload["_ordinal"]


def _document(match: Match) -> Whole:
    return match.payload["_document_id"], match.payload["_version"]
