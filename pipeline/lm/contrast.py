"""Context-aware decoding: towards what the passages say, away from what the model believed before.

Shi et al. 2023, "Trusting Your Evidence: Hallucinate Less with Context-aware Decoding", equation 3: the
next token is chosen from ``(1 + a) * logits(with passages) - a * logits(without)``. Two prompts are read,
and every step is taken twice.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from pipeline.errors import InvalidRequestError
from pipeline.lm.sampling import Chooser
from pipeline.lm.writing import Token, Writer
from pipeline.seams import TextDelta

if TYPE_CHECKING:
    from pipeline.lm.model import LocalModel
    from pipeline.lm.request import Generation


def check(request: Generation) -> None:
    """Raise InvalidRequestError for a strength below 0, or nothing to be drawn away from."""
    if not 0 <= request.context_strength < float("inf"):
        raise InvalidRequestError(
            f"context_strength is {request.context_strength}.", remedy="It must be 0 (off) or more."
        )
    if request.moved is not None:
        raise InvalidRequestError(
            "Context-aware decoding was asked for with attention moved.", remedy="Ask for one of them."
        )
    if request.context_strength and not request.bare_messages:
        raise InvalidRequestError(
            "Context-aware decoding was asked for without the question alone.",
            remedy="Give bare_messages: the messages without passages.",
        )


def mixed(with_context: torch.Tensor, without: torch.Tensor, strength: float) -> torch.Tensor:
    """Logits (..., V) drawn to the context, in float32."""
    return (1 + strength) * with_context.float() - strength * without.float()


def contrasted(
    model: LocalModel, request: Generation, prompt: list[int], bare: list[int], ends: frozenset[int]
) -> Iterator[TextDelta]:
    """Write the answer to the prompt's ids, away from that to the bare ones.

    ``usage`` of the last delta says the strength and the tokens of the bare prompt.
    """
    most_tokens = min(request.sampling.max_tokens, model.window_tokens - len(prompt))
    writer = Writer(model.chat.decode, ends, request.sampling.stop, most_tokens)
    chooser = Chooser(request.sampling)
    with ExitStack() as reading:
        sequences, logits = [], []
        for ids in (prompt, bare):
            sequence = model.reader.begin(request.tenant, ids, most_tokens)
            reading.callback(model.reader.keep, request.tenant, sequence)
            read = model.reader.read(sequence, ids[len(sequence.ids) :], request.cancelled)
            if read is None:
                yield TextDelta("", 0, "cancelled")
                return
            sequences.append(sequence)
            logits.append(read[-1])
        while not request.cancelled():
            token = chooser.choose(mixed(logits[0], logits[1], request.context_strength))
            yield from writer.write([Token(token)])
            if writer.finish is not None or request.cancelled():
                break
            logits = [sequence.read([token])[-1] for sequence in sequences]
        usage = {"context_strength": request.context_strength, "bare_prompt_tokens": len(bare)}
        yield replace(writer.end("cancelled"), usage=usage)
