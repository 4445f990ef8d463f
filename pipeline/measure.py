"""How good a ranking, a selection of text or an answer is. Every measure is in [0, 1] unless it says so.

Rankings are measured by ir-measures (extra ``eval``), which runs trec_eval; a query without results counts
as zero. Spans are measured in characters, answers as SQuAD does.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MissingDependencyError

Span = tuple[int, int]
Spans = Mapping[str, Sequence[Span]]  # by document id

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_SPACES = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]")


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its bootstrap interval over ``n`` questions."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] n={self.n}"


def rankings(
    relevance: Mapping[str, Mapping[str, int]],
    found: Mapping[str, Sequence[str]],
    cutoffs: Sequence[int],
) -> dict[str, dict[str, float]]:
    """nDCG, recall and reciprocal rank at each cutoff, by query id and then by measure (``nDCG@10``).

    ``relevance`` grades documents by query; ``found`` lists documents best first. Queries without a
    relevant document are left out; queries without results are zero. Gains are the grades themselves
    (Järvelin and Kekäläinen 2002). Raises MissingDependencyError without ir-measures.
    """
    try:
        import ir_measures
    except ImportError as error:
        raise MissingDependencyError(
            "Measuring rankings needs the package ir-measures.", remedy="pip install 'longleaf[eval]'"
        ) from error
    judged = {q: grades for q, grades in relevance.items() if any(grade > 0 for grade in grades.values())}
    qrels = [
        ir_measures.Qrel(q, d, max(grade, 0)) for q, grades in judged.items() for d, grade in grades.items()
    ]
    run = [
        ir_measures.ScoredDoc(q, document, float(-rank))  # trec_eval orders by score, so ties cannot arise
        for q in judged
        for rank, document in enumerate(dict.fromkeys(found.get(q, ())))
    ]
    wanted = {
        f"{name}@{k}": kind @ k
        for name, kind in (("nDCG", ir_measures.nDCG), ("R", ir_measures.R), ("RR", ir_measures.RR))
        for k in cutoffs
    }
    names = {measure: name for name, measure in wanted.items()}
    values: dict[str, dict[str, float]] = {q: dict.fromkeys(wanted, 0.0) for q in judged}
    if qrels:
        for metric in ir_measures.iter_calc(list(names), qrels, run):
            values[metric.query_id][names[metric.measure]] = float(metric.value)
    return values


def spans(wanted: Spans, selected: Spans) -> dict[str, float]:
    """Recall, precision and intersection over union of characters, over all documents together.

    After Chroma's "Evaluating Chunking Strategies for Retrieval" (2024). Overlapping spans count once.
    Nothing selected is zero for all three. ``wanted`` is not empty.
    """
    gold, taken = _length(wanted), _length(selected)
    both = sum(_shared(wanted[d], selected[d]) for d in wanted.keys() & selected.keys())
    return {
        "recall": both / gold,
        "precision": both / taken if taken else 0.0,
        "iou": both / (gold + taken - both),
    }


def citations(wanted: Spans, cited: Sequence[tuple[str, Span]]) -> dict[str, float]:
    """Precision: share of the citations that touch evidence. Recall: share of the evidence's spans that a
    citation touches. No citation is zero for both."""
    right = sum(any(_touch(span, gold) for gold in wanted.get(document, ())) for document, span in cited)
    gold = [(document, span) for document, found in wanted.items() for span in found]
    reached = sum(any(d == document and _touch(span, other) for d, other in cited) for document, span in gold)
    return {"precision": right / len(cited) if cited else 0.0, "recall": reached / len(gold)}


def exact_match(answer: str, references: Iterable[str]) -> float:
    """1 if the answer is one of the references once both are normalised, else 0 (Rajpurkar et al. 2016)."""
    given = _normal(answer)
    return float(any(given == _normal(reference) for reference in references))


def contains(answer: str, references: Iterable[str]) -> float:
    """1 if some reference stands in the answer, both normalised (Liu et al. 2023, "Lost in the Middle")."""
    given = f" {_normal(answer)} "
    return float(any(f" {normal} " in given for r in references if (normal := _normal(r))))


def token_f1(answer: str, references: Iterable[str]) -> float:
    """Best F1 of shared words over the references (Rajpurkar et al. 2016); characters stand for words in
    scripts without spaces (Lewis et al. 2020, MLQA)."""
    return max((_f1(_tokens(answer), _tokens(reference)) for reference in references), default=0.0)


def interval(values: Sequence[float], *, seed: int = 0, draws: int = 2_000) -> Interval:
    """Mean with its 95 % interval by the percentile bootstrap (Efron 1979). NaN where there are no values."""
    sample = np.asarray(values, np.float64)
    if not len(sample):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    low, high = np.percentile(_resampled(sample, seed, draws), [2.5, 97.5])
    return Interval(float(sample.mean()), float(low), float(high), len(sample))


def difference(
    values: Mapping[str, float], baseline: Mapping[str, float], *, seed: int = 0, draws: int = 2_000
) -> Interval:
    """Mean paired difference over the questions that both have, with its 95 % interval."""
    shared = sorted(values.keys() & baseline.keys())
    return interval([values[key] - baseline[key] for key in shared], seed=seed, draws=draws)


def _resampled(sample: NDArray[np.float64], seed: int, draws: int) -> NDArray[np.float64]:
    """Means of ``draws`` samples with replacement, a few at a time so that memory stays small."""
    random = np.random.default_rng(seed)
    step = max(1, 4_000_000 // len(sample))
    means = [
        sample[random.integers(0, len(sample), (min(step, draws - done), len(sample)))].mean(axis=1)
        for done in range(0, draws, step)
    ]
    joined: NDArray[np.float64] = np.concatenate(means)
    return joined


def _length(spans: Spans) -> int:
    return sum(end - start for found in spans.values() for start, end in joined(found))


def _shared(first: Sequence[Span], second: Sequence[Span]) -> int:
    other = joined(second)
    return sum(max(0, min(a[1], b[1]) - max(a[0], b[0])) for a in joined(first) for b in other)


def joined(spans: Iterable[Span]) -> list[Span]:
    """The same characters as spans in order that neither overlap nor touch."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _touch(first: Span, second: Span) -> bool:
    return first[0] < second[1] and second[0] < first[1]


def _normal(text: str) -> str:
    """Lower case, without punctuation and English articles, blanks collapsed."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(c for c in folded if not unicodedata.category(c).startswith("P"))
    return " ".join(_ARTICLES.sub(" ", kept).split())


def _tokens(text: str) -> list[str]:
    return [
        token
        for word in _normal(text).split()
        for token in (list(word) if _NO_SPACES.search(word) else [word])
    ]


def _f1(given: list[str], reference: list[str]) -> float:
    if not given or not reference:
        return float(given == reference)
    shared = sum((Counter(given) & Counter(reference)).values())
    return 2 * shared / (len(given) + len(reference))
