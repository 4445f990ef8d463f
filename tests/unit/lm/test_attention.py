"""The attention every layer computes: the stock model's without a plan, the plan's with one."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import pytest
import torch
from tiny_networks import make_network

from pipeline.errors import InvalidRequestError, ModelError
from pipeline.lm import attention
from pipeline.lm.attention import Attending, Plan, following
from pipeline.lm.kv_cache import new_cache
from pipeline.lm.observe import SpanMass

FAMILIES = sorted(attention.FAMILIES)
LENGTH = 60
CHUNKS = (20, 25, 3, 1, 1, 10)  # longer and shorter than the sliding windows of 16


@pytest.fixture(scope="module")
def pair():
    """A function from a family to the stock network and the same one with our attention."""
    made = {}

    def networks(family):
        if family not in made:
            stock, ours = make_network(family), make_network(family)
            assert attention.install(ours)
            made[family] = (stock, ours)
        return made[family]

    return networks


def prompt(batch: int = 1) -> torch.Tensor:
    return torch.randint(3, 400, (batch, LENGTH), generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def in_chunks(network, ids, plan=None, chunks=CHUNKS, cache=None):
    """Logits (B, L, V) of a prompt that is read in pieces, as the decoding loop reads it."""
    cache, at, logits = cache or new_cache(network.config, LENGTH), 0, []
    for size in chunks:
        with following(plan, at):
            chunk = ids[:, at : at + size]
            logits.append(network(input_ids=chunk, past_key_values=cache, use_cache=True).logits)
        at += size
    assert at == LENGTH
    return torch.cat(logits, 1)


@torch.inference_mode()
def stock_weights(family, ids):
    """The whole attention matrices of transformers' own eager attention: a list of (B, H, L, L)."""
    network = make_network(family)
    network.set_attn_implementation("eager")
    return network(input_ids=ids, output_attentions=True).attentions


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_without_a_plan_the_logits_are_the_stock_models(pair, family):
    stock, ours = pair(family)
    ids = prompt(2)
    expected = stock(input_ids=ids).logits
    assert stock.config._attn_implementation in ("sdpa", "eager")
    torch.testing.assert_close(ours(input_ids=ids).logits, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(in_chunks(ours, ids), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(in_chunks(ours, ids, Plan()), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(in_chunks(ours, ids, Plan(), (LENGTH,)), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral"])
@torch.inference_mode()
def test_left_padded_batches_equal_each_prompt_alone(pair, family):
    _, ours = pair(family)
    long, short = prompt(), prompt()[:, :37]
    padded = torch.cat([long, torch.nn.functional.pad(short, (LENGTH - 37, 0), value=2)])
    mask = torch.ones_like(padded)
    mask[1, : LENGTH - 37] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    together = ours(input_ids=padded, attention_mask=mask, position_ids=positions).logits
    torch.testing.assert_close(together[:1], ours(input_ids=long).logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(together[1:, -37:], ours(input_ids=short).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunks", [(LENGTH,), CHUNKS])
def test_observed_mass_is_that_of_the_whole_matrix(pair, family, chunks, monkeypatch):
    monkeypatch.setattr(attention, "_BLOCK_ELEMENTS", 4 * LENGTH * 3 * 2)  # three rows of two prompts at once
    _, ours = pair(family)
    ids, rows = prompt(2), range(41, 60)
    spans = [[(0, 7), (7, 30), (44, 50)], [(1, 3), (20, 21), (30, 60)]]
    seen = SpanMass(spans, rows)
    logits = in_chunks(ours, ids, Plan(observers=(seen,)), chunks)
    torch.testing.assert_close(logits, in_chunks(ours, ids), atol=1e-4, rtol=0)
    expected = torch.stack([
        torch.stack([
            torch.stack([weights[n, :, 41:60, start:end].sum(-1) for start, end in of_one], -1)
            for n, of_one in enumerate(spans)
        ])
        for weights in stock_weights(family, ids)
    ])  # fmt: skip
    assert seen.masses().shape == (3, 2, 4, 19, 3)
    torch.testing.assert_close(seen.masses(), expected, atol=1e-4, rtol=0)


def test_only_some_rows_of_the_matrix_ever_exist(pair, monkeypatch):
    """What is held is bounded, and what is kept grows with rows x spans, not with the prompt."""
    monkeypatch.setattr(attention, "_BLOCK_ELEMENTS", 4 * LENGTH * 2)
    shapes, softmax = [], torch.Tensor.softmax
    monkeypatch.setattr(
        torch.Tensor, "softmax", lambda t, *a, **k: shapes.append(t.shape) or softmax(t, *a, **k)
    )
    seen = SpanMass([[(0, 7), (7, 30)]], range(50, 60))
    in_chunks(pair("llama")[1], prompt(), Plan(observers=(seen,)))
    assert shapes
    assert max(shape[2] for shape in shapes) == 2
    assert seen.masses().numel() == 3 * 4 * 10 * 2


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_temperature_bias_and_scale_change_logits_as_written(pair, family):
    """Against the same change made to the softmax by hand."""
    _, ours = pair(family)
    ids, bias = prompt(), torch.zeros(1, 1, 1, LENGTH)
    bias[..., 5:9] = 1.5
    seen = SpanMass([[(n, n + 1) for n in range(LENGTH)]], range(LENGTH))
    plain = SpanMass([[(n, n + 1) for n in range(LENGTH)]], range(LENGTH))

    def biased(call: Attending) -> Attending:
        return replace(call, bias=bias[..., : call.key.shape[2]]) if call.layer == 0 else call

    in_chunks(ours, ids, Plan(observers=(seen,), temperature=0.5, adapt=biased), (LENGTH,))
    in_chunks(ours, ids, Plan(observers=(plain,)), (LENGTH,))
    # Layer 0 sees the same states in both passes; its weights give its logits up to a constant a row.
    logits = plain.masses()[0, 0].log() + bias[0]
    expected = (logits / 0.5).softmax(-1)
    torch.testing.assert_close(seen.masses()[0, 0], expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_computed_follows_what_is_seen(pair, family):
    """The fast and the explicit form of attention agree under every change, in chunks too."""
    _, ours = pair(family)
    ids = prompt(2)
    heads = torch.linspace(-1, 1, 4)[None, :, None, None]

    def adapt(call: Attending) -> Attending:
        keys = torch.arange(call.key.shape[2])[None, None, None] + call.key_start
        return replace(call, bias=heads * (keys % 5 == 0), scaling=call.scaling * 1.3)

    fast = in_chunks(ours, ids, Plan(adapt=adapt, temperature=0.7))
    slow = in_chunks(
        ours, ids, Plan(adapt=adapt, temperature=0.7, attend=lambda call: attention.attend_lse(call)[0])
    )
    torch.testing.assert_close(fast, slow, atol=1e-3, rtol=0)
    assert (fast - in_chunks(ours, ids)).abs().max() > 0.1


def test_attention_over_two_sets_of_keys_is_attention_over_both(pair):
    def split(call: Attending) -> torch.Tensor:
        at = call.key.shape[2] // 3
        mask = call.mask
        if mask is None:
            shape = (call.query.shape[2], call.key.shape[2])
            mask = torch.ones(shape, dtype=torch.bool).tril(shape[1] - shape[0])[None, None]
        if not at:
            return attention.attend(call)
        parts = [
            attention.attend_lse(
                replace(call, key=call.key[:, :, piece], value=call.value[:, :, piece], mask=mask[..., piece])
            )
            for piece in (slice(None, at), slice(at, None))
        ]
        shares = torch.stack([lse for _, lse in parts]).softmax(0)[..., None]
        return (torch.stack([out for out, _ in parts]) * shares).sum(0)

    _, ours = pair("qwen2")
    torch.testing.assert_close(
        in_chunks(ours, prompt(), Plan(attend=split)), in_chunks(ours, prompt()), atol=1e-4, rtol=0
    )


def test_positions_reach_the_model(tiny):
    """Rotary attention depends on differences only, and on nothing else."""
    model = tiny("llama")
    ids = prompt()[0].tolist()

    def last(plan):
        cache = model._new_cache(LENGTH)
        model._step(ids[:30], cache, plan=plan)
        return model._step(ids[30:], cache, plan=plan)

    plain = last(None)
    torch.testing.assert_close(last(Plan(positions=lambda at: at + 100)), plain, atol=1e-3, rtol=0)
    assert (last(Plan(positions=lambda at: at // 4)) - plain).abs().max() > 0.1


def test_a_plan_ends_with_its_pass_also_after_an_error_and_belongs_to_one_thread(pair):
    _, ours = pair("llama")
    plain = in_chunks(ours, prompt())

    def fails(call: Attending) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_chunks(ours, prompt(), Plan(attend=fails))
    torch.testing.assert_close(in_chunks(ours, prompt()), plain)
    seen = []
    with following(Plan(attend=fails)):
        thread = threading.Thread(target=lambda: seen.append(in_chunks(ours, prompt())))
        thread.start()
        thread.join()
    torch.testing.assert_close(seen[0], plain)


def test_a_family_without_support_is_named_with_those_that_have_it():
    network = make_network("gpt_neox")
    assert not attention.install(network)
    with pytest.raises(ModelError, match=r"gpt_neox.*gemma2.*llama.*qwen3"):
        attention.require(network, "Attention sorting")


def test_a_passage_of_no_tokens_is_refused():
    with pytest.raises(InvalidRequestError, match=r"\[5, 5\)"):
        SpanMass([[(0, 5), (5, 5)]], range(6, 9))
    with pytest.raises(InvalidRequestError, match="0 tokens"):
        SpanMass([[(0, 5)]], range(0))


def test_logits_of_rows_that_see_nothing_are_finite():
    """A padded token attends to nothing; its weights must not be NaN."""
    states = torch.ones(1, 1, 2, 4)
    call = Attending(0, states, states, states, torch.zeros(1, 1, 2, 2, dtype=torch.bool), 0.5)
    [(_, weights)] = attention.weight_blocks(call, torch.arange(2))
    assert math.isclose(float(weights.sum()), 2.0)
