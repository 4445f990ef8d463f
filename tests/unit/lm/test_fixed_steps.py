"""Passes of fixed shape, and attention of few rows in parts, against the ordinary ones."""

from __future__ import annotations

import pytest
import torch

from pipeline.lm.attention import Plan
from pipeline.lm.few_rows import attend_few, attend_grouped
from pipeline.lm.graphs import FixedStep, is_fixed_step_possible
from pipeline.lm.kv_cache import new_cache
from pipeline.lm.sequence import Sequence


def ids(length: int, seed: int) -> list[int]:
    return torch.randint(3, 400, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def sequence(model, length=30, capacity=64, **options) -> Sequence:
    made = Sequence(model.engine, new_cache(model.network.config, capacity), **options)
    made.read(ids(length, 1))
    return made


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_fixed_step_equals_an_ordinary_one(tiny, family):
    model = tiny(family)
    fixed, plain = sequence(model), sequence(model)
    one, four = FixedStep(fixed, 1, record=False), FixedStep(fixed, 4, record=False)
    for step, tokens in ((one, [5]), (four, [6, 7, 8, 9]), (one, [10]), (four, [11, 12, 13, 14])):
        logits = step(tokens)
        fixed.ids += tokens
        torch.testing.assert_close(logits, plain.read(tokens, len(tokens)), atol=1e-4, rtol=1e-4)
    fixed.roll_back(33)
    plain.roll_back(33)
    torch.testing.assert_close(one([20]), plain.read([20]), atol=1e-4, rtol=1e-4)
    fixed.ids += [20]
    torch.testing.assert_close(fixed.read([21, 22], 2), plain.read([21, 22], 2), atol=1e-4, rtol=1e-4)


def test_it_is_not_possible_where_it_would_be_wrong(tiny):
    assert is_fixed_step_possible(sequence(tiny("llama")), 34)
    assert not is_fixed_step_possible(sequence(tiny("llama")), 35)  # no room
    assert not is_fixed_step_possible(sequence(tiny("gemma2")), 1)  # sliding windows
    assert not is_fixed_step_possible(sequence(tiny("mistral")), 1)
    assert not is_fixed_step_possible(sequence(tiny("qwen3")), 1)
    assert not is_fixed_step_possible(sequence(tiny("llama"), plan=Plan(temperature=0.5)), 1)
    empty = Sequence(tiny().engine, new_cache(tiny().network.config, 10))
    assert not is_fixed_step_possible(empty, 1)


@pytest.mark.parametrize("tokens", [7, 512, 1300])
@pytest.mark.parametrize("floats", [False, True])
def test_attention_in_parts_is_attention(tokens, floats):
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(1, 6, 5, 8, generator=generator)
    key, value = torch.randn(2, 1, 2, tokens, 8, generator=generator)
    mask = torch.ones(5, tokens, dtype=torch.bool).tril(tokens - 5)[None, None]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True
    )
    given = torch.zeros(mask.shape).masked_fill(~mask, -1e30) if floats else mask
    torch.testing.assert_close(attend_few(query, key, value, given, 0.3), expected, atol=1e-5, rtol=1e-5)
    longer = torch.randn(2, 1, 2, tokens + 90, 8, generator=generator)
    longer[..., :tokens, :] = torch.stack([key, value])
    views = longer[0, :, :, :tokens], longer[1, :, :, :tokens]
    torch.testing.assert_close(attend_few(query, *views, given, 0.3), expected, atol=1e-5, rtol=1e-5)
    for each in (given, given.expand(1, 6, 5, tokens)):
        torch.testing.assert_close(attend_grouped(query, *views, each, 0.3), expected, atol=1e-5, rtol=1e-5)
    alone = torch.nn.functional.scaled_dot_product_attention(
        query[:, :, -1:], key, value, scale=0.3, enable_gqa=True
    )
    torch.testing.assert_close(
        attend_grouped(query[:, :, -1:], *views, None, 0.3), alone, atol=1e-5, rtol=1e-5
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_recorded_step_equals_an_ordinary_one(model_folder):
    from pipeline.lm.model import load

    model = load(str(model_folder("llama")), device="cuda", dtype="float32")
    fixed, plain = sequence(model), sequence(model)
    step = FixedStep(fixed, 3)
    for seed in range(5):
        tokens = ids(3, seed)
        torch.testing.assert_close(step(tokens), plain.read(tokens, 3), atol=1e-3, rtol=1e-3)
        fixed.ids += tokens
