"""Scores of passages from attention masses, against the papers' sums written out."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import ConfigurationError
from pipeline.lm.head_choice import Observation, choose, fusion_weight, ranks, recall
from pipeline.lm.signals import Looks, Signal, fused, less_dummies, standardised

LAYERS, HEADS, PASSAGES = 4, 3, 5


def looks(seed: int = 0, tokens: int = 6, question: int = 4) -> Looks:
    masses = np.random.default_rng(seed).random((LAYERS, HEADS, tokens, PASSAGES)).astype(np.float32)
    return Looks(masses, question)


def test_attention_sorting_sums_the_last_tokens_attention():
    one = looks()
    expected = [
        sum(one.masses[layer, head, 5, s] for layer in range(LAYERS) for head in range(HEADS))
        for s in range(PASSAGES)
    ]
    np.testing.assert_allclose(Signal().scores(one), expected, rtol=1e-5)


def test_in_context_reranking_takes_off_the_content_free_question():
    asked, free = looks(0), looks(1, tokens=3, question=2)
    expected = asked.masses[:, :, :4].mean(2).sum((0, 1)) - free.masses[:, :, :2].mean(2).sum((0, 1))
    np.testing.assert_allclose(Signal("question", content_free=True).scores(asked, free), expected, rtol=1e-4)
    with pytest.raises(ConfigurationError, match="content-free"):
        Signal(content_free=True).scores(asked)


def test_layers_and_heads_limit_who_is_asked():
    one = looks()
    np.testing.assert_allclose(
        Signal("all", layers=(1, 3)).scores(one), one.masses[1:3].mean(2).sum((0, 1)), rtol=1e-5
    )
    chosen = ((0, 2), (3, 1))
    first, second = one.masses[0, 2, -1], one.masses[3, 1, -1]
    expected = (standardised(first) + standardised(second)) / 2
    np.testing.assert_allclose(Signal("last", heads=chosen).scores(one), expected, rtol=1e-5)
    weighed = Signal("last", heads=chosen, weights=(2, -0.5)).scores(one)
    expected = 2 * standardised(np.log(first)) - 0.5 * standardised(np.log(second))
    np.testing.assert_allclose(weighed, expected, rtol=1e-4, atol=1e-6)
    free = looks(1)
    weighed = Signal("last", content_free=True, heads=chosen[:1], weights=(2, 3)).scores(one, free)
    expected = 2 * standardised(np.log(first)) + 3 * standardised(first - free.masses[0, 2, -1])
    np.testing.assert_allclose(weighed, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("signal", "named"),
    [
        (lambda: Signal("first").scores(looks()), "'first'"),
        (lambda: Signal(heads=()), "No heads"),
        (lambda: Signal(heads=((0, 0),), weights=(float("nan"),)), "not numbers|Not all weights"),
        (lambda: Signal(heads=((0, 0),), weights=(1, 2)), "2 weights are given for 1 votes"),
        (lambda: Signal(weights=(1,)), "1 weights are given for 0 votes"),
        (lambda: Signal(heads=((4, 0),)).scores(looks()), r"\(4, 0\)"),
        (lambda: Signal(layers=(2, 9)).scores(looks()), r"\[2, 9\)"),
    ],
)
def test_what_the_model_does_not_have_is_named(signal, named):
    with pytest.raises(ConfigurationError, match=named):
        signal()


def test_found_in_the_middle_takes_off_the_dummy_in_the_same_place():
    """A passage is preferred to another only by what it gets beyond its place."""
    bias = np.array([3, 1, 1, 1, 4], np.float32)  # a U over the places, for any document
    relevance = np.array([0, 0, 2, 0, 0], np.float32)

    def seen(values) -> Looks:
        return Looks(np.tile(values.astype(np.float32), (LAYERS, HEADS, 1, 1)), 1)

    dummies = [seen(bias * 10)] * PASSAGES
    scores = less_dummies(seen((bias + relevance) * 20), dummies, [20] * PASSAGES, 10)
    np.testing.assert_allclose(scores, relevance * LAYERS * HEADS, atol=1e-4)
    assert Signal().scores(seen(bias + relevance)).argmax() == 4


def test_fusion_goes_from_the_retriever_to_the_attention():
    retrieved, attended = np.array([1.0, 2, 3], np.float32), np.array([30.0, 20, 10], np.float32)
    np.testing.assert_allclose(fused(retrieved, attended, 0), standardised(retrieved))
    np.testing.assert_allclose(fused(retrieved, attended, 1), standardised(attended))
    np.testing.assert_allclose(fused(retrieved, attended, 0.5), 0, atol=1e-6)
    np.testing.assert_allclose(standardised(np.ones(3, np.float32)), 0)


def test_equal_scores_do_not_count_as_found():
    same = [np.zeros(4, np.float32), np.array([1, 0, 0, 0], np.float32)]
    assert ranks(same, [0, 0]).tolist() == [4, 1]
    assert recall(same, [0, 0]) == 0.5


def observations(count: int = 40, *, head=(2, 1)) -> list[Observation]:
    """Masses with a strong bias by place and noise, and one head whose question tokens find the gold."""
    noise = np.full((LAYERS, HEADS, 1, 1), 6.0)
    noise[head] = 0.3
    rng, made = np.random.default_rng(3), []
    for n in range(count):
        gold = n % PASSAGES
        bias = np.linspace(0, 5, PASSAGES) * rng.random((LAYERS, HEADS, 1, 1))
        asked, free = (bias + noise * rng.random((LAYERS, HEADS, tokens, PASSAGES)) for tokens in (6, 4))
        asked[(*head, slice(0, 4), gold)] += 1
        retrieved = rng.random(PASSAGES)
        retrieved[gold] += 0.4
        made.append(
            Observation(
                Looks(asked.astype(np.float32), 4), Looks(free.astype(np.float32), 2), gold,
                retrieved.astype(np.float32), n,
            )
        )  # fmt: skip
    return made


def test_the_head_that_looks_is_found_and_fused():
    seen = observations()
    golds = [one.gold for one in seen]
    assert recall([Signal().scores(one.asked) for one in seen], golds) < 0.5
    choice = choose(seen, content_free=True)
    assert choice.signal.tokens in ("question", "all")
    assert choice.signal.heads is not None
    assert choice.signal.heads[0] == (2, 1)
    assert choice.recall > 0.95
    alone = recall([one.retrieved for one in seen], golds)
    both = [fused(o.retrieved, s, choice.weight) for o, s in zip(seen, choice.scores, strict=True)]
    assert alone < recall(both, golds)


def test_scores_that_judge_were_not_chosen_on():
    """Where no head knows anything, the held-out recall is chance, although some head always fits best."""
    rng = np.random.default_rng(0)
    noise = [
        Observation(looks(2 * n), looks(2 * n + 1), n % PASSAGES, rng.random(PASSAGES).astype(np.float32), n)
        for n in range(60)
    ]
    assert choose(noise, content_free=False).recall < 0.45


def test_a_useless_signal_weighs_nothing_and_never_lowers_the_retriever():
    golds = [n % PASSAGES for n in range(50)]
    retrieved = [np.eye(PASSAGES, dtype=np.float32)[gold] for gold in golds]
    against = [-10 * each for each in retrieved]
    weight = fusion_weight(retrieved, against, golds)
    assert weight < 0.5
    assert recall([fused(r, a, weight) for r, a in zip(retrieved, against, strict=True)], golds) == 1
    assert fusion_weight(against, retrieved, golds) > 0.5
