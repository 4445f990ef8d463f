"""A model whose heads count positions on their own scales, in everything that a local model does."""

from __future__ import annotations

import pytest
import torch
from test_fixed_steps import ids

from pipeline.errors import ModelError
from pipeline.lm.attention import Plan
from pipeline.lm.context_options import ContextOptions, ContextsConfig
from pipeline.lm.contexts import Asked, Contexts
from pipeline.lm.graphs import is_fixed_step_possible
from pipeline.lm.head_turns import HeadTurns
from pipeline.lm.kv_cache import new_cache
from pipeline.lm.model import load
from pipeline.lm.observe import SpanMass
from pipeline.lm.sequence import Sequence
from pipeline.records import VersionKey
from pipeline.seams import Message, Sampling

ASKED = [Message("user", "When does the lease end? " * 4)]


@pytest.fixture(scope="module")
def scaled(model_folder, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return load(str(model_folder("llama")), cache=cache, positions="ms_poe:1.2:1.8")


def begun(model, tokens: list[int], **options) -> Sequence:
    made = Sequence(model.engine, new_cache(model.network.config, 128), **options)
    made.read(tokens)
    return made


def test_the_ratios_are_the_same_at_every_start_and_part_of_what_states_depend_on(scaled, model_folder, tiny):
    again = load(str(model_folder("llama")), positions="ms_poe:1.2:1.8")
    other = load(str(model_folder("llama")), positions="ms_poe:1:3")
    assert again.network.head_ratios == scaled.network.head_ratios != other.network.head_ratios
    assert again.network.position_method == scaled.network.position_method != other.network.position_method
    assert not hasattr(tiny("llama").network, "head_ratios")
    assert scaled.window_tokens == tiny("llama").window_tokens
    assert scaled.capabilities.attention


def test_cached_states_rolled_back_and_read_on_equal_a_fresh_reading(scaled):
    first, second = ids(40, 1), ids(20, 2)
    sequence = begun(scaled, [*first, *second])
    sequence.roll_back(40)
    expected = begun(scaled, first).read(ids(12, 3), 12)
    torch.testing.assert_close(sequence.read(ids(12, 3), 12), expected, atol=1e-4, rtol=1e-4)


def test_a_second_prompt_with_the_same_beginning_gets_the_same_answer(scaled, model_folder):
    fresh = load(str(model_folder("llama")), positions="ms_poe:1.2:1.8", prefix_bytes=0)
    for question in ("And the keys?", "And the rent?"):
        asked = [Message("user", f"{ASKED[0].content}{question}")]
        said, expected = (
            "".join(d.text for d in model.stream(asked, Sampling(12))) for model in (scaled, fresh)
        )
        assert said == expected


def test_requests_in_one_pass_get_what_each_gets_alone(scaled):
    from pipeline.lm.engine import Step, _packed_pass

    starts, news = [ids(30, 4), ids(17, 5)], [ids(5, 6), ids(1, 7)]
    alone = [begun(scaled, start).read(new, len(new)) for start, new in zip(starts, news, strict=True)]
    steps = [Step(begun(scaled, s), n, len(n)) for s, n in zip(starts, news, strict=True)]
    _packed_pass(scaled.network, steps)
    for step, expected in zip(steps, alone, strict=True):
        torch.testing.assert_close(step.logits, expected, atol=1e-4, rtol=1e-4)


def test_a_cached_passage_is_read_as_it_would_be_in_order(scaled, tmp_path):
    """Its keys were turned when it was cached; the question's are turned where they come to stand."""
    contexts = Contexts(scaled, ContextsConfig(), tmp_path / "kv", None)
    try:
        owner = VersionKey("acme", "contracts", "lease", 1)
        passage = contexts.passage(owner, "Lease", "The lease ends on the last day of March.", 1.0)
        asked = Asked(ASKED[0].content, [passage], ContextOptions(temperature=1.0, scale=1.0))
        both = [contexts.logprob(asked, "In March.", sequential=way) for way in (False, True)]
        assert both[0] == pytest.approx(both[1], abs=1e-4)
        assert "ms_poe" in contexts._reader.origin(contexts._reader.prefix(ids(5, 1)), "native").positions
    finally:
        contexts.close()


def test_attention_is_observed_as_it_is_computed(scaled):
    """Every token but the first gives what all spans together get, 1 in sum."""
    seen = SpanMass([[(0, 10), (10, 40)]], range(39, 40))
    begun(scaled, ids(40, 8), plan=Plan(observers=(seen,)))
    torch.testing.assert_close(seen.masses().sum(-1), torch.ones(3, 1, 4, 1), atol=1e-4, rtol=1e-4)


def test_passes_of_fixed_shape_are_refused_and_layers_without_positions_named(scaled):
    assert not is_fixed_step_possible(begun(scaled, ids(30, 1)), 1)
    with pytest.raises(ModelError, match="positions of tokens"):
        HeadTurns(torch.ones(1, 4))(torch.zeros(1, 1, 2, 8), torch.zeros(1, 1, 2, 8), None)
