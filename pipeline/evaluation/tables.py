"""Reports as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.evaluation.compare import Difference
from pipeline.evaluation.report import Report, SetReport, every, in_words, measured, shown
from pipeline.evaluation.runner import PLACES
from pipeline.measure import Interval

_ANSWERS = (
    "answered",
    "abstained",
    "exact_match",
    "token_f1",
    "holds_reference",
    "reference_logprob",
    "supported",
    "citation_precision",
    "citation_recall",
)
_COSTS = ("ingestion_tokens_per_second", "search_ms_p50", "search_ms_p95", "answer_ms_p50", "bytes_per_token")


def markdown(report: Report) -> str:
    """Every set, then by group, then the costs. Intervals are 95 %."""
    about = [f"- {name}: {in_words(value)}" for name, value in report.about.items() if name != "settings"]
    columns = _columns(report.sets)
    parts = ["\n".join(about), measures_table(report.sets, columns)]
    if any(name in each.measures for each in report.sets for name in _ANSWERS):
        parts.append(measures_table(report.sets, _ANSWERS))
    for group in ("position", "length", "type", "language"):
        rows = [(f"{s.name}: {v}", s.by[group][v]) for s in report.sets for v in _values(s, group)]
        if rows:
            parts.append(f"By {group}:\n\n" + _table(rows, columns))
    parts.append("Cost:\n\n" + _costs(report.sets))
    failed = [f"- {s.name}: {d}: {why}" for s in report.sets for d, why in s.ingested.failed.items()]
    if failed:
        parts.append("Documents that could not be ingested:\n\n" + "\n".join(failed))
    return "\n\n".join(parts) + "\n"


def measures_table(sets: Sequence[SetReport], columns: Sequence[str]) -> str:
    """One line a set, a measure a column; columns without any value are left out."""
    return _table([(each.name, each.measures) for each in sets], columns)


def differences_table(differences: Iterable[Difference], tolerance: float) -> str:
    """One line a measure: old, new, paired difference with interval, and a word on it."""
    lines = ["| set | measure | before | after | change | |", "|---|---|---|---|---|---|"]
    for d in differences:
        word = "worse" if d.regressed(tolerance) else ("better" if d.significant and d.gain > 0 else "")
        change = f"{d.change.mean:+.3f} [{d.change.low:+.3f}, {d.change.high:+.3f}] n={d.change.n}"
        lines.append(f"| {d.set} | {d.measure} | {d.old:.3f} | {d.new:.3f} | {change} | {word} |")
    return "\n".join(lines)


def _columns(sets: Sequence[SetReport]) -> list[str]:
    """What is told of searches; questions that were refused only where there are some."""
    names = measured(sets)
    refused = any(each.measures["refused"].mean > 0 for each in sets if "refused" in each.measures)
    return [
        *shown(names, ("nDCG", "R")),
        *every(names, "span_recall"),
        *shown(names, ("span_iou",)),
        *(["refused"] if refused else []),
    ]


def _values(report: SetReport, group: str) -> list[str]:
    """Values of a group; positions as one reads."""
    found = report.by.get(group, {})
    known = [place for place in PLACES if place in found]
    return known or list(found)


def _table(rows: Sequence[tuple[str, Mapping[str, Interval]]], columns: Sequence[str]) -> str:
    used = [name for name in columns if any(name in measures for _, measures in rows)]
    lines = ["| | " + " | ".join(used) + " |", "|---" * (len(used) + 1) + "|"]
    for name, measures in rows:
        cells = [str(measures[column]) if column in measures else "" for column in used]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _costs(sets: Sequence[SetReport]) -> str:
    used = [name for name in _COSTS if any(name in each.cost for each in sets)]
    lines = ["| | documents | tokens | " + " | ".join(used) + " |", "|---" * (len(used) + 3) + "|"]
    for each in sets:
        cells = [f"{each.cost[name]:,.1f}" if name in each.cost else "" for name in used]
        size = f"{each.ingested.documents:,} | {each.ingested.tokens:,}"
        lines.append(f"| {each.name} | {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
