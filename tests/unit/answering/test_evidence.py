from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from constitution import HOUSE, READER, SENATE, TERMS, hit, hits
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evidence import MAX_SENTENCE_CHARS, best, gather, passages_by_evidence, rank


def quotes(question: str, *passages, most: int = 3, margin: float = 0.8) -> list[str]:
    evidence = gather(passages or hits(), READER)
    ranking = rank(question, evidence, READER)
    return [found.text[a:b] for found, a, b in best(evidence, ranking, most, margin)]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Who has the sole power of impeachment?", "sole Power of Impeachment"),
        ("Who tries impeachments?", "sole Power to try all Impeachments"),
        ("How old must a Representative be?", "Age of twenty five Years"),
        ("How many Senators does each State have?", "two Senators from each State"),
        ("How many witnesses are needed for treason?", "Testimony of two Witnesses"),
        ("Who is President of the Senate?", "The Vice President of the United States shall be President"),
    ],
)
def test_the_sentence_that_answers_leads(question, expected):
    assert expected in quotes(question)[0]


def test_quotes_are_few_apart_and_different():
    found = quotes("What is the power of the Senate and of the House?", margin=99)
    assert len(found) == len(set(found)) == 3
    assert quotes("What of the Senate?", most=1, margin=99) == quotes("What of the Senate?", margin=0)[:1]


def test_a_sentence_that_cannot_stand_alone_brings_the_one_before():
    life = hit("Ada Byron was born in London. She wrote the first program in 1843. Snow fell that year.")
    assert quotes("Who wrote the first program?", life, most=1) == [
        "Ada Byron was born in London. She wrote the first program in 1843."
    ]


def test_a_passage_of_the_wrong_subject_is_not_an_answer():
    evidence = gather(hits(), READER)

    def likelihood(question):
        return rank(question, evidence, READER).answerable

    asked = [likelihood(q) for q in ("How old must a Representative be?", "Who tries impeachments?")]
    strange = [
        likelihood(q) for q in ("What do mitochondria produce?", "When did Mahler finish his symphony?")
    ]
    assert min(asked) > 0.4 > max(strange)


def test_passages_follow_their_best_sentence():
    evidence = gather(hits(), READER)
    ordered = passages_by_evidence(evidence, rank("Who tries impeachments?", evidence, READER))
    assert ordered[0].text == SENATE
    assert sorted(p.text for p in ordered) == sorted(h.text for h in hits())
    assert [p.score for p in ordered] == sorted((p.score for p in ordered), reverse=True)
    searched = {h.text: h.score for h in hits()}
    assert all(p.scores["search"] == searched[p.text] for p in ordered)


def test_the_searchs_own_score_is_kept_whatever_has_reranked():
    reranked = [replace(h, score=9.0 - n, scores={"retrieved": h.score}) for n, h in enumerate(hits())]
    evidence = gather(reranked, READER)
    searched = {h.text: h.score for h in hits()}
    for passage in passages_by_evidence(evidence, rank("Who tries impeachments?", evidence, READER)):
        assert passage.scores["search"] == searched[passage.text]


def test_nothing_to_read_answers_nothing():
    evidence = gather([hit("  \n … \n"), hit("")], READER)
    ranking = rank("Who?", evidence, READER)
    assert (ranking.order, ranking.answerable) == ((), 0.0)
    assert best(evidence, ranking, 3, 1.0) == []


def test_coverage_weighs_rare_words_more():
    evidence = gather(hits(), READER)
    rare, common = TERMS("Treason")[0], TERMS("State")[0]
    assert evidence.coverage(frozenset([rare, common]), frozenset([rare])) > 0.5
    assert evidence.coverage(frozenset(), frozenset()) == 1


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=2000))
def test_sentences_are_short_in_order_and_of_the_passage(text):
    evidence = gather([hit(HOUSE), hit(text, 0.5)], READER)
    own = [s for s in evidence.sentences if s.hit.text == text != HOUSE]
    assert all(0 < s.end - s.start <= MAX_SENTENCE_CHARS for s in own)
    assert all(a.end <= b.start for a, b in pairwise(own))
    assert len(evidence.vectors) == len(evidence.sentences)
