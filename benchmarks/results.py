"""Measure the development sets and write what was found into docs/results.md, between its two marks.

python -m benchmarks.results DATA --size ten-minutes        (make eval)
python -m benchmarks.results DATA --size nightly
python -m benchmarks.results --reports default.json plain_RRF.json ...   (of benchmarks.evaluation)
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from api.evaluation import evaluate
from api.settings import load_settings
from pipeline.evaluation.dataset import load_set
from pipeline.evaluation.report import Report, SetReport, read_report, written
from pipeline.evaluation.runner import PLACES, Plan
from pipeline.evaluation.tables import measures_table
from pipeline.measure import difference, interval

BEGIN, END = "<!-- made by `make eval`: begin -->", "<!-- end -->"
COLUMNS = ("nDCG@10", "R@10", "span_recall@500", "span_recall@1000", "span_recall@2000")
# Documents and questions of each set, so that all together take about so long on two cores.
SIZES: Mapping[str, Mapping[str, tuple[int | None, int | None]]] = {
    "one-minute": {
        "chunking_eval": (1, 20),
        "contractnli": (6, 20),
        "covidqa": (3, 20),
        "hotpotqa_100": (100, None),
        "xquad": (24, 24),
        "cranfield": (60, 20),
    },
    "ten-minutes": {
        "chunking_eval": (None, 100),
        "contractnli": (30, 120),
        "covidqa": (20, 120),
        "hotpotqa_100": (None, None),
        "locomo": (2, 100),
        "leval_qasper": (None, None),
        "xquad": (360, 120),
        "cranfield": (500, 100),
        "qmsum": (12, 60),
        "scifact": (400, 60),
    },
    "nightly": dict.fromkeys(
        "chunking_eval contractnli covidqa hotpotqa_100 locomo leval_qasper leval_nq_long xquad cranfield "
        "vaswani_npl qmsum scifact".split(),
        (None, None),
    ),
}


def section(reports: Sequence[Report]) -> str:
    """Facts of the run, quality by set, by position of the evidence, by language, and by fusion."""
    first = reports[0]
    facts = ", ".join(
        f"{name} {first.about[name]}"
        for name in ("created", "commit", "machine", "seed")
        if name in first.about
    )
    parts = [f"{facts}. Means with 95 % intervals and n.", measures_table(first.sets, COLUMNS)]
    places = [(each, each.by["position"]) for each in first.sets if "position" in each.by]
    if places:
        head = f"| span recall at 1,000 tokens, by place of the evidence | {' | '.join(PLACES)} |"
        lines = [head, "|---" * (len(PLACES) + 1) + "|"]
        for each, by in places:
            cells = [_cell(by, place) for place in PLACES]
            lines.append(f"| {each.name} | " + " | ".join(cells) + " |")
        lines.append("| all together | " + " | ".join(_pooled(first, place) for place in PLACES) + " |")
        lines.append(f"\nMiddle minus beginning, within sets: {_middle_less_beginning(first.sets)}.")
        parts.append("\n".join(lines))
    languages = [(v, m) for each in first.sets for v, m in each.by.get("language", {}).items()]
    if languages:
        lines = ["| language | nDCG@10 | span recall at 500 tokens |", "|---|---|---|"]
        lines += [f"| {v} | {m.get('nDCG@10', '')} | {m.get('span_recall@500', '')} |" for v, m in languages]
        parts.append("\n".join(lines))
    if len(reports) > 1:
        parts += [fusions(reports, measure) for measure in ("nDCG@10", "span_recall@1000")]
    return "\n\n".join(parts)


def fusions(reports: Sequence[Report], measure: str) -> str:
    """Every report's mean; in brackets what the first has more, paired by question."""
    names = [str(report.about.get("fusion", f"run {i}")) for i, report in enumerate(reports)]
    lines = [f"| {measure} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for each in reports[0].sets:
        base = each.values(measure)
        if not base:
            continue
        cells = []
        for report in reports:
            values = next(s for s in report.sets if s.name == each.name).values(measure)
            change = difference(base, values)
            gap = (
                f" ({change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}])"
                if report is not reports[0]
                else ""
            )
            cells.append(f"{sum(values.values()) / len(values):.3f}{gap}")
        lines.append(f"| {each.name}, n={len(base)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def joined(reports: Sequence[Report]) -> list[Report]:
    """Reports of one fusion over several sets as one; the defaults first."""
    by_fusion: dict[str, list[Report]] = {}
    for report in reports:
        by_fusion.setdefault(str(report.about.get("fusion", "")), []).append(report)
    names = sorted(by_fusion, key=lambda name: (name != "default", list(by_fusion).index(name)))
    return [Report(by_fusion[n][0].about, [each for r in by_fusion[n] for each in r.sets]) for n in names]


def insert(path: Path, text: str, begin: str = BEGIN) -> None:
    """Replace what stands between the marks, or add them at the end."""
    before = path.read_text(encoding="utf-8") if path.exists() else "# Measured\n"
    if begin not in before:
        before = f"{before.rstrip()}\n\n## Retrieval by set\n\n{begin}\n{END}\n"
    head, _, rest = before.partition(begin)
    _, _, tail = rest.partition(END)
    path.write_text(f"{head}{begin}\n{text}\n{END}{tail}", encoding="utf-8")


def _cell(by: Any, place: str) -> str:
    measures = by.get(place, {})
    return str(measures.get("span_recall@1000", ""))


def _middle_less_beginning(sets: Sequence[SetReport], draws: int = 2_000) -> str:
    """Mean over sets, weighed by how many questions each has of both, with its 95 % bootstrap interval: sets
    whose questions are harder have their evidence elsewhere, too."""
    random = np.random.default_rng(0)
    changes, weights = [], []
    for each in sets:
        rows = [(q.groups.get("position"), q.values.get("span_recall@1000")) for q in each.questions]
        first, second = (
            np.array([v for place, v in rows if place == wanted and v is not None])
            for wanted in ("beginning", "middle")
        )
        if len(first) and len(second):
            weights.append(1 / (1 / len(first) + 1 / len(second)))
            means = [v[random.integers(0, len(v), (draws, len(v)))].mean(1) for v in (second, first)]
            changes.append(np.r_[second.mean() - first.mean(), means[0] - means[1]])
    if not changes:
        return "not known"
    found = np.average(changes, axis=0, weights=weights)
    low, high = np.percentile(found[1:], [2.5, 97.5])
    return f"{found[0]:+.3f} [{low:+.3f}, {high:+.3f}]"


def _pooled(report: Report, place: str) -> str:
    values = [
        q.values["span_recall@1000"]
        for each in report.sets
        for q in each.questions
        if q.groups.get("position") == place and "span_recall@1000" in q.values
    ]
    return str(interval(values))


def main() -> None:
    """Run, or read reports; then write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--size", choices=list(SIZES), default="ten-minutes")
    parser.add_argument("--reports", type=Path, nargs="+")
    parser.add_argument("--work", type=Path, default=Path("longleaf-data"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--into", type=Path, default=Path("docs/results.md"))
    given = parser.parse_args()
    if given.reports:
        reports = joined([read_report(json.loads(path.read_text())) for path in given.reports])
    else:
        if given.data is None:
            parser.error("name the folder of the sets, or --reports")
        sizes = SIZES[given.size]
        names = [name for name in sizes if (given.data / name).is_dir()]
        sets = [load_set(given.data / name).sample(*sizes[name]) for name in names]
        settings = load_settings({"data": given.work, "language_model.spec": "none"})

        def show(stage: str, done: int, total: int) -> None:
            if done == total:
                print(stage, total, file=sys.stderr, flush=True)

        reports = [evaluate(settings, sets, Plan(), seed=0, progress=show)]
        if given.json:
            given.json.write_text(json.dumps(written(reports[0])))
    insert(given.into, section(reports))
    print(section(reports))


if __name__ == "__main__":
    main()
