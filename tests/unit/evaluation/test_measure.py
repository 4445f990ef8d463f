"""Measures against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import measure


def test_rankings_by_hand() -> None:
    relevance = {"q": {"a": 2, "b": 1, "c": 0}, "empty": {"a": 1}, "unjudged": {"a": 0}}
    found = {"q": ["c", "b", "x", "a"], "other": ["a"]}

    values = measure.rankings(relevance, found, (1, 3, 10))

    assert values.keys() == {"q", "empty"}
    gained = 1 / math.log2(3) + 2 / math.log2(5)
    ideal = 2 + 1 / math.log2(3)
    assert values["q"]["nDCG@10"] == pytest.approx(gained / ideal)
    assert values["q"]["nDCG@3"] == pytest.approx(1 / math.log2(3) / ideal)
    assert (values["q"]["R@1"], values["q"]["R@3"], values["q"]["R@10"]) == (0, 0.5, 1)
    assert values["q"]["RR@10"] == 0.5
    assert values["q"]["RR@1"] == 0
    assert set(values["empty"].values()) == {0.0}


def test_a_document_found_twice_counts_where_it_came_first() -> None:
    values = measure.rankings({"q": {"a": 1}}, {"q": ["x", "a", "x", "a"]}, (10,))
    assert values["q"] == {"nDCG@10": pytest.approx(1 / math.log2(3)), "R@10": 1, "RR@10": 0.5}


def test_ranks_stay_in_order_beyond_single_precision() -> None:
    """trec_eval sorts scores that are floats: thousands of ranks must stay apart."""
    found = [f"d{i:05}" for i in range(9_000)]
    values = measure.rankings({"q": {"d08999": 1}}, {"q": found}, (8_999, 9_000))
    assert (values["q"]["R@8999"], values["q"]["R@9000"]) == (0, 1)


def test_spans_by_hand() -> None:
    wanted = {"a": [(10, 20), (30, 40)], "b": [(0, 10)]}
    selected = {"a": [(15, 35), (18, 20)], "c": [(0, 50)]}
    found = measure.spans(wanted, selected)
    assert found["recall"] == pytest.approx((5 + 5) / 30)
    assert found["precision"] == pytest.approx(10 / 70)
    assert found["iou"] == pytest.approx(10 / (30 + 70 - 10))
    assert measure.spans(wanted, {}) == {"recall": 0, "precision": 0, "iou": 0}


edges = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), min_size=1, max_size=6)


@given(edges, edges)
def test_spans_are_sets_of_characters(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    gold, taken = ([(a, a + n) for a, n in given] for given in (first, second))
    held, chosen = ({i for a, b in spans for i in range(a, b)} for spans in (gold, taken))
    found = measure.spans({"d": gold}, {"d": taken})
    assert found["recall"] == pytest.approx(len(held & chosen) / len(held))
    assert found["precision"] == pytest.approx(len(held & chosen) / len(chosen))
    assert found["iou"] == pytest.approx(len(held & chosen) / len(held | chosen))


def test_citations_by_hand() -> None:
    wanted = {"a": [(0, 10), (50, 60)]}
    cited = [("a", (5, 15)), ("a", (10, 50)), ("b", (0, 10)), ("a", (0, 3))]
    assert measure.citations(wanted, cited) == {"precision": 0.5, "recall": 0.5}
    assert measure.citations(wanted, []) == {"precision": 0, "recall": 0}


@pytest.mark.parametrize(
    ("answer", "references", "match", "f1"),
    [
        ("The Eiffel Tower.", ["eiffel tower"], 1, 1),
        ("in the Eiffel Tower", ["Eiffel Tower", "Paris"], 0, 4 / 5),
        ("42", ["forty-two"], 0, 0),
        ("", [""], 1, 1),
        ("", ["x"], 0, 0),
        ("東京都", ["東京"], 0, 4 / 5),
        ("Straße", ["STRASSE"], 1, 1),
        ("one one two", ["one two two"], 0, 2 / 3),
    ],
)
def test_answers_by_hand(answer: str, references: list[str], match: float, f1: float) -> None:
    assert measure.exact_match(answer, references) == match
    assert measure.token_f1(answer, references) == pytest.approx(f1)


def test_holding_a_reference_means_whole_words() -> None:
    assert measure.contains("It was the art of war.", ["Art of War"]) == 1
    assert measure.contains("It was artful.", ["art"]) == 0
    assert measure.contains("anything", ["", "the"]) == 0


def test_intervals_cover_the_mean_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(5)
    hits = 0
    for seed in range(200):
        sample = random.exponential(1.0, 60)
        found = measure.interval(sample.tolist(), seed=seed, draws=400)
        hits += found.low <= 1.0 <= found.high
    assert 178 <= hits <= 199  # 95 % of 200, within three standard errors and the method's known shortfall
    assert measure.interval([0.5, 1.0], seed=3) == measure.interval([0.5, 1.0], seed=3)
    assert math.isnan(measure.interval([]).mean)


def test_differences_are_paired_by_question() -> None:
    new = {"a": 1.0, "b": 0.5, "only": 9.0}
    old = {"b": 0.25, "a": 0.75, "gone": -9.0}
    assert measure.difference(new, old) == measure.Interval(0.25, 0.25, 0.25, 2)
