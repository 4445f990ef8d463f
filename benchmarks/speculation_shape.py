"""Speed on a GPU with a target of Llama-3-8B's shape: part ``shape`` of :mod:`benchmarks.speculation`.

Weights are random and states empty, which changes nothing about the time that passes take. Which drafted
tokens are accepted is replayed from real answers. Speed only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.report import heading
from benchmarks.speculation import save
from pipeline.lm.attention import install
from pipeline.lm.engine import Engine
from pipeline.lm.graphs import FixedStep
from pipeline.lm.kv_cache import fill, new_cache
from pipeline.lm.sequence import Sequence

SHAPES = {
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "head_dim": 128},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "head_dim": 64},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 16},
}  # fmt: skip
Step = Callable[[list[int]], torch.Tensor]


def network(shape: str, device: str, layers: int) -> Any:
    """A Llama of this shape with random weights, bfloat16 on a GPU."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    sizes = dict(SHAPES[shape])
    sizes["num_hidden_layers"] = min(sizes["num_hidden_layers"], layers)
    config = LlamaConfig(**sizes, vocab_size=128_256, max_position_embeddings=2**18, rope_theta=500_000.0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):
        made = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    install(made)
    return made


def filled(engine: Engine, tokens: int, room: int) -> Sequence:
    """A sequence of so many empty states."""
    capacity = -(-(tokens + room) // 512) * 512  # whole parts, so that no states are copied
    sequence = Sequence(engine, new_cache(engine.network.config, capacity))
    sequence.read([0])
    fill(sequence.cache, tokens)
    sequence.ids = [0] * tokens
    return sequence


def steps_of(sequence: Sequence, sizes: list[int], *, graphs: bool) -> dict[int, Step]:
    """How the sequence reads each number of tokens, recorded or as usual."""

    def usual(ids: list[int]) -> torch.Tensor:
        return sequence.read(ids, len(ids))

    def recorded(fixed: FixedStep) -> Step:
        def read(ids: list[int]) -> torch.Tensor:
            logits = fixed(ids)
            sequence.ids += ids
            return logits

        return read

    if not graphs:
        return dict.fromkeys(sizes, usual)
    return {size: recorded(FixedStep(sequence, size)) for size in sizes}


def replay(agreement: list[list[int]]) -> Iterator[bool]:
    """Whether the drafter's next token would be accepted, answer after answer, over and over."""
    return itertools.cycle([bool(flag) for answer in agreement for flag in answer])


def plain_seconds(step: Step, tokens: int) -> float:
    """Seconds of one token of plain decoding."""
    token = 1
    for _ in range(3):
        token = int(step([token])[-1].argmax())
    began = time.perf_counter()
    for _ in range(tokens):
        token = int(step([token])[-1].argmax())
    return (time.perf_counter() - began) / tokens


def drafted_seconds(
    target: Sequence, verify: Step, drafter: Sequence, draft: dict[int, Step], length: int, tokens: int,
    flags: Iterator[bool],
) -> tuple[float, float, int]:  # fmt: skip
    """Seconds a token, acceptance and rounds of decoding about so many tokens."""
    written = rounds = accepted = 0
    unread, last = [1], 1
    began = time.perf_counter()
    while written < tokens:
        base, mine = target.length_tokens, drafter.length_tokens
        drafts = []
        for at in range(length):
            logits = draft[len(unread)](unread) if at == 0 else draft[1]([last])
            last = int(logits[-1].argmax())
            drafts.append(last)
        chosen = verify([1, *drafts]).argmax(-1).tolist()
        taken = 0
        while taken < length and next(flags):
            taken += 1
        target.roll_back(base + 1 + taken)
        kept = mine + len(unread) + min(taken, length - 1)
        drafter.roll_back(kept)
        unread = [drafts[-1], chosen[-1]] if taken == length else [chosen[taken]]
        written, rounds, accepted = written + taken + 1, rounds + 1, accepted + taken
    return (time.perf_counter() - began) / written, accepted / (rounds * length), rounds


def shape(given: argparse.Namespace) -> None:
    """Every context x drafter x draft length, with and without recorded passes."""
    rows = json.loads(given.agreement.read_text("utf-8"))
    agreement = [row["agreement"] for row in rows if row.get("agreement")]
    share = sum(map(sum, agreement)) / sum(map(len, agreement))
    heading(f"{len(agreement)} answers, {sum(map(len, agreement))} tokens replayed, {share:.3f} agree")
    cuda = given.device == "cuda"
    ended = time.monotonic() + given.seconds
    target_engine = Engine(network("8b" if cuda else "tiny", given.device, given.layers))
    engines = {"8b" if cuda else "tiny": target_engine}
    if cuda:
        engines["1b"] = Engine(network("1b", given.device, given.layers))
    results: list[dict[str, Any]] = []
    drafters: dict[tuple[str, int, bool], tuple[Sequence, dict[int, Step]]] = {}
    for graphs, context in itertools.product((True, False), sorted(given.contexts, reverse=True)):
        if graphs and (not cuda or given.usual_only):
            continue
        sizes = [1, *(length + 1 for length in given.lengths)]
        target = filled(target_engine, context, given.tokens * 4)
        try:
            reads = steps_of(target, sizes, graphs=graphs)
        except RuntimeError as error:
            print(f"{context} recorded: {error}", flush=True)
            continue
        plain = plain_seconds(reads[1], given.tokens)
        base = {"context": context, "graphs": graphs, "plain_ms": 1000 * plain}
        print(
            f"{context:7} {'recorded' if graphs else 'usual':8} plain {1000 * plain:.2f} ms a token",
            flush=True,
        )
        for name, draft_context, length in itertools.product(engines, (2048, 4096), given.lengths):
            if time.monotonic() > ended:
                break
            key = (name, draft_context, graphs)
            if key not in drafters:
                made = filled(engines[name], draft_context if cuda else 64, given.tokens * 4)
                drafters[key] = made, steps_of(made, [1, 2], graphs=graphs)
            drafter, draft = drafters[key]
            drafter.roll_back(draft_context if cuda else 64)
            target.roll_back(context)
            flags = replay(agreement)
            seconds, acceptance, rounds = drafted_seconds(
                target, reads[length + 1], drafter, draft, length, given.tokens, flags
            )
            row = {**base, "drafter": name, "draft_context": draft_context, "length": length,
                   "ms": 1000 * seconds, "gain": plain / seconds, "acceptance": acceptance, "rounds": rounds}  # fmt: skip
            results.append(row)
            save(given.out, results)
            print(
                f"        {name:4} on {draft_context} draft {length}: acceptance {acceptance:.2f}, "
                f"{1000 * seconds:.2f} ms a token, gain {row['gain']:.2f}",
                flush=True,
            )
        del reads, target
        if cuda:
            torch.cuda.empty_cache()
