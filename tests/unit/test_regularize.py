"""Scores that rise towards those of what resembles them in other documents."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.regularize import Candidate, Regularization, regularized, word_cosines
from pipeline.types import SparseVector, Vectors


def words(terms: dict[int, float]) -> SparseVector:
    indices = sorted(terms)
    return SparseVector(np.array(indices, np.uint32), np.array([terms[i] for i in indices], np.float32))


def found(
    scores: Sequence[float],
    vectors: Sequence[Sequence[float]],
    documents: Sequence[object],
    passages: int = 1,
    terms: Sequence[dict[int, float]] | None = None,
) -> list[Candidate]:
    sparse = [None] * len(scores) if terms is None else [words(each) for each in terms]
    return [
        Candidate(score, Vectors(np.array(vector, np.float32), said), document, passages)
        for score, vector, said, document in zip(scores, vectors, sparse, documents, strict=True)
    ]


def cosines_by_hand(texts: Sequence[dict[int, float]]) -> list[list[float]]:
    held = {term: sum(term in text for text in texts) for text in texts for term in text}
    rarity = {t: math.log(1 + (len(texts) - m + 0.5) / (m + 0.5)) for t, m in held.items()}
    weighed = [{t: w * rarity[t] for t, w in text.items()} for text in texts]
    lengths = [math.sqrt(sum(w * w for w in text.values())) for text in weighed]
    return [
        [
            sum(w * b.get(t, 0.0) for t, w in a.items()) / (lengths[i] * lengths[j]) if a and b else 0.0
            for j, b in enumerate(weighed)
        ]
        for i, a in enumerate(weighed)
    ]


def by_hand(
    candidates: Sequence[Candidate], texts: Sequence[dict[int, float]], chosen: Regularization
) -> list[float]:
    """The formula, one passage at a time."""
    made, said = [], cosines_by_hand(texts)
    for i, one in enumerate(candidates):
        weights = {
            j: math.exp((float(one.vectors.dense @ other.vectors.dense) + said[i][j]) / chosen.temperature)
            for j, other in enumerate(candidates)
            if other.document != one.document and one.vectors.dense @ other.vectors.dense <= 0.9
        }
        total = sum(weights.values())
        around = sum(w * candidates[j].score for j, w in weights.items()) / total if weights else one.score
        made.append(one.score + chosen.share / math.sqrt(one.passages) * max(0.0, around - one.score))
    return made


@example(seed=4, count=3, share=1.0)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 12), share=st.floats(0, 1))
def test_it_is_the_formula(seed: int, count: int, share: float) -> None:
    chance = np.random.default_rng(seed)
    vectors = chance.standard_normal((count, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [
        {int(t): float(chance.random()) + 0.1 for t in chance.choice(9, chance.integers(0, 6), replace=False)}
        for _ in range(count)
    ]
    documents = chance.integers(0, 4, count).tolist()
    given_ = [
        c._replace(passages=1 + documents[n] ** 2)
        for n, c in enumerate(found(chance.random(count).tolist(), vectors, documents, terms=texts))
    ]
    chosen = Regularization(share=share)
    made, scores = regularized(given_, chosen), np.array([c.score for c in given_])
    assert made == pytest.approx(by_hand(given_, texts, chosen), abs=1e-4)
    assert (made >= scores).all()
    assert made.max() <= scores.max() + 1e-12


def at(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def test_what_resembles_the_best_overtakes_what_does_not() -> None:
    made = regularized(
        found([0.9, 0.51, 0.5], [at(0), at(90), at(40)], ["a", "b", "c"]), Regularization(share=0.3)
    )
    assert made[0] == 0.9  # nothing around it is better
    assert made[2] > made[1] + 0.05


def test_what_shares_rare_words_with_the_best_overtakes_what_shares_common_ones() -> None:
    """Term 1, which all say, makes nothing alike; term 7 does."""
    terms: list[dict[int, float]] = [{1: 1, 7: 1}, {1: 1, 5: 1}, {1: 1, 7: 1}, {1: 1, 4: 1}]
    alike = (np.eye(4, 5) + np.eye(1, 5, 4)) / math.sqrt(2)  # every cosine is one half
    made = regularized(found([0.9, 0.51, 0.5, 0.1], alike, "abcd", terms=terms), Regularization())
    assert made[2] == pytest.approx(0.5 + 0.6 * 0.4, abs=0.01)
    assert made[1] < 0.52


def test_neither_its_own_document_nor_its_copy_makes_a_passage_better() -> None:
    two = [at(0), at(40)]
    assert regularized(found([0.9, 0.5], two, ["a", "a"]), Regularization()).tolist() == [0.9, 0.5]
    copies = [at(0), at(10)]  # cosine .985
    assert regularized(found([0.9, 0.5], copies, ["a", "b"]), Regularization()).tolist() == [0.9, 0.5]
    assert regularized(found([0.5], copies[:1], ["a"]), Regularization()).tolist() == [0.5]


def test_passages_of_long_documents_rise_less() -> None:
    """By the square root of how many passages their document has."""
    short, long = (
        regularized(found([0.9, 0.5], [at(0), at(40)], ["a", "b"], passages), Regularization())[1] - 0.5
        for passages in (1, 16)
    )
    assert short == pytest.approx(4 * long)
    assert short == pytest.approx(0.6 * 0.4)


def test_equal_scores_stay_equal() -> None:
    """So that ties go on being told apart by document and place, on every machine."""
    chance = np.random.default_rng(7)
    for _ in range(50):
        vectors = chance.standard_normal((20, 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        texts = [{int(t): 1.0 for t in chance.choice(30, 5)} for _ in range(20)]
        candidates = found([chance.random()] * 20, vectors, range(20), terms=texts)
        made = regularized(candidates, Regularization(share=1.0))
        assert (made == candidates[0].score).all()


def test_a_low_temperature_leaves_the_nearest_alone() -> None:
    made = regularized(
        found([0.1, 0.9, 0.5], [at(0), at(40), at(80)], range(3)),
        Regularization(share=1.0, temperature=0.001),
    )
    assert made == pytest.approx([0.9, 0.9, 0.9], abs=1e-6)


def test_passages_without_words_resemble_none() -> None:
    cosines = word_cosines([None, words({3: 1.0, 9: 2.0}), words({3: 2.0, 9: 4.0}), words({})])
    assert cosines[0].tolist() == cosines[3].tolist() == [0, 0, 0, 0]
    assert cosines[1, 2] == pytest.approx(1)
