from __future__ import annotations

import pytest
from constitution import HOUSE, SENATE, hit
from hypothesis import given
from hypothesis import strategies as st

from pipeline.compress import GAP, compress
from pipeline.errors import ConfigurationError
from pipeline.sentences import sentences


def words(text: str) -> int:
    return len(text.split())


def scored(passages, score=lambda n: float(-n)):
    count, found = 0, []
    for passage in passages:
        found.append([])
        for start, end in sentences(passage.text):
            found[-1].append((start, end, score(count)))
            count += 1
    return found


def test_the_best_sentences_are_kept_in_the_order_of_the_text():
    passage = hit("One is here. Two is there. Three is gone. Four is left.", chunk_id="p", start=100)
    spans = sentences(passage.text)
    scores = [(*span, score) for span, score in zip(spans, [2.0, 0.0, 1.0, 3.0], strict=True)]
    [extract] = compress([passage], [scores], budget_tokens=10, count_tokens=words)
    assert extract.text == f"One is here.{GAP}Three is gone. Four is left."
    assert extract.origin(0) == 100
    assert extract.origin(extract.text.index("Three")) == 100 + passage.text.index("Three")
    assert extract.origin(extract.text.index("…")) is None
    assert extract.shortened().text == extract.text
    assert (extract.shortened().start, extract.shortened().end) == (passage.start, passage.end)


def test_passages_that_fit_are_not_touched():
    passages = [hit(HOUSE, chunk_id="a"), hit(SENATE, chunk_id="b")]
    kept = compress(passages, scored(passages), budget_tokens=10_000, count_tokens=words)
    assert [each.text for each in kept] == [HOUSE, SENATE]


def test_a_passage_without_a_kept_sentence_is_left_out():
    passages = [hit(HOUSE, chunk_id="a"), hit("Short one.", chunk_id="b")]
    kept = compress(passages, scored(passages, float), budget_tokens=2, count_tokens=words)
    assert [each.hit.chunk_id for each in kept] == ["b"]


def test_a_senseless_budget_is_named():
    with pytest.raises(ConfigurationError, match="is 0 tokens"):
        compress([], [], budget_tokens=0, count_tokens=words)


@given(
    texts=st.lists(st.text(st.sampled_from("ab. !?\n…契。"), max_size=80), min_size=1, max_size=4),
    budget=st.integers(1, 40),
    seed=st.randoms(use_true_random=False),
)
def test_within_budget_and_every_character_is_the_documents(texts, budget, seed):
    passages = [hit(text, chunk_id=str(n), start=1000 * n) for n, text in enumerate(texts)]
    documents = {str(n): text for n, text in enumerate(texts)}
    kept = compress(
        passages, scored(passages, lambda n: seed.random()), budget_tokens=budget, count_tokens=len
    )
    assert sum(len(each.text) for each in kept) <= budget
    for each in kept:
        places = [each.origin(n) for n in range(len(each.text))]
        for char, place in zip(each.text, places, strict=True):
            if place is not None:
                assert documents[each.hit.chunk_id][place - each.hit.start] == char
        known = [place for place in places if place is not None]
        assert known == sorted(set(known))
