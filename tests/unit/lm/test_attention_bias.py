"""Attention with a bias on passages, against the definition written out on whole attention matrices."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_networks import logits_in_chunks as logits
from tiny_networks import make_network
from tiny_networks import some_ids as ids

from pipeline.lm import engine as engines
from pipeline.lm.attention import Attending, Plan, attend, install, weight_blocks
from pipeline.lm.attention_bias import biasing
from pipeline.lm.engine import Step
from pipeline.lm.kv_cache import new_cache
from pipeline.lm.model import load
from pipeline.lm.moved_attention import moving
from pipeline.lm.request import PLAIN, Biased, Generation, Speculation
from pipeline.lm.reweigh import reweighing
from pipeline.lm.sequence import Sequence
from pipeline.lm.signals import MOST_BIAS, Bias
from pipeline.prompt import place
from pipeline.seams import Sampling
from pipeline.types import Hit

SPANS = ((2, 8), (10, 19), (19, 25))
BIASES = (1.5, -2.0, 0.5)
BEGINS = 30
FAMILIES = ["llama", "qwen2", "mistral", "gemma2", "qwen3", "phi3"]  # some with windows of 16, one capped


def by_hand(first_layer: int) -> Plan:
    """Weights times e^bias and normalised anew, a row at a time, on the full matrix."""

    def attended(call: Attending) -> torch.Tensor:
        out = attend(call)
        if call.layer < first_layer:
            return out
        [(_, weights)] = weight_blocks(call, torch.arange(call.query.shape[2]))
        for row in range(BEGINS, call.query.shape[2]):
            for head in range(weights.shape[1]):
                a = weights[0, head, row].clone()
                for bias, (first, end) in zip(BIASES, SPANS, strict=True):
                    a[first:end] *= torch.tensor(bias).exp()
                out[0, head, row] = (
                    a / a.sum() @ call.value[0, head * call.value.shape[1] // weights.shape[1]]
                )
        return out

    return Plan(attend=attended)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunks", [(40,), (28, 7, 5), (31, *[1] * 9)])
def test_it_is_the_definition_however_the_prompt_is_read(family, chunks):
    network = make_network(family)
    install(network)
    ours = logits(network, ids(), biasing(SPANS, BIASES, BEGINS, (1, 99)), chunks)
    torch.testing.assert_close(ours, logits(network, ids(), by_hand(1), (40,)), atol=1e-4, rtol=0)
    plain = logits(network, ids(), None, (40,))
    torch.testing.assert_close(ours[:, :BEGINS], plain[:, :BEGINS], atol=1e-4, rtol=0)
    assert (ours[:, BEGINS:] - plain[:, BEGINS:]).abs().max() > 1e-2


def test_a_bias_of_nothing_changes_nothing():
    network = make_network("llama")
    install(network)
    ours = logits(network, ids(), biasing(SPANS, (0.0, 0.0, 0.0), BEGINS, (0, 99)), (28, 12))
    torch.testing.assert_close(ours, logits(network, ids(), None, (40,)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_requests_with_plans_of_their_own_share_a_pass_with_others(tiny, family):
    """One biased, one with shares, one as ever, and one whose plan has not begun; each as if alone."""
    model = tiny(family)
    layers = (1, 99)
    plans = [
        biasing(SPANS, BIASES, BEGINS, layers),
        reweighing([SPANS], [torch.tensor([0.6, 0.3, 0.1]).numpy()], [BEGINS], layers),
        None,
        biasing(SPANS, BIASES, 90, layers),
    ]
    heads = [ids(n, seed)[0].tolist() for seed, n in enumerate((34, 40, 25, 30))]
    tails = [ids(n, seed)[0].tolist() for seed, n in enumerate((1, 3, 1, 20))]

    def begun() -> list[Sequence]:
        made = []
        for plan, head in zip(plans, heads, strict=True):
            made.append(Sequence(model.engine, new_cache(model.network.config, 100), plan=plan))
            made[-1].read(head)
        return made

    alone = [one.read(tail, len(tail)) for one, tail in zip(begun(), tails, strict=True)]
    steps = [Step(one, tail, len(tail)) for one, tail in zip(begun(), tails, strict=True)]
    assert not any(step.alone for step in steps)
    engines._packed_pass(model.network, steps)
    for step, expected in zip(steps, alone, strict=True):
        torch.testing.assert_close(step.logits, expected, atol=1e-4, rtol=1e-4)


def placed():
    texts = ["The lease ends in March.", "The tenant returns the keys.", "Rent is due monthly."]
    return place("When?", [Hit(str(n), "d", 1, "", t, 0, len(t), 1.0) for n, t in enumerate(texts)])


def test_an_answer_is_biased_and_what_was_read_before_it_serves_the_next_one(model_folder):
    model, prompt = load(str(model_folder("llama"))), placed()

    def said(*given: float):
        moved = Biased(prompt.passages, given) if given else None
        deltas = list(model.generate(Generation(prompt.messages, Sampling(8), moved=moved)))
        return "".join(delta.text for delta in deltas), deltas[-1].usage["cached_prompt_tokens"]

    tokens = len(model.chat.prompt_ids(prompt.messages))
    biased, known = said(4.0, -4.0, 0.0)
    assert known == 0
    plain, known = said()
    assert (plain != biased, known) == (True, tokens - 1)
    assert said(4.0, -4.0, 0.0) == (biased, tokens - 1)
    fresh = load(str(model_folder("llama")))
    assert plain == "".join(delta.text for delta in fresh.generate(Generation(prompt.messages, Sampling(8))))


def test_states_kept_of_a_biased_request_are_those_of_an_unbiased_reading(model_folder):
    model, prompt = load(str(model_folder("llama"))), placed()
    tokens = model.chat.prompt_ids(prompt.messages)
    moved = Biased(prompt.passages, (4.0, -4.0, 0.0))
    assert list(model.generate(Generation(prompt.messages, Sampling(8), moved=moved)))
    begun = model.reader.begin("default", tokens, 8)
    assert len(begun.ids) == len(tokens) - 1
    expected = model._step(tokens, model._new_cache(200))
    torch.testing.assert_close(begun.read(tokens[-1:]), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("drafter", ["lookup", "model", "mixture"])
def test_drafts_are_verified_by_the_biased_model(model_folder, drafter):
    model, prompt = load(str(model_folder("llama"))), placed()
    moved = Biased(prompt.passages, (4.0, -4.0, 0.0))

    def said(speculation: Speculation, moved: Biased | None = moved) -> str:
        request = Generation(prompt.messages, Sampling(24), speculation, prompt.messages, moved=moved)
        return "".join(delta.text for delta in model.generate(request))

    drafted = said(Speculation("speculative", drafter, 4))
    assert drafted == said(PLAIN)
    assert drafted != said(PLAIN, None)


def test_biased_and_plain_answers_written_at_once_are_as_if_alone(model_folder):
    model, prompt = load(str(model_folder("llama"))), placed()
    wanted = [None, (4.0, -4.0, 0.0), (-4.0, 4.0, 0.0), (0.0, -2.0, 4.0)] * 2

    def said(given: tuple[float, ...] | None) -> str:
        moved = Biased(prompt.passages, given) if given else None
        request = Generation(prompt.messages, Sampling(24), moved=moved, reuse=False)
        return "".join(delta.text for delta in model.generate(request))

    alone = [said(given) for given in wanted]
    assert len(set(alone)) > 1
    passes = model.engine.passes
    with ThreadPoolExecutor(len(wanted)) as pool:
        assert list(pool.map(said, wanted)) == alone
    assert model.engine.passes - passes < 24 * len(wanted)  # some were shared


def test_the_likelihood_of_a_continuation_is_that_of_the_biased_model(model_folder):
    model, prompt = load(str(model_folder("llama"))), placed()
    moved = Biased(prompt.passages, (2.0, -1.0, -1.0))
    ids_ = model.chat.prompt_ids(prompt.messages)
    answer = model.chat.encode("in March")
    plan = moving(model, prompt.messages, moved)
    rows = model._step([*ids_, *answer[:-1]], model._new_cache(300), len(answer), plan).log_softmax(-1)
    expected = rows[range(len(answer)), answer].tolist()
    assert model.logprob(prompt.messages, "in March", moved) == pytest.approx(expected, abs=1e-4)
    assert model.logprob(prompt.messages, "in March") != pytest.approx(expected, abs=1e-3)


def test_biases_follow_the_scores_raise_all_and_have_bounds():
    scores = torch.tensor([3.0, 1.0, 2.0]).numpy()
    assert Bias(0.5, 0.0).of(scores) == (0.5, -0.5, 0.0)
    assert Bias(0.5, 0.25).of(scores) == (0.75, -0.25, 0.25)
    assert Bias(50.0, 0.0).of(scores) == (MOST_BIAS, -MOST_BIAS, 0.0)
    assert set(Bias(5.0, 0.5).of(torch.full((3,), 7.0).numpy())) == {0.5}
