"""Position methods inside networks of transformers: every rotary family, encoders and decoders."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.errors import ConfigurationError
from pipeline.positions import LongRope, Native, Rope, SelfExtend, choose
from pipeline.positions.declared import rope_of
from pipeline.positions.network import extend, extend_decoder, settle
from pipeline.positions.self_extend import attention

TRAINED, WINDOW = 64, 256
ENCODERS = ["nomic_bert", "gte", "jina_embeddings_v3", "eurobert", "modernbert"]
DECODERS = ["llama", "qwen3", "mistral"]


def network(model_type: str, rope: dict[str, Any] | None = None, **more: Any) -> Any:
    """A random network of 2 layers; ``rope`` goes into its own rope_parameters."""
    from transformers import AutoConfig, AutoModel

    options: dict[str, Any] = {
        "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": TRAINED, "initializer_range": 0.4,
        "pad_token_id": 0, "attn_implementation": "sdpa",
    }  # fmt: skip
    if model_type in DECODERS:
        options |= {"num_key_value_heads": 2, "head_dim": 8}
    if model_type == "modernbert":
        options |= {"local_attention": 16, "global_attn_every_n_layers": 2}
        if rope:
            rope = {"full_attention": rope, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    elif rope:
        rope = {"rope_theta": 1e4, **rope}
    if rope:
        options["rope_parameters"] = rope
    elif model_type != "modernbert":
        options["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4}
    torch.manual_seed(3)
    return AutoModel.from_config(AutoConfig.for_model(model_type, **{**options, **more})).eval()


def extended(model_type: str, spec: str, window: int | None = None) -> Any:
    model = network(model_type)
    choice = choose(spec, "rotary", TRAINED, window)
    extend(model, choice.method, rope_of(model.config.to_dict(), TRAINED), choice.window_tokens)
    return model


def states(model: Any, lengths: list[int], *, pad_to: int | None = None) -> list[torch.Tensor]:
    """Last states of sequences in one right-padded batch; padding has position 0."""
    width = pad_to or max(lengths)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    rows = [torch.randint(1, 99, (n,), generator=torch.Generator().manual_seed(n)) for n in lengths]
    ids, places = torch.zeros_like(mask, dtype=torch.long), torch.arange(width) * mask
    for row, found in enumerate(rows):
        ids[row, : len(found)] = found
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask.long(), position_ids=places).last_hidden_state
    return [out[row, :n] for row, n in enumerate(lengths)]


@pytest.mark.parametrize("model_type", [*ENCODERS, *DECODERS])
def test_fixed_methods_equal_the_models_own_rope_parameters(model_type: str) -> None:
    theta = 160_000.0 if model_type == "modernbert" else 1e4
    for spec, rope in (
        ("pi:4", {"rope_type": "linear", "factor": 4.0}),
        ("yarn:4", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": TRAINED}),
        ("ntk:4", {"rope_type": "default", "rope_theta": theta * 4 ** (8 / 6)}),
    ):
        (ours,) = states(extended(model_type, spec), [200])
        (theirs,) = states(network(model_type, {"rope_theta": theta, **rope}), [200])
        (native,) = states(network(model_type), [200])
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
        assert (ours - native).abs().max() > 1e-2


@pytest.mark.parametrize("model_type", ["nomic_bert", "modernbert", "qwen3"])
@pytest.mark.parametrize("spec", ["dynamic_ntk:4", "yarn:4", "self_extend:5:16"])
def test_a_document_has_the_same_vectors_in_any_company(model_type: str, spec: str) -> None:
    """Stock dynamic NTK fails this: it stretches for the longest sequence that it has seen."""
    model = extended(model_type, spec)
    first = {n: states(model, [n])[0] for n in (30, 100, 240)}
    for company in ([240, 30, 100], [100, 30], [30]):
        for n, found in zip(company, states(model, company, pad_to=250), strict=True):
            torch.testing.assert_close(found, first[n], atol=2e-5, rtol=1e-4)
    (again,) = states(model, [30])
    torch.testing.assert_close(again, first[30], atol=0, rtol=0)


def test_dynamic_ntk_equals_stock_on_a_fresh_model() -> None:
    (ours,) = states(extended("nomic_bert", "dynamic_ntk:4"), [200])
    (theirs,) = states(network("nomic_bert", {"rope_type": "dynamic", "factor": 4.0}), [200])
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("model_type", [*ENCODERS, *DECODERS])
def test_self_extend_in_groups_of_one_is_the_stock_model(model_type: str) -> None:
    for lengths in ([50], [60, 20]):
        ours = states(extended(model_type, "self_extend:1:16"), lengths)
        theirs = states(network(model_type), lengths)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_self_extend_in_layers_that_look_at_near_tokens_only() -> None:
    """Gemma 2 has one rotation for all layers, every second of which sees 16 tokens, and a soft cap."""
    more = {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 16, "attn_implementation": "eager"}
    ours, theirs = (network("gemma2", **more) for _ in range(2))
    extend(ours, SelfExtend(1, 16), rope_of(ours.config.to_dict(), TRAINED), TRAINED)
    for a, b in zip(states(ours, [60, 20]), states(theirs, [60, 20]), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def pairwise_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rope: Rope, causal: bool):
    """SelfExtend by definition: each pair of tokens has its own distance."""
    group, near = 3, 10
    frequencies = torch.from_numpy(rope.frequencies())
    n = q.shape[0]
    scores = torch.full((n, n), float("-inf"), dtype=torch.float64)
    for i in range(n):
        for j in range(i + 1 if causal else n):
            far = abs(i - j) >= near
            sign = 1 if i > j else -1
            distance = i // group - j // group + sign * (near - near // group) if far else i - j
            angle = distance * frequencies
            half = len(frequencies)
            a, b, c, d = q[i, :half], q[i, half:], k[j, :half], k[j, half:]
            pair = (a * c + b * d) * angle.cos() + (a * d - b * c) * angle.sin()
            scores[i, j] = pair.sum() / q.shape[1] ** 0.5
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("causal", [False, True])
def test_self_extend_is_its_definition_pair_by_pair(causal: bool) -> None:
    rope, n = Rope(8, 100.0, 32), 70
    q, k, v = (t.double() for t in torch.randn(3, n, 8, generator=torch.Generator().manual_seed(0)))
    mask = torch.full((n, n), float("-inf")).triu(1)[None, None] if causal else None
    function = attention(SelfExtend(3, 10), rope)
    ours, _ = function(None, q[None, None], k[None, None], v[None, None], mask)
    expected = pairwise_attention(q, k, v, rope, causal)
    torch.testing.assert_close(ours[0, :, 0].double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spec", ["yarn:4", "self_extend:5:16", "ntk:4"])
def test_a_decoder_reads_in_steps_with_a_cache_as_at_once(spec: str) -> None:
    from transformers import AutoModelForCausalLM

    base = network("llama")
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(base.config).eval()
    choice = extend_decoder(model, spec)
    assert choice.window_tokens == model.config.max_position_embeddings == WINDOW
    ids = torch.randint(1, 99, (1, 200), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits
        cache, parts = None, []
        for start in range(0, 200, 60):
            out = model(input_ids=ids[:, start : start + 60], past_key_values=cache, use_cache=True)
            cache, parts = out.past_key_values, [*parts, out.logits]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=2e-5, rtol=1e-4)


def test_long_rope_switches_by_the_document() -> None:
    rope = Rope(8, 1e4, TRAINED)
    lists = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 3.0, 4.0]}
    method = LongRope(4, tuple(lists["long_factor"]), tuple(lists["short_factor"]))
    model = network("nomic_bert")
    extend(model, method, rope, WINDOW)
    own = {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": TRAINED, **lists}
    stock = network("nomic_bert", own)
    for n in (40, 200):
        torch.testing.assert_close(states(model, [n])[0], states(stock, [n])[0], atol=2e-5, rtol=1e-4)
    settled = network("nomic_bert", own)
    settle(settled, WINDOW)
    alone = [states(settled, [n])[0] for n in (200, 40)]
    for together, by_itself, stock_alone in zip(
        states(settled, [200, 40]), alone, [states(stock, [n])[0] for n in (200, 40)], strict=True
    ):
        torch.testing.assert_close(together, by_itself, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(together, stock_alone, atol=2e-5, rtol=1e-4)
    with pytest.raises(ConfigurationError, match="has 3 factors; this model has 4"):
        extend(network("nomic_bert"), LongRope(2, (1, 1, 1), (1, 1, 1)), rope, WINDOW)


def test_models_that_cannot_be_stretched_are_refused() -> None:
    from transformers import AutoConfig, AutoModel

    with pytest.raises(ConfigurationError, match="'bert' says nothing of rotary"):
        rope_of({"model_type": "bert", "hidden_size": 32, "num_attention_heads": 4}, 512)
    with pytest.raises(ConfigurationError, match="already stretched \\('yarn'\\)"):
        rope_of({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, 512)
    bert = AutoModel.from_config(
        AutoConfig.for_model("bert", hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    )
    method = choose("pi:2", "rotary", 512).method
    with pytest.raises(ConfigurationError, match="BertModel has no rotary"):
        extend(bert, method, Rope(8, 1e4, 512), 1024)
    with pytest.raises(ConfigurationError, match="not plain RoPE of base 500"):
        extend(network("nomic_bert"), method, Rope(8, 500.0, 512), 1024)
    with pytest.raises(ConfigurationError, match="grows while a model writes"):
        extend_decoder(network("llama"), "dynamic_ntk:4")
    untouched = network("llama")
    assert extend_decoder(untouched, "native").method == Native()
    assert type(untouched.rotary_emb).__name__ == "LlamaRotaryEmbedding"
