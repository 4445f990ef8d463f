"""Ms-PoE: positions on a scale of each head's own (Zhang et al. 2024)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigurationError
from pipeline.lm import attention, head_turns
from pipeline.lm.head_turns import FIRST_LAYER, Awareness, HeadTurns
from pipeline.positions import MsPoe, Rope, choose
from pipeline.positions.network import extend, extend_decoder

IDS = torch.randint(3, 99, (1, 60), generator=torch.Generator().manual_seed(1))


def decoder(family: str = "llama", **more):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family, vocab_size=99, hidden_size=48, num_hidden_layers=5, num_attention_heads=6,
        num_key_value_heads=3, head_dim=8, intermediate_size=48, max_position_embeddings=128,
        initializer_range=0.4, pad_token_id=0, eos_token_id=2, bos_token_id=None, **more,
    )  # fmt: skip
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config).eval()
    assert attention.install(model)
    return model


def scaled(spec: str = "ms_poe:1.2:1.8", family: str = "llama", **more):
    model = decoder(family, **more)
    choice = extend_decoder(model, spec)
    head_turns.apply(model, choice.method, range(3, 90))
    return model


@torch.no_grad()
def read(model, ids=IDS, step: int = 1000, **options):
    cache, parts = None, []
    for start in range(0, ids.shape[1], step):
        out = model(input_ids=ids[:, start : start + step], past_key_values=cache, use_cache=True, **options)
        cache, parts = out.past_key_values, [*parts, out.logits]
    return torch.cat(parts, 1)


@pytest.mark.parametrize("family", sorted(attention.FAMILIES))
def test_ratios_of_one_are_the_stock_model_and_others_are_not(family):
    windows = {"sliding_window": 16} if family in ("mistral", "gemma2", "gemma3_text", "phi3") else {}
    if family == "gemma3_text":
        windows["layer_types"] = ["sliding_attention", "full_attention"] * 2 + ["full_attention"]
    stock, ours = read(decoder(family, **windows)), scaled(family=family, **windows)
    torch.testing.assert_close(read(scaled("ms_poe:1:1", family, **windows)), stock, atol=1e-5, rtol=1e-5)
    assert (read(ours) - stock).abs().max() > 1e-2
    own = {"gemma3_text": [3, 4]}  # the layers between see 16 tokens, by frequencies of their own
    assert [row[0] for row in ours.head_ratios] == own.get(family, [2, 3, 4])


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "phi"])
@pytest.mark.parametrize("step", [1, 7, 25])
def test_a_prompt_read_in_steps_equals_one_read_at_once(family, step):
    model = scaled(family=family, **({"sliding_window": 16} if family in ("mistral", "gemma2") else {}))
    torch.testing.assert_close(read(model, step=step), read(model), atol=1e-4, rtol=1e-4)


def test_it_is_its_definition_head_by_head():
    """Every head: stock rotation, then turned on, against angles of ``m / r`` computed directly."""
    rope, ratios = Rope(8, 100.0, 64), torch.tensor([1.2, 1.5, 1.8], dtype=torch.float64)
    frequencies = torch.from_numpy(rope.frequencies())
    make = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, h, 20, 10, generator=make, dtype=torch.float64) for h in (6, 3))
    at = torch.arange(20)[None] + 7

    def rotated(x, scale):
        """Pair by pair, as complex numbers; the last two of ten are not turned."""
        pairs = torch.complex(x[..., :4], x[..., 4:8])
        angles = (at[0, :, None] / scale[:, None, None]) * frequencies
        out = pairs * torch.polar(torch.ones_like(angles), angles)
        return torch.cat((out.real, out.imag, x[..., 8:]), -1)

    ones = torch.ones(6, dtype=torch.float64)
    query, cached = rotated(q, ones), torch.cat((torch.full((1, 3, 4, 10), 9.0), rotated(k, ones[:3])), 2)
    made = HeadTurns((1 / ratios - 1)[:, None] * frequencies)(query, cached, at)
    torch.testing.assert_close(made, rotated(q, ratios.repeat_interleave(2)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cached[:, :, 4:], rotated(k, ratios), atol=1e-5, rtol=1e-5)
    assert (cached[:, :, :4] == 9).all()  # earlier keys were turned when they came


@torch.no_grad()
def test_one_ratio_for_all_heads_is_interpolation_in_all_layers_but_the_first():
    """Against the stock model whose later layers are given interpolated positions."""
    ours, stock = scaled("ms_poe:1.5:1.5"), decoder()
    rope = stock.model.rotary_emb
    states = stock.model.embed_tokens(IDS)
    mask = torch.ones(60, 60, dtype=torch.bool).tril()[None, None]
    at = torch.arange(60)[None].float()
    for n, layer in enumerate(stock.model.layers):
        turns = rope(states, at if n < FIRST_LAYER else at / 1.5)
        states = layer(states, attention_mask=mask, position_embeddings=turns)
    expected = stock.lm_head(stock.model.norm(states))
    torch.testing.assert_close(read(ours), expected, atol=2e-5, rtol=1e-4)


def test_heads_are_ranked_by_how_many_tokens_stand_out():
    model, seen = decoder(), Awareness()
    with torch.no_grad(), attention.following(attention.Plan(observers=(seen,))):
        model(input_ids=IDS)
        weights = decoder_weights(model)
    for layer, of_heads in weights.items():
        expected = [(w[-16:] > 3 * w[-16:].mean(-1, keepdim=True)).double().mean().item() for w in of_heads]
        np.testing.assert_allclose(seen.shares[layer], expected)
    made = scaled()
    by_pair = seen_on_probe(model)
    for layer, *ratios in made.head_ratios:
        assert layer >= FIRST_LAYER
        assert sorted(ratios) == [1.2, 1.5, 1.8]
        assert ratios[int(np.argmax(by_pair[layer]))] == 1.2


def decoder_weights(model):
    """Full attention weights of the stock eager implementation."""
    eager = decoder()
    eager.set_attn_implementation("eager")
    out = eager(input_ids=IDS, output_attentions=True)
    return {n: weights[0] for n, weights in enumerate(out.attentions)}


def seen_on_probe(model):
    seen = Awareness()
    with torch.no_grad(), attention.following(attention.Plan(observers=(seen,))):
        model(input_ids=torch.tensor([list(range(3, 90))]))
    return {layer: shares.reshape(3, 2).mean(1) for layer, shares in seen.shares.items()}


def test_ratios_go_from_the_most_to_the_least_aware():
    np.testing.assert_allclose(MsPoe(1.2, 1.8).ratios(np.array([0.1, 0.4, 0.2])), [1.8, 1.2, 1.5])
    np.testing.assert_allclose(MsPoe(1.2, 1.8).ratios(np.array([0.1])), [1.2])
    np.testing.assert_allclose(MsPoe(1, 3).ratios(np.array([0.5, 0.5])), [1, 3])


def test_specs():
    assert choose("ms_poe", "rotary", 512).method == MsPoe(1.2, 1.8)
    assert str(choose("ms_poe:1:2.5", "rotary", 512).method) == "ms_poe:1:2.5"
    assert choose("ms_poe:1:2.5", "rotary", 512).window_tokens == 512
    for spec in ("ms_poe:1.8:1.2", "ms_poe:0.5:1", "ms_poe:1.2", "ms_poe:1:2:3", "ms_poe:a:b"):
        with pytest.raises(ConfigurationError):
            choose(spec, "rotary", 512)
    with pytest.raises(ConfigurationError, match="absolute ones"):
        choose("ms_poe", "absolute", 512)
    with pytest.raises(ConfigurationError, match="embedding model"):
        extend(decoder(), MsPoe(), Rope(8, 1e4, 128), 128)
