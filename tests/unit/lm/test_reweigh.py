"""The intervention inside the model, against the equation written out on whole attention matrices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_networks import logits_in_chunks as logits
from tiny_networks import make_network
from tiny_networks import some_ids as ids

from pipeline.errors import InvalidRequestError, ModelError
from pipeline.lm.attention import Attending, Plan, attend, following, install, weight_blocks
from pipeline.lm.model import load
from pipeline.lm.moved_attention import moving
from pipeline.lm.request import Generation, Weighed
from pipeline.lm.reweigh import reweighing
from pipeline.lm.signals import shares
from pipeline.lm.spans import Place
from pipeline.prompt import place
from pipeline.seams import Message, Sampling
from pipeline.types import Hit

SPANS = ((2, 8), (10, 19), (19, 25))


@pytest.fixture(scope="module")
def network():
    network = make_network("llama")
    install(network)
    return network


def by_hand(wanted, start):
    """Equation 5 of the paper, a row at a time, on the full matrix."""

    def attended(call: Attending) -> torch.Tensor:
        out = attend(call)
        if call.layer == 0:
            return out
        [(_, weights)] = weight_blocks(call, torch.arange(call.query.shape[2]))
        for row in range(start, call.query.shape[2]):
            for head in range(weights.shape[1]):
                a = weights[0, head, row]
                total = sum(float(a[s:e].sum()) for s, e in SPANS)
                for share, (s, e) in zip(wanted, SPANS, strict=True):
                    a[s:e] *= share * total / a[s:e].sum()
                out[0, head, row] = a @ call.value[0, head // 2]
        return out

    return Plan(attend=attended)


@pytest.mark.parametrize("chunks", [(40,), (28, 7, 5)])
def test_it_is_the_published_equation(network, chunks):
    wanted = np.array([0.7, 0.2, 0.1], np.float32)
    ours = logits(network, ids(), reweighing([SPANS], [wanted], [30], (1, 3)), chunks)
    torch.testing.assert_close(
        ours, logits(network, ids(), by_hand(wanted.tolist(), 30), (40,)), atol=1e-4, rtol=0
    )
    plain = logits(network, ids(), None, (40,))
    torch.testing.assert_close(ours[:, :30], plain[:, :30], atol=1e-4, rtol=0)
    assert (ours[:, 30:] - plain[:, 30:]).abs().max() > 0.1


def test_prompts_of_a_batch_have_their_own_passages(network):
    wanted = [np.array(w, np.float32) for w in ([0.8, 0.1, 0.1], [0.1, 0.1, 0.8])]
    other = [(1, 5), (5, 9), (12, 20)]
    both = torch.cat([ids(), ids().flip(1)])
    with torch.inference_mode(), following(reweighing([SPANS, other], wanted, [30, 35], (0, 3))):
        together = network(input_ids=both).logits
    for n, (spans, start) in enumerate([(SPANS, 30), (other, 35)]):
        alone = logits(network, both[n : n + 1], reweighing([spans], [wanted[n]], [start], (0, 3)), (40,))
        torch.testing.assert_close(together[n : n + 1], alone, atol=1e-4, rtol=0)


def test_a_request_moves_attention_and_leaves_nothing_behind(model_folder):
    """What is read before the answer is as ever, so later requests may begin with nothing that was moved."""
    model = load(str(model_folder("llama")))
    texts = ["The lease ends in March.", "The tenant returns the keys.", "Rent is due monthly."]
    placed = place("When?", [Hit(str(n), "d", 1, "", t, 0, len(t), 1.0) for n, t in enumerate(texts)])

    def said(*given: float) -> str:
        moved = Weighed(placed.passages, given) if given else None
        request = Generation(placed.messages, Sampling(8), moved=moved)
        return "".join(delta.text for delta in model.generate(request))

    plain = said()
    assert {said(1.0, 0.0, 0.0), said(0.0, 0.0, 1.0)} != {plain}
    assert said() == plain
    plan = moving(model, placed.messages, Weighed(placed.passages, (1.0, 0.0, 0.0)))
    prompt = model.chat.prompt_ids(placed.messages)
    begun, free = (model._step(prompt, model._new_cache(200), len(prompt), p) for p in (plan, None))
    torch.testing.assert_close(begun[:-1], free[:-1], atol=1e-4, rtol=0)
    assert (begun[-1] - free[-1]).abs().max() > 1e-2


def test_it_is_refused_beside_context_aware_decoding_and_without_attention(model_folder):
    model = load(str(model_folder("llama")))
    messages = (Message("user", "The lease ends in March."),)
    asked = Generation(messages, moved=Weighed((Place(0, 0, 9),), (1.0,)), bare_messages=messages)
    with pytest.raises(InvalidRequestError, match="one of them"):
        model.generate(replace(asked, context_strength=1.0))
    with pytest.raises(InvalidRequestError, match="no tokens"):
        model.generate(replace(asked, moved=Weighed((Place(0, 3, 3),), (1.0,))))
    model.network.set_attn_implementation("sdpa")
    with pytest.raises(ModelError, match="Moving attention"):
        model.generate(asked)


def test_shares_sum_to_one_and_follow_the_scores():
    given = shares(np.array([3.0, 1.0, 2.0], np.float32), 0.5)
    assert given.sum() == pytest.approx(1)
    assert np.argsort(given).tolist() == [1, 2, 0]
    assert shares(np.array([3.0, 1.0, 2.0], np.float32), 5.0).max() < given.max()
    np.testing.assert_allclose(shares(np.ones(4, np.float32), 0.5), 0.25)
