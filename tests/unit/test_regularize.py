"""Scores that rise towards those of what resembles them in other documents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.regularize import Regularization, regularized


def by_hand(
    scores: list[float], vectors: np.ndarray, documents: list[int], chosen: Regularization
) -> list[float]:
    """The formula, one passage at a time."""
    made = []
    for i, score in enumerate(scores):
        weights = {
            j: np.exp(float(vectors[i] @ vectors[j]) / chosen.temperature)
            for j in range(len(scores))
            if documents[j] != documents[i] and vectors[i] @ vectors[j] <= 0.9
        }
        around = sum(w * scores[j] for j, w in weights.items()) / sum(weights.values()) if weights else score
        made.append(score + chosen.share * max(0.0, around - score))
    return made


@example(seed=4, count=3, share=1.0)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 12), share=st.floats(0, 1))
def test_it_is_the_formula(seed: int, count: int, share: float) -> None:
    chance = np.random.default_rng(seed)
    vectors = chance.standard_normal((count, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores, documents = chance.random(count), chance.integers(0, 4, count).tolist()
    chosen = Regularization(share=share)
    found = regularized(scores, vectors, documents, chosen)
    assert found == pytest.approx(by_hand(scores.tolist(), vectors, documents, chosen), abs=1e-4)
    assert (found >= scores).all()
    assert found.max() <= scores.max() + 1e-12


def at(degrees: float) -> list[float]:
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


def test_what_resembles_the_best_overtakes_what_does_not() -> None:
    vectors = np.array([at(0), at(90), at(40)], np.float32)
    found = regularized(np.array([0.9, 0.51, 0.5]), vectors, ["a", "b", "c"], Regularization())
    assert found[0] == 0.9  # nothing around it is better
    assert found[2] > found[1] + 0.05


def test_neither_its_own_document_nor_its_copy_makes_a_passage_better() -> None:
    vectors = np.array([at(0), at(40)], np.float32)
    assert regularized(np.array([0.9, 0.5]), vectors, ["a", "a"], Regularization()).tolist() == [0.9, 0.5]
    copies = np.array([at(0), at(10)], np.float32)  # cosine .985
    assert regularized(np.array([0.9, 0.5]), copies, ["a", "b"], Regularization()).tolist() == [0.9, 0.5]
    assert regularized(np.array([0.5]), copies[:1], ["a"], Regularization()).tolist() == [0.5]


def test_equal_scores_stay_equal() -> None:
    """So that ties go on being told apart by document and place, on every machine."""
    chance = np.random.default_rng(7)
    for _ in range(50):
        vectors = chance.standard_normal((20, 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = np.full(20, chance.random())
        assert (regularized(scores, vectors, list(range(20)), Regularization(share=1.0)) == scores).all()


def test_a_low_temperature_leaves_the_nearest_alone() -> None:
    vectors = np.array([at(0), at(40), at(80)], np.float32)
    scores = np.array([0.1, 0.9, 0.5])
    found = regularized(scores, vectors, [0, 1, 2], Regularization(share=1.0, temperature=0.001))
    assert found == pytest.approx([0.9, 0.9, 0.9], abs=1e-6)
