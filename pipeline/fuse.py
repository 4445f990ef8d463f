"""Fusion: evidence from every layer and both kinds of search, rolled up to one score a passage.

A passage is judged by four signals: its best small unit and its own vector (dense), its words
(lexical), and the same evidence for the whole document it stands in. By default they are combined convexly
(Bruch et al. 2023, "An Analysis of Fusion Functions for Hybrid Retrieval", eq. 3): dense scores stay cosines
(those of long documents discounted), lexical scores are divided by the best of the query, or by what a fair
match would have where even the best has little more than a function word of it. Rank fusion, z-scores and
min-max over the candidates all measured worse on development data (see docs/decisions/fusion.md).

The best of many is high by chance: a meeting of 300 passages has a better best match than one of 30 on
average, whatever is asked. The maximum of n normal draws grows as the square root of 2 ln n (Gumbel 1958,
"Statistics of Extremes"), which over 10 to 300 passages is close to linear in ln n, at .3 to .4 deviations,
so cosines of a whole document lose ``length_discount`` times ln n. BM25 of whole documents has its own
normalisation by length.

A question of several sentences is searched sentence by sentence, and dense evidence is the mean over
them of the best match of each.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pipeline.types import Match

# A word of the question that is in a fair match adds about this much BM25 on average. In collections of any
# size the best match has far more; without it, sharing only "can" would count as the best of matches.
FAIR_MATCH = 1 / 3

Place = tuple[str, int, int]  # document id, version, ordinal of the passage
Whole = tuple[str, int]  # document id, version
Key = TypeVar("Key", Place, Whole)


Method = Literal["convex", "weighted_rrf", "rrf", "distribution"]
RollUp = Literal["max", "mean_top", "log_sum_exp"]
Join = Literal["mean", "soft_max"]


@dataclass(frozen=True, slots=True)
class Fusion:
    """Shares of the evidence, each in [0, 1], and how scores become comparable.

    ``dense`` against lexical; ``unit`` against the passage's own vector within dense; ``passage``
    against the whole document, for a question of ``usual_words`` words: see :meth:`share_of_passage`.
    Methods: ``convex`` sums the scores themselves; ``weighted_rrf`` sums
    reciprocal ranks, ``1 / (rrf_k + rank)`` (Cormack et al. 2009); ``rrf`` is that with all shares equal;
    ``distribution`` sums scores that mean plus and minus three deviations of their list bound to [0, 1]
    (distribution-based score fusion, as Qdrant has it). Roll-ups of units to passages and of both to
    documents: the best, the mean of the best ``roll_up_top``, or ``t log sum exp(score / t)``.

    Of cosines (``convex``), unit and passage may be joined by ``soft_max`` instead of the mean by shares:
    ``t log(u exp(unit / t) + (1 - u) exp(passage / t))`` with ``t`` the ``join_temperature``. It is the mean
    where both are close to each other and leans to the larger where they are far apart, as for a sentence
    that says what is asked in a passage about something else.

    ``length_discount`` is what cosines of a whole document lose (``convex``) times the natural logarithm of
    how many passages it has.
    """

    dense: float = 0.65
    unit: float = 0.5
    passage: float = 0.5
    method: Method = "convex"
    rrf_k: int = 60
    roll_up: RollUp = "max"
    roll_up_top: int = 3
    roll_up_temperature: float = 0.05
    usual_words: int = 0
    join: Join = "mean"
    join_temperature: float = 0.1
    length_discount: float = 0.0

    def share_of_passage(self, words: int) -> float:
        """``passage`` for a question of this many words: its odds fall as the question grows.

        A long question tells what a document is about; a short one asks for a place in it. With
        ``usual_words`` 0, or words unknown (0), it is ``passage`` itself.
        """
        if not (self.usual_words and words):
            return self.passage
        own, whole = self.passage * self.usual_words, (1 - self.passage) * words
        return own / (own + whole)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Matches of one query: for units and passages one list a sentence, best first.

    ``query_weight`` is the sum of the query's lexical weights, ``query_words`` how many words it has.
    """

    units: Sequence[Sequence[Match]]
    passages: Sequence[Sequence[Match]]
    passages_lexical: Sequence[Match]
    documents_lexical: Sequence[Match]
    query_weight: float = 0.0
    query_words: int = 0


class Ranked(NamedTuple):
    """A passage, its fused score, and its scores by stage."""

    document_id: str
    version: int
    ordinal: int
    score: float
    scores: Mapping[str, float]

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.document_id, self.version, self.ordinal


def fuse(evidence: Evidence, fusion: Fusion, sizes: Mapping[Whole, int] | None = None) -> list[Ranked]:
    """Every passage that any search found, best first; ties by document and ordinal.

    ``sizes`` tells how many passages documents have; those that it leaves out count as one passage.
    """
    fair = FAIR_MATCH * evidence.query_weight
    comparable = _COMPARABLE[fusion.method](fusion)
    units = comparable(_rolled(evidence.units, _passage_of_unit, fusion))
    passages = comparable(_rolled(evidence.passages, _passage, fusion))
    lexical = comparable(_relative(evidence.passages_lexical, fair, _passage))
    document_units = comparable(_rolled(evidence.units, _document, fusion))
    document_passages = comparable(_rolled(evidence.passages, _document, fusion))
    documents_lexical = comparable(_relative(evidence.documents_lexical, fair, _document))
    if fusion.method == "rrf":
        fusion = replace(fusion, dense=0.5, unit=0.5, passage=0.5, usual_words=0)
    share = fusion.share_of_passage(evidence.query_words)
    combined = _combined(fusion)
    discount = fusion.length_discount if fusion.method == "convex" else 0.0
    sizes = sizes or {}
    wholes: dict[Whole, tuple[dict[str, float], float]] = {}
    ranked = []
    for place in units.scores.keys() | passages.scores.keys() | lexical.scores.keys():
        document: Whole = place[0], place[1]
        if document not in wholes:
            less = discount * math.log(max(1, sizes.get(document, 1)))
            of_whole = {
                "document_unit": document_units.of(document) - less,
                "document_passage": document_passages.of(document) - less,
                "document_lexical": documents_lexical.of(document),
            }
            wholes[document] = of_whole, combined(*of_whole.values())
        of_whole, whole = wholes[document]
        unit, passage, words = units.of(place), passages.of(place), lexical.of(place)
        score = share * combined(unit, passage, words) + (1 - share) * whole
        scores = {"unit": unit, "passage": passage, "lexical": words, **of_whole}
        ranked.append(Ranked(*document, place[2], score, scores))
    return sorted(ranked, key=best_first)


def best_first(ranked: Ranked) -> tuple[float, str, int]:
    """What to sort by: score, then document and ordinal."""
    return -ranked.score, ranked.document_id, ranked.ordinal


def _combined(fusion: Fusion) -> Callable[[float, float, float], float]:
    """One score of a best unit's, a passage's own and its words': meaning joined, then summed with words."""
    dense, own, t = fusion.dense, fusion.unit, fusion.join_temperature
    if fusion.join == "mean" or fusion.method != "convex" or not 0 < own < 1:
        shares = dense * own, dense * (1 - own), 1 - dense
        return lambda unit, passage, words: shares[0] * unit + shares[1] * passage + shares[2] * words

    def softly(unit: float, passage: float, words: float) -> float:
        most = max(unit, passage)
        mean = own * math.exp((unit - most) / t) + (1 - own) * math.exp((passage - most) / t)
        return dense * (most + t * math.log(mean)) + (1 - dense) * words

    return softly


@dataclass(frozen=True, slots=True)
class _Scores(Generic[Key]):
    """Scores of what was found; what was not found cannot be better than ``missing``."""

    scores: Mapping[Key, float]
    missing: float

    def of(self, key: Key) -> float:
        return self.scores.get(key, self.missing)


def _rolled(
    searches: Sequence[Sequence[Match]], key_of: Callable[[Match], Key], fusion: Fusion
) -> _Scores[Key]:
    """For each thing the mean over the sentences of its matches, rolled up.

    In a sentence whose list does not have it, it gets that list's last score: a list holds the best
    matches, so the true value is at most that.
    """
    floors = [matches[-1].score if matches else 0.0 for matches in searches]
    total: dict[Key, float] = defaultdict(float)
    for matches, floor in zip(searches, floors, strict=True):
        found: dict[Key, list[float]] = defaultdict(list)
        for match in matches:  # best first
            found[key_of(match)].append(match.score)
        for key, scores in found.items():
            total[key] += _roll_up(scores, floor, fusion) - floor
    count = max(1, len(searches))
    base = sum(floors) / count
    return _Scores({key: base + value / count for key, value in total.items()}, base)


def _roll_up(scores: Sequence[float], floor: float, fusion: Fusion) -> float:
    """One score of several, best first; what is missing counts as ``floor``."""
    if fusion.roll_up == "max":
        return scores[0]
    if fusion.roll_up == "mean_top":
        top = scores[: fusion.roll_up_top]
        return (sum(top) + floor * (fusion.roll_up_top - len(top))) / fusion.roll_up_top
    t = fusion.roll_up_temperature
    return scores[0] + t * math.log(sum(math.exp((score - scores[0]) / t) for score in scores))


def _as_is(fusion: Fusion) -> Callable[[_Scores[Key]], _Scores[Key]]:
    return lambda scores: scores


def _reciprocal(fusion: Fusion) -> Callable[[_Scores[Key]], _Scores[Key]]:
    """Reciprocal ranks; equal scores share the better rank, and what was not found has nothing."""

    def ranks(given: _Scores[Key]) -> _Scores[Key]:
        order = sorted(given.scores.values(), reverse=True)
        first = {score: rank for rank, score in reversed(list(enumerate(order, 1)))}
        return _Scores({key: 1 / (fusion.rrf_k + first[s]) for key, s in given.scores.items()}, 0.0)

    return ranks


def _by_distribution(fusion: Fusion) -> Callable[[_Scores[Key]], _Scores[Key]]:
    """To [0, 1] by mean and deviation; what was not found is at 0."""

    def normalised(given: _Scores[Key]) -> _Scores[Key]:
        values = list(given.scores.values())
        mean = sum(values) / max(1, len(values))
        deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, len(values)))
        if not deviation:
            return _Scores(dict.fromkeys(given.scores, 0.5), 0.0)
        low = mean - 3 * deviation
        return _Scores(
            {k: min(1.0, max(0.0, (v - low) / (6 * deviation))) for k, v in given.scores.items()}, 0.0
        )

    return normalised


_COMPARABLE: Mapping[Method, Callable[[Fusion], Callable[[_Scores[Any]], _Scores[Any]]]] = {
    "convex": _as_is,
    "weighted_rrf": _reciprocal,
    "rrf": _reciprocal,
    "distribution": _by_distribution,
}


def _relative(matches: Sequence[Match], fair: float, key_of: Callable[[Match], Key]) -> _Scores[Key]:
    best = max((match.score for match in matches), default=0.0)
    if best <= 0:
        return _Scores({}, 0.0)
    return _Scores({key_of(match): match.score / max(best, fair) for match in matches}, 0.0)


def _passage_of_unit(match: Match) -> Place:
    return match.payload["_document_id"], match.payload["_version"], match.payload["_parent"]


def place_of(payload: Mapping[str, Any]) -> Place:
    """Where a passage stands, from the payload of its point."""
    return payload["_document_id"], payload["_version"], payload["_ordinal"]


def _passage(match: Match) -> Place:
    return place_of(match.payload)


def _document(match: Match) -> Whole:
    return match.payload["_document_id"], match.payload["_version"]
