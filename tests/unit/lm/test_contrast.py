"""Context-aware decoding against the paper's equation on logits of whole passes."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import InvalidRequestError
from pipeline.lm.request import Generation
from pipeline.seams import Message, Sampling

WITH = [Message("user", "The lease ends in March. When does the lease end?")]
BARE = [Message("user", "When does the lease end?")]


def request(strength, **changes):
    return Generation(WITH, Sampling(max_tokens=12), context_strength=strength, bare_messages=BARE, **changes)


def by_hand(model, strength, tokens=12):
    """Greedy tokens of equation 3, every step a whole pass over both prompts."""
    full, bare, chosen = model.chat.prompt_ids(WITH), model.chat.prompt_ids(BARE), []
    while len(chosen) < tokens:
        with torch.inference_mode():
            a, b = (
                model.network(input_ids=torch.tensor([ids + chosen])).logits[0, -1] for ids in (full, bare)
            )
        token = int(((1 + strength) * a - strength * b).argmax())
        if token in model._ends:
            break
        chosen.append(token)
    return model.chat.decode(chosen).rstrip("\ufffd")


def text_of(deltas):
    return "".join(delta.text for delta in deltas)


@pytest.mark.parametrize("strength", [0.5, 2.0])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_it_is_the_published_equation(tiny, family, strength):
    model = tiny(family)
    deltas = list(model.generate(request(strength)))
    assert text_of(deltas) == by_hand(model, strength)
    assert deltas[-1].usage["context_strength"] == strength
    assert deltas[-1].usage["bare_prompt_tokens"] == model.prompt_tokens(BARE)
    assert deltas[-1].finish in ("stop", "length")


def test_strength_zero_is_plain_decoding(tiny):
    plain = text_of(tiny().stream(WITH, Sampling(max_tokens=12)))
    assert text_of(tiny().generate(request(0.0))) == plain
    assert by_hand(tiny(), 0.0) == plain
    assert text_of(tiny().generate(request(4.0))) != plain


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_a_senseless_strength_is_named(tiny, strength):
    with pytest.raises(InvalidRequestError, match=f"context_strength is {strength}"):
        tiny().generate(request(strength))


def test_nothing_to_be_drawn_away_from_is_refused(tiny):
    with pytest.raises(InvalidRequestError, match="question alone"):
        tiny().generate(Generation(WITH, context_strength=1.0))


def test_cancelled_within_a_step(tiny):
    calls = iter(range(1, 100))
    deltas = list(tiny().generate(request(1.0, cancelled=lambda: next(calls) > 5)))
    assert deltas[-1].finish == "cancelled"
    assert sum(delta.tokens for delta in deltas) < 12
