"""Adaptive parallel encoding: exact statements about it, for every family, against full forward passes."""

from __future__ import annotations

import itertools

import pytest
import torch

from pipeline.lm import attention, context_reader, parallel, reading
from pipeline.lm.attention import Attending
from pipeline.lm.attention_bias import biasing
from pipeline.lm.context_reader import PassageReader
from pipeline.lm.kv_format import KvStates
from pipeline.lm.parallel import Geometry, ParallelAttention, joined, partial

FAMILIES = sorted(attention.FAMILIES)
HEAD = list(range(10, 23))
PASSAGES = [list(range(30, 55)), list(range(60, 67)), list(range(70, 101))]
TAIL = list(range(110, 125))


def read(reader, passages, *, temperature=1.0, scale=1.0, observe=False, chunks=(15,)):
    prefix = reader.prefix(HEAD)
    states = [reader.encode(prefix, ids) for ids in passages]
    behind = reader.resume(
        prefix, states, room_tokens=40, temperature=temperature, scale=scale, observe=observe
    )
    logits, at = [], 0
    for size in chunks:
        logits.append(behind.read(TAIL[at : at + size], size))
        at += size
    assert at == len(TAIL)
    return torch.cat(logits), behind


def sequential(model, passages):
    """Logits of the tail in one plain pass over everything, by the stock attention of transformers."""
    ids = [*HEAD, *itertools.chain(*passages), *TAIL]
    network = model._network
    ours = network.config._attn_implementation
    network.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            return network(input_ids=torch.tensor([ids])).logits[0, -len(TAIL) :]
    finally:
        network.set_attn_implementation(ours)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("passage", [1, 2], ids=["shorter than the window", "longer than the window"])
def test_one_passage_at_temperature_and_scale_one_is_sequential_reading(tiny, family, passage):
    model = tiny(family)
    logits, _ = read(PassageReader(model), [PASSAGES[passage]])
    torch.testing.assert_close(logits, sequential(model, [PASSAGES[passage]]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_passage_is_plain_reading(tiny, family):
    model = tiny(family)
    logits, _ = read(PassageReader(model), [])
    torch.testing.assert_close(logits, sequential(model, []), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("passages", [[], PASSAGES])
def test_once_passages_are_let_go_nothing_is_read_behind_them(tiny, passages):
    _, behind = read(PassageReader(tiny("llama")), passages)
    behind.attention.let_go()
    with pytest.raises(RuntimeError, match="let go"):
        behind.read([5])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_order_of_passages_does_not_matter(tiny, family):
    reader = PassageReader(tiny(family))
    first, _ = read(reader, PASSAGES, temperature=0.6, scale=0.9)
    for order in itertools.permutations(PASSAGES):
        logits, _ = read(reader, order, temperature=0.6, scale=0.9)
        torch.testing.assert_close(logits, first, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_in_chunks_equals_reading_at_once(tiny, family, monkeypatch):
    reader = PassageReader(tiny(family))
    whole, _ = read(reader, PASSAGES, temperature=0.7)
    monkeypatch.setattr(reading, "PREFILL_TOKENS", 5)  # passages in chunks too
    monkeypatch.setattr(attention, "_BLOCK_ELEMENTS", 64)
    for chunks in ((1, 9, 5), (14, 1), (5, 5, 5)):
        logits, _ = read(reader, PASSAGES, temperature=0.7, chunks=chunks)
        torch.testing.assert_close(logits, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_passages_joined_equal_passages_apart(tiny, family):
    reader = PassageReader(tiny(family))
    prefix = reader.prefix(HEAD)
    states = [reader.encode(prefix, ids) for ids in PASSAGES]
    windows = context_reader._windows(tiny(family)._network.config)
    shape = tiny(family)._network.config
    geometry = Geometry(len(HEAD), len(HEAD) + 31, windows)
    if any(windows):  # joined passages are masked by their positions only without sliding windows
        geometry = Geometry(len(HEAD), len(HEAD) + 31, (None,) * len(windows))
    generator = torch.Generator().manual_seed(1)
    heads, width = shape.num_attention_heads, states[0].keys.shape[-1]
    query = torch.randn(1, heads, 4, width, generator=generator)
    own = torch.randn(2, 1, states[0].keys.shape[1], 17, width, generator=generator)
    call = Attending(1, query, own[0], own[1], None, width**-0.5)
    apart = ParallelAttention(states, geometry, temperature=0.5, scale=0.8)(call)
    together = ParallelAttention([joined(states)], geometry, temperature=0.5, scale=0.8)(call)
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)


def by_the_equation(call, passages, temperature, scale):
    """APE written down plainly: one softmax over both groups, S on the logarithm of the passages'."""
    groups = call.query.shape[1] // call.key.shape[1]
    key, value = (x.repeat_interleave(groups, 1) for x in (call.key, call.value))
    contexts = [(p.keys[call.layer][None], p.values[call.layer][None]) for p in passages]
    there = torch.cat([k for k, _ in contexts], 2).repeat_interleave(groups, 1)
    said = torch.cat([v for _, v in contexts], 2).repeat_interleave(groups, 1)
    rows, keys = call.query.shape[2], key.shape[2]
    own = (call.query @ key.transpose(-1, -2)) * call.scaling
    own = own.masked_fill(~torch.ones(rows, keys, dtype=torch.bool).tril(keys - rows), -torch.inf)
    context = (call.query @ there.transpose(-1, -2)) * call.scaling / temperature
    own_lse, context_lse = own.logsumexp(-1, keepdim=True), scale * context.logsumexp(-1, keepdim=True)
    total = torch.logaddexp(own_lse, context_lse)
    return (own_lse - total).exp() * (own.softmax(-1) @ value) + (context_lse - total).exp() * (
        context.softmax(-1) @ said
    )


@pytest.mark.parametrize(("heads", "shared"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize(
    ("temperature", "scale"), [(1.0, 1.0), (0.6, 1.0), (0.9, 0.9), (0.2, 0.8), (1.3, 1.2)]
)
@pytest.mark.parametrize("rows", [1, 5])
def test_the_merge_is_the_published_one(heads, shared, temperature, scale, rows):
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    passages = [KvStates(draw(2, shared, tokens, 8), draw(2, shared, tokens, 8)) for tokens in (5, 9, 1)]
    call = Attending(
        1, draw(1, heads, rows, 8), draw(1, shared, 12, 8), draw(1, shared, 12, 8), None, 8**-0.5
    )
    attend = ParallelAttention(passages, Geometry(4, 13, (None, None)), temperature=temperature, scale=scale)
    expected = by_the_equation(call, passages, temperature, scale)
    torch.testing.assert_close(attend(call), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_biased_passage_is_sequential_reading_with_the_same_bias(tiny, family):
    """From the first token behind the passage on, in the second half of the layers."""
    model, passage = tiny(family), PASSAGES[1]
    reader = PassageReader(model)
    prefix = reader.prefix(HEAD)
    states = [reader.encode(prefix, passage)]
    behind = reader.resume(prefix, states, room_tokens=40, temperature=1.0, scale=1.0, biases=(1.5,))
    ids = [*HEAD, *passage, *TAIL]
    layers = model.network.config.num_hidden_layers
    begins = len(HEAD) + len(passage)
    plan = biasing([(len(HEAD), begins)], (1.5,), begins, (layers // 2, layers))
    expected = model._step(ids, model._new_cache(len(ids)), len(TAIL), plan)
    torch.testing.assert_close(behind.read(TAIL, len(TAIL)), expected, atol=1e-4, rtol=1e-4)
    plain = reader.resume(prefix, states, room_tokens=40, temperature=1.0, scale=1.0)
    assert (plain.read(TAIL, len(TAIL)) - expected).abs().max() > 1e-3


def test_each_passage_has_its_own_bias(tiny):
    reader = PassageReader(tiny("llama"))
    prefix = reader.prefix(HEAD)
    states = [reader.encode(prefix, ids) for ids in PASSAGES]

    def masses(*biases: float) -> list[float]:
        behind = reader.resume(
            prefix, states, room_tokens=40, temperature=0.9, scale=0.9, biases=biases, observe=True
        )
        behind.read(TAIL, len(TAIL))
        return behind.attention.masses

    plain = masses()
    for n in range(len(PASSAGES)):
        moved = masses(*(2.0 if m == n else -2.0 for m in range(len(PASSAGES))))
        assert moved[n] > plain[n]
        assert all(moved[m] < plain[m] for m in range(len(PASSAGES)) if m != n)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_fused_kernel_equals_the_plain_computation(dtype, atol):
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(1, 6, 7, 16, generator=generator).to(dtype)
    key, value = torch.randn(2, 1, 2, 50, 16, generator=generator).to(dtype)
    out, lse = partial(Attending(0, query, key, value, None, 0.3), key, value, None)
    everywhere = torch.ones(1, 1, 7, 50, dtype=torch.bool)
    plain = attention.attend_lse(Attending(0, query, key, value, everywhere, 0.3))
    torch.testing.assert_close(out, plain[0], atol=atol, rtol=atol)
    torch.testing.assert_close(lse, plain[1], atol=atol, rtol=atol)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_fused_kernel_with_a_mask_equals_the_plain_computation(dtype, atol):
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(1, 6, 7, 16, generator=generator).to(dtype)
    key, value = torch.randn(2, 1, 2, 50, 16, generator=generator).to(dtype)
    mask = torch.rand(1, 1, 7, 50, generator=generator) < 0.4
    added = parallel._Mask.of(mask[0, 0], 6 // 2, query).added
    out, lse = parallel._fused(Attending(0, query, key, value, None, 0.3), key, value, added)
    plain = attention.attend_lse(Attending(0, query, key, value, mask, 0.3))
    torch.testing.assert_close(out, plain[0], atol=atol, rtol=atol)
    torch.testing.assert_close(lse, plain[1], atol=atol, rtol=atol)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2"])
def test_observed_attention_changes_nothing_and_adds_up(tiny, family):
    reader = PassageReader(tiny(family))
    seen, behind = read(reader, PASSAGES, temperature=0.6, observe=True)
    unseen, _ = read(reader, PASSAGES, temperature=0.6)
    torch.testing.assert_close(seen, unseen, atol=1e-5, rtol=1e-5)
    masses = behind.attention.masses
    assert len(masses) == 3
    assert 0 < sum(masses) < 1
    _, only = read(reader, PASSAGES[:1], observe=True)
    assert 0 < only.attention.masses[0] < 1
    only.attention.reset_masses()
    assert only.attention.masses == [0.0]


def test_passages_together_may_exceed_the_window(model_folder, tmp_path):
    from pipeline.errors import PromptTooLongError
    from pipeline.lm.model import load

    model = load(str(model_folder("llama")), cache=tmp_path, window_tokens=90)
    reader = PassageReader(model)
    prefix = reader.prefix(HEAD)
    states = [reader.encode(prefix, ids) for ids in PASSAGES * 4]
    assert sum(s.tokens for s in states) > 90
    behind = reader.resume(prefix, states, room_tokens=40, temperature=1.0, scale=1.0)
    assert torch.isfinite(behind.read(TAIL)).all()
    with pytest.raises(PromptTooLongError, match=r"\b91\b.*\b90\b"):
        reader.resume(prefix, states, room_tokens=47, temperature=1.0, scale=1.0)
    with pytest.raises(PromptTooLongError, match=r"113.*90"):
        reader.encode(prefix, list(range(100)))
