from __future__ import annotations

import pytest
from constitution import HOUSE, JUDGES, SENATE, hit, hits
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigurationError
from pipeline.order import arrange


def words(text: str) -> int:
    return len(text.split())


def ranks(order: str, scores: list[float]) -> list[float]:
    topics = ("lease", "whale", "frost", "harbour", "comet")
    passages = [
        hit(f"About the {topic} there is much to say.", score)
        for topic, score in zip(topics, scores, strict=True)
    ]
    return [h.score for h in arrange(passages, budget_tokens=999, count_tokens=words, order=order).passages]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("score", [5, 4, 3, 2, 1]),
        ("reverse", [1, 2, 3, 4, 5]),
        ("edges", [5, 3, 1, 2, 4]),
    ],
)
def test_reading_orders(order, expected):
    assert ranks(order, [3, 5, 1, 4, 2]) == expected


def test_document_order_keeps_documents_together_best_first():
    passages = [
        hit(SENATE, 1.0, start=900, document_id="a"),
        hit(HOUSE, 3.0, start=10, document_id="b"),
        hit(JUDGES, 2.0, start=50, document_id="a"),
    ]
    arranged = arrange(passages, budget_tokens=999, count_tokens=words, order="document").passages
    assert [(h.document_id, h.start) for h in arranged] == [("b", 10), ("a", 50), ("a", 900)]


def test_near_duplicates_are_dropped_and_reported():
    copy = hit(HOUSE.replace("Officers; and", "Officers,  and").upper(), 0.5)
    context = arrange([hit(HOUSE), copy, hit(SENATE, 0.4)], budget_tokens=999, count_tokens=words)
    assert [h.text for h in context.passages] == [HOUSE, SENATE]
    assert any("nearly the same" in reason for reason in context.dropped)


@pytest.mark.parametrize(
    "changed",
    [
        HOUSE.replace("seven", "nine"),
        HOUSE.replace("shall have the sole", "shall not have the sole"),
        HOUSE.replace("Impeachment", "Westminster"),
    ],
    ids=["number", "negation", "name"],
)
def test_a_passage_that_says_otherwise_is_no_duplicate(changed):
    context = arrange([hit(HOUSE), hit(changed, 0.5)], budget_tokens=999, count_tokens=words)
    assert len(context.passages) == 2


def test_the_best_passage_is_trimmed_to_sentences_rather_than_lost():
    context = arrange(hits(), budget_tokens=30, count_tokens=words)
    [kept] = context.passages
    assert kept.text == HOUSE[: HOUSE.index(" No Person")]
    assert kept.end - kept.start == len(kept.text)
    assert sum("do not fit" in reason for reason in context.dropped) == 2


def test_a_smaller_passage_fills_what_a_larger_one_leaves():
    context = arrange(
        [hit(HOUSE), hit(SENATE, 0.9), hit("A short one.", 0.1)], budget_tokens=70, count_tokens=words
    )
    assert [h.score for h in context.passages] == [1.0, 0.1]


@pytest.mark.parametrize(("budget", "order"), [(-1, "score"), (10, "backwards")])
def test_wrong_arguments_name_the_value(budget, order):
    with pytest.raises(ConfigurationError, match=str(budget) if budget < 0 else order):
        arrange([], budget_tokens=budget, count_tokens=words, order=order)


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=200), max_size=8),
    budget=st.integers(0, 60),
    order=st.sampled_from(["score", "reverse", "edges", "document"]),
)
def test_the_budget_holds_and_every_passage_is_kept_or_reported(texts, budget, order):
    passages = [hit(text, score=i % 3, chunk_id=str(i)) for i, text in enumerate(texts)]
    context = arrange(passages, budget_tokens=budget, count_tokens=words, order=order)
    assert context.tokens == sum(words(h.text) for h in context.passages) <= budget
    trimmed = sum("trimmed" in reason for reason in context.dropped)
    assert len(context.passages) + len(context.dropped) - trimmed == len(passages)
