"""Measures of many questions as means with intervals, by set and by group, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

from pipeline.errors import InvalidRequestError
from pipeline.evaluation.runner import Asked, Ingested
from pipeline.measure import Interval, interval

FORMAT = 1
# In this order, and first of all others, in tables.
HEADLINE = ("nDCG@10", "R@10", "RR@10", "span_recall@1000", "span_precision@1000", "span_iou@1000")
# What is shown where there is room for one cutoff or budget: these if they are measured, else the largest.
_USUAL = {"nDCG": 10, "R": 10, "RR": 10, "span_recall": 1000, "span_precision": 1000, "span_iou": 1000}
GROUPS = ("language", "position", "length", "type")


@dataclass(frozen=True, slots=True)
class SetReport:
    """One set. ``by`` is group, then its value, then the measure. ``cost`` has units in its names."""

    name: str
    ingested: Ingested
    measures: Mapping[str, Interval]
    by: Mapping[str, Mapping[str, Mapping[str, Interval]]]
    cost: Mapping[str, float]
    questions: Sequence[Asked]

    def values(self, measure: str) -> dict[str, float]:
        """One value a question, for paired comparison."""
        return {q.id: q.values[measure] for q in self.questions if measure in q.values}


@dataclass(frozen=True, slots=True)
class Report:
    """All sets of one run. ``about`` is machine, versions, settings and seed."""

    about: Mapping[str, Any]
    sets: Sequence[SetReport]


def summary(
    name: str, ingested: Ingested, asked: Sequence[Asked], cost: Mapping[str, float], *, seed: int = 0
) -> SetReport:
    """Means, intervals and costs of one set. The same questions and seed give the same numbers."""
    by: dict[str, dict[str, dict[str, Interval]]] = {}
    for group in GROUPS:
        for value in sorted({q.groups[group] for q in asked if group in q.groups}):
            inside = [q for q in asked if q.groups.get(group) == value]
            by.setdefault(group, {})[value] = _means(inside, seed)
    by = {group: values for group, values in by.items() if len(values) > 1}
    searches = [q.seconds["search"] for q in asked if "search" in q.seconds]
    answers = [q.seconds["answer"] for q in asked if "answer" in q.seconds]
    found = {
        **cost,
        **_percentiles("search_ms", searches),
        **_percentiles("answer_ms", answers),
        "document_tokens": float(ingested.tokens),
    }
    if ingested.seconds:
        found["ingestion_tokens_per_second"] = ingested.tokens / ingested.seconds
    return SetReport(name, ingested, _means(asked, seed), by, found, asked)


def read_report(value: Any) -> Report:  # noqa: ANN401 - whatever a JSON file holds
    """A report from its JSON form. Raises InvalidRequestError if it is none of this version."""
    try:
        if value["format"] != FORMAT:
            raise InvalidRequestError(
                f"The report has format {value['format']!r}; this version reads {FORMAT}.",
                remedy="Run the evaluation again.",
            )
        return Report(value["about"], [_read_set(each) for each in value["sets"]])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidRequestError(
            f"This is no evaluation report: {error!r}.", remedy="Use a file that `longleaf eval --out` wrote."
        ) from error


def written(report: Report) -> dict[str, Any]:
    """The JSON form, without NaN."""
    return {
        "format": FORMAT,
        "about": dict(report.about),
        "sets": [
            {
                "name": each.name,
                "ingested": {
                    name: getattr(each.ingested, name)
                    for name in ("documents", "tokens", "passages", "units", "seconds", "failed")
                },
                "measures": _plain(each.measures),
                "by": {g: {v: _plain(m) for v, m in values.items()} for g, values in each.by.items()},
                "cost": {name: round(value, 6) for name, value in each.cost.items()},
                "questions": [
                    {
                        "id": q.id,
                        "values": {name: round(value, 6) for name, value in q.values.items()},
                        "seconds": {name: round(value, 6) for name, value in q.seconds.items()},
                        "groups": dict(q.groups),
                    }
                    for q in each.questions
                ],
            }
            for each in report.sets
        ],
    }


def ordered(names: Iterable[str]) -> list[str]:
    """Names of measures, the headline ones first."""
    kept = set(names)
    return [n for n in HEADLINE if n in kept] + sorted(kept - set(HEADLINE))


def shown(names: Iterable[str], kinds: Sequence[str]) -> list[str]:
    """One measure of each kind that ``names`` has: ``nDCG`` at 10 or at the largest cutoff, ``token_f1``."""
    known = set(names)
    found = []
    for kind in kinds:
        levels = _levels(known, kind)
        usual = _USUAL.get(kind)
        if levels:
            found.append(f"{kind}@{usual if usual in levels else levels[-1]}")
        elif kind in known:
            found.append(kind)
    return found


def every(names: Iterable[str], kind: str) -> list[str]:
    """The measures of a kind at every cutoff or budget, the smallest first."""
    return [f"{kind}@{level}" for level in _levels(names, kind)]


def measured(sets: Iterable[SetReport]) -> set[str]:
    """Names of all measures that some set has."""
    return {name for each in sets for name in each.measures}


def in_words(value: object) -> str:
    """A fact about a run for people: names and values with commas."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {in_words(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return "/".join(in_words(inner) for inner in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _levels(names: Iterable[str], kind: str) -> list[int]:
    parts = (name.partition("@") for name in names)
    return sorted(int(level) for head, _, level in parts if head == kind and level)


def _means(asked: Sequence[Asked], seed: int) -> dict[str, Interval]:
    names = ordered({name for q in asked for name in q.values})
    return {name: interval([q.values[name] for q in asked if name in q.values], seed=seed) for name in names}


def _percentiles(name: str, seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    cuts = quantiles([1000 * s for s in seconds], n=20) if len(seconds) > 1 else [1000 * seconds[0]] * 19
    return {f"{name}_p50": cuts[9], f"{name}_p95": cuts[18]}


def _plain(measures: Mapping[str, Interval]) -> dict[str, Any]:
    return {
        name: {"mean": round(i.mean, 6), "low": round(i.low, 6), "high": round(i.high, 6), "n": i.n}
        for name, i in measures.items()
        if not math.isnan(i.mean)
    }


def _read_set(value: Mapping[str, Any]) -> SetReport:
    def intervals(measures: Mapping[str, Any]) -> dict[str, Interval]:
        return {name: Interval(**i) for name, i in measures.items()}

    return SetReport(
        value["name"],
        Ingested(**value["ingested"]),
        intervals(value["measures"]),
        {g: {v: intervals(m) for v, m in values.items()} for g, values in value["by"].items()},
        value["cost"],
        [Asked(q["id"], q["values"], q["seconds"], q["groups"]) for q in value["questions"]],
    )
