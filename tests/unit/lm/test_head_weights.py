"""Weights of heads' votes, against the same likelihood by automatic differentiation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.lm import head_weights
from pipeline.lm.head_choice import Observation, Recipe, _folds, choose, recall
from pipeline.lm.signals import Looks, Signal, standardised

HEADS, PASSAGES = 6, 5


def cast(count: int = 40, seed: int = 0):
    rng = np.random.default_rng(seed)
    golds = rng.integers(0, PASSAGES, count)
    votes = rng.normal(size=(count, HEADS, PASSAGES))
    votes[np.arange(count), 2, golds] += 2
    return standardised(votes.astype(np.float32)), golds.tolist()


@pytest.mark.parametrize("ridge", [0.001, 0.1, 10])
def test_no_weights_are_likelier(ridge):
    votes, golds = cast()
    weights = torch.tensor(head_weights.fit(votes, golds, ridge), requires_grad=True)
    scores = torch.einsum("nfp,f->np", torch.tensor(votes, dtype=torch.float64), weights)
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor(golds)) + ridge * (weights**2).sum()
    loss.backward()
    assert float(weights.grad.abs().max()) < 1e-4  # the loss is convex: flat is lowest
    assert int(weights.detach().argmax()) == 2


def test_a_stronger_ridge_makes_smaller_weights():
    votes, golds = cast()
    sizes = [np.linalg.norm(head_weights.fit(votes, golds, ridge)) for ridge in (0.01, 0.1, 1, 100)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.1


def test_votes_without_anything_in_them_weigh_nothing():
    votes, golds = np.zeros((12, HEADS, PASSAGES), np.float32), [0] * 12
    np.testing.assert_allclose(head_weights.fit(votes, golds, 0.1), 0)


def test_one_head_can_count_against_another():
    """One head sees the answer through a bias by place, another the bias alone: their difference tells."""
    rng, seen = np.random.default_rng(5), []
    for n in range(60):
        gold = n % PASSAGES
        bias = rng.normal(size=PASSAGES) * 2
        logs = np.stack([bias + 3 * (np.arange(PASSAGES) == gold), bias])[None, :, None]
        logs = logs + 0.05 * rng.normal(size=logs.shape)
        looks = Looks(np.exp(logs - 6).astype(np.float32), 1)
        seen.append(Observation(looks, looks, gold, rng.random(PASSAGES).astype(np.float32), n))
    golds = [one.gold for one in seen]
    alike = Signal("all", heads=((0, 0), (0, 1)))
    assert recall([alike.scores(one.asked) for one in seen], golds) < 0.8
    choice = choose(seen, content_free=False)
    assert choice.recall > 0.9
    weights = dict(zip(choice.signal.heads, choice.signal.weights, strict=True))
    assert weights[0, 0] > 0 > weights[0, 1]


@pytest.mark.parametrize("passages", [3, 4, 8, 10, 12])
def test_held_out_questions_have_golds_at_places_that_the_others_have(passages):
    """The place of the gold passage goes round with the questions, and must not go round with the parts."""
    groups = [n // 2 for n in range(96)]
    golds, folds = np.array([group * 7 % passages for group in groups]), _folds(groups)
    for fold in set(folds.tolist()):
        assert set(golds[folds != fold].tolist()) == set(range(passages))
    assert sorted(np.bincount(folds)) == [24] * 4
    assert all(len(set(folds[[2 * n, 2 * n + 1]].tolist())) == 1 for n in range(48)), "groups stay together"


def test_more_heads_than_there_are_are_all_of_them():
    seen = []
    for n in range(12):
        looks = Looks(np.random.default_rng(n).random((1, 2, 1, 4)).astype(np.float32), 1)
        seen.append(Observation(looks, looks, n % 4, np.ones(4, np.float32), n))
    choice = choose(seen, content_free=True, recipes=[Recipe(300, 0.1)])
    assert len(choice.signal.heads) == 2
    assert len(choice.signal.weights) == 4
