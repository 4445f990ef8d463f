"""Watching passages: shared beginnings and batches give what each prompt gives alone."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import ModelError, PromptTooLongError, WorkCancelledError
from pipeline.lm import watching
from pipeline.lm.attention import Plan
from pipeline.lm.observe import SpanMass
from pipeline.lm.watching import Watched, logprob_batch, watch, watch_batch
from pipeline.seams import Message

SPANS = ((3, 9), (11, 20), (20, 33))


def prompts() -> list[Watched]:
    """Three prompts with a common beginning of 40 tokens and ends of their own."""
    draw = torch.Generator().manual_seed(3)
    start = torch.randint(3, 400, (40,), generator=draw).tolist()
    ends = [torch.randint(3, 400, (n,), generator=draw).tolist() for n in (12, 5, 8)]
    return [
        Watched((*start, *end), SPANS, range(41 if n else 40, 40 + len(end))) for n, end in enumerate(ends)
    ]


def alone(model, prompt: Watched) -> torch.Tensor:
    seen = SpanMass([prompt.spans], prompt.tokens)
    model._step(prompt.ids, model._new_cache(len(prompt.ids)), plan=Plan(observers=(seen,)))
    return seen.masses()[:, 0]


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3"])
@pytest.mark.parametrize("way", [watch, watch_batch])
def test_every_way_of_watching_sees_the_same(tiny, family, way, monkeypatch):
    monkeypatch.setattr(watching, "_CHUNK_TOKENS", {"cpu": 7})
    model = tiny(family)
    for prompt, masses in zip(prompts(), way(model, prompts()), strict=True):
        torch.testing.assert_close(masses, alone(model, prompt), atol=1e-4, rtol=1e-3)


def test_a_second_question_costs_its_own_tokens(tiny):
    model, read = tiny(), []
    hook = model.network.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    watch(model, prompts())
    hook.remove()
    assert read == [52, 5, 8]


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_log_probabilities_of_many_equal_those_of_one(tiny, family, monkeypatch):
    model = tiny(family)
    messages = [[Message("user", text)] for text in ("When?", "Who pays the rent, and when? " * 3, "A b c")]
    answers = ["March.", "The tenant, monthly.", "d"]
    pairs = [(model.chat.prompt_ids(m), model.chat.encode(a)) for m, a in zip(messages, answers, strict=True)]
    for most in (1, 10**6):
        monkeypatch.setattr(watching, "_BATCH_TOKENS", {"cpu": most})
        expected = [
            sum(each) / len(each)
            for each in (model.logprob(m, a) for m, a in zip(messages, answers, strict=True))
        ]
        found = logprob_batch(model, pairs)
        assert [each.logprob for each in found] == pytest.approx(expected, abs=1e-4)


def test_greedy_says_whether_the_model_would_answer_so(tiny):
    model, question = tiny(), [Message("user", "When?")]
    prompt = model.chat.prompt_ids(question)
    logits = model._step(prompt, model._new_cache(len(prompt)))
    best, worst = int(logits[-1].argmax()), int(logits[-1].argmin())
    assert [each.greedy for each in logprob_batch(model, [(prompt, [best]), (prompt, [worst])])] == [1, 0]


def test_what_cannot_be_watched_is_said(tiny, model_folder, tmp_path):
    from pipeline.lm.model import load

    with pytest.raises(WorkCancelledError):
        watch(tiny(), prompts(), lambda: True)
    long = Watched(tuple([5] * 3000), SPANS, range(2990, 3000))
    with pytest.raises(PromptTooLongError, match="3,000"):
        watch(tiny(), [long])
    with pytest.raises(ModelError, match="gpt_neox"):
        watch(load(str(model_folder("gpt_neox")), cache=tmp_path), prompts())
