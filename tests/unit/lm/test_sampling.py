"""Choosing tokens, against the processors of transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from pipeline.lm.sampling import Chooser, nucleus, penalised
from pipeline.seams import Sampling

NO_PROMPT = torch.zeros((1, 0), dtype=torch.long)


def random_scores(seed: int, size: int = 50) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 3, size).astype(np.float32))


@given(seed=st.integers(0, 10_000), top_k=st.integers(1, 60), top_p=st.floats(0.01, 0.999))
def test_nucleus_keeps_what_transformers_keeps(seed, top_k, top_p):
    scores = random_scores(seed)
    expected = TopPLogitsWarper(top_p)(NO_PROMPT, TopKLogitsWarper(top_k)(NO_PROMPT, scores[None]))[0]
    assert torch.equal(nucleus(scores, top_k, top_p), expected)


def test_no_limits_change_nothing():
    assert torch.equal(nucleus(random_scores(0), 0, 1.0), random_scores(0))


def test_the_best_token_always_stays():
    kept = nucleus(torch.tensor([1.0, 5.0, 2.0]), 0, 1e-9)
    assert kept.tolist() == [-torch.inf, 5.0, -torch.inf]


@given(seed=st.integers(0, 10_000), chosen=st.sets(st.integers(0, 49)), penalty=st.floats(0.5, 2))
def test_penalty_is_that_of_transformers(seed, chosen, penalty):
    scores = random_scores(seed)
    ids = torch.tensor([sorted(chosen)], dtype=torch.long)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, scores[None].clone())[0]
    torch.testing.assert_close(penalised(scores, chosen, penalty), expected)


def test_scores_given_are_not_changed():
    scores = random_scores(1)
    before = scores.clone()
    chooser = Chooser(Sampling(temperature=0.7, top_k=5, top_p=0.9, repetition_penalty=1.3, seed=1))
    for _ in range(3):
        chooser.choose(scores)
    assert torch.equal(scores, before)


def test_penalty_makes_a_greedy_chooser_move_on():
    scores = torch.tensor([2.0, 1.9, -1.0])
    chooser = Chooser(Sampling(repetition_penalty=1.5))
    assert [chooser.choose(scores) for _ in range(2)] == [0, 1]


def test_frequencies_are_the_probabilities():
    """20,000 draws from three tokens with probabilities .5, .3, .2; four standard errors are .014."""
    scores = torch.tensor([0.5, 0.3, 0.2]).log()
    chooser = Chooser(Sampling(temperature=1.0, seed=11))
    draws = torch.tensor([chooser.choose(scores) for _ in range(20_000)])
    shares = torch.bincount(draws, minlength=3) / len(draws)
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.015)
