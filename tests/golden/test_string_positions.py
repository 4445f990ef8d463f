"""STRING: far distances are counted again from a near one (An et al. 2024)."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import ConfigurationError
from pipeline.positions import Rope, String, choose
from pipeline.positions.network import extend_decoder
from pipeline.positions.self_extend import attention

TRAINED = 64


def pairwise(q, k, v, rope, *, neighbours, local):
    """By definition: each pair of tokens has its own distance."""
    frequencies, n = torch.from_numpy(rope.frequencies()), q.shape[0]
    half = len(frequencies)
    scores = torch.full((n, n), float("-inf"), dtype=torch.float64)
    for i in range(n):
        for j in range(i + 1):
            distance = i - j if i - j < neighbours else i - j - neighbours + local
            angle = distance * frequencies
            a, b, c, d = q[i, :half], q[i, half:], k[j, :half], k[j, half:]
            pair = (a * c + b * d) * angle.cos() + (a * d - b * c) * angle.sin()
            scores[i, j] = pair.sum() / q.shape[1] ** 0.5
    return scores.softmax(-1) @ v


def test_it_is_its_definition_pair_by_pair():
    rope, n = Rope(8, 100.0, 32), 60
    q, k, v = (t.double() for t in torch.randn(3, n, 8, generator=torch.Generator().manual_seed(0)))
    mask = torch.full((n, n), float("-inf")).triu(1)[None, None]
    ours, _ = attention(String(1, 20, 5), rope)(None, q[None, None], k[None, None], v[None, None], mask)
    expected = pairwise(q, k, v, rope, neighbours=20, local=5)
    torch.testing.assert_close(ours[0, :, 0].double(), expected, atol=1e-5, rtol=1e-5)


def decoder():
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "llama", vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, intermediate_size=48, max_position_embeddings=TRAINED,
        initializer_range=0.4, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(5)
    return AutoModelForCausalLM.from_config(config).eval()


@torch.no_grad()
def test_a_decoder_reads_beyond_its_window_in_steps_as_at_once_and_near_tokens_as_before():
    stock, model = decoder(), decoder()
    choice = extend_decoder(model, "string:40:8")
    assert choice.window_tokens == model.config.max_position_embeddings == TRAINED + 40 - 8
    ids = torch.randint(1, 99, (1, 96), generator=torch.Generator().manual_seed(1))
    whole = model(input_ids=ids, use_cache=False).logits
    cache, parts = None, []
    for start in range(0, 96, 25):
        out = model(input_ids=ids[:, start : start + 25], past_key_values=cache, use_cache=True)
        cache, parts = out.past_key_values, [*parts, out.logits]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=2e-5, rtol=1e-4)
    plain = stock(input_ids=ids[:, :TRAINED]).logits
    torch.testing.assert_close(whole[:, :40], plain[:, :40], atol=2e-5, rtol=1e-4)
    assert (whole[:, 41:TRAINED] - plain[:, 41:]).abs().max() > 1e-2


def test_specs():
    assert choose("string", "rotary", 8192).method == String(1, 2730, 128)
    assert str(choose("string:100:8", "rotary", 512).method) == "string:100:8"
    assert choose("string:100:8", "rotary", 512).window_tokens == 604
    for spec in ("string:512:8", "string:8:8", "string:0", "string:a", "string:9:8:7"):
        with pytest.raises(ConfigurationError):
            choose(spec, "rotary", 512)
