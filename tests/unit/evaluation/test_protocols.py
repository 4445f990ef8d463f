"""Sets made after public protocols hold what they say, where they say it."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from embedders import hashing
from pipeline.errors import InvalidRequestError
from pipeline.evaluation.dataset import EvaluationSet, Question, SetDocument
from pipeline.evaluation.protocols import by_position, key_value, needles

ENCODE = hashing.build(hashing.TINY).encode
HAYSTACK = " ".join(f"Sentence number {i} says nothing of interest at all." for i in range(400))


def spans(given: EvaluationSet) -> list[tuple[Question, str]]:
    """Every question with the text of its evidence."""
    texts = {d.id: d.text for d in given.documents}
    return [(q, texts[d][a:b]) for q in given.questions for d, found in q.spans.items() for a, b in found]


def test_needles_are_hidden_at_their_spans_in_documents_of_the_length() -> None:
    given = needles(HAYSTACK, ENCODE, 300, candidates=100, seed=1)
    assert given == needles(HAYSTACK, ENCODE, 300, candidates=100, seed=1)
    assert given != needles(HAYSTACK, ENCODE, 300, candidates=100, seed=2)
    assert len(given.documents) == 100
    assert all(250 <= len(ENCODE(d.text)) <= 320 for d in given.documents)
    found = spans(given)
    assert Counter(q.id.split("-")[0] for q, _ in found) == {"passkey": 100, "needle": 100}
    assert all(q.answers[0] in text for q, text in found)
    assert len({q.text for q, _ in found}) == 200  # nobody's question is asked twice
    places = [q.spans[d][0][0] / len(HAYSTACK[:1500]) for q in given.questions for d in q.spans]
    assert min(places) < 0.2
    assert max(places) > 0.6


def test_needles_refuse_what_cannot_be_made() -> None:
    for arguments in ({"candidates": 101}, {"candidates": 0}):
        with pytest.raises(InvalidRequestError, match="cannot be made"):
            needles(HAYSTACK, ENCODE, 300, **arguments)
    with pytest.raises(InvalidRequestError, match="no sentences"):
        needles("word " * 500, ENCODE, 300)


def test_the_answer_stands_at_the_position_asked_for() -> None:
    documents = tuple(SetDocument(f"d{i}", f"Text number {i}.") for i in range(30))
    questions = tuple(Question(f"q{i}", f"Which is {i}?", relevance={f"d{i}": 1}) for i in range(20))
    given = EvaluationSet("small", documents, questions)
    made = by_position(given, passages=5, positions=(0, 2, 4), count=10, seed=3)
    assert [each.name for each in made] == ["small-at-1-of-5", "small-at-3-of-5", "small-at-5-of-5"]
    for position, each in zip((0, 2, 4), made, strict=True):
        assert len(each.questions) == 10
        for question, text in spans(each):
            assert text == f"Text number {question.id[1:]}."
            whole = next(d.text for d in each.documents if d.id == question.scope)
            assert whole.split("\n\n")[position] == text
    distractors = [{d.id: frozenset(d.text.split("\n\n")) for d in each.documents} for each in made]
    assert distractors[0] == distractors[1] == distractors[2]
    with pytest.raises(InvalidRequestError, match=r"Positions \[5\]"):
        by_position(given, passages=5, positions=(5,))


def test_keys_have_their_values() -> None:
    given = key_value(keys=20, count=10)
    for question, text in spans(given):
        pairs = json.loads(next(d.text for d in given.documents if d.id == question.scope))
        assert len(pairs) == 20
        [(key, value)] = json.loads("{" + text + "}").items()
        assert (pairs[key], question.answers) == (value, (value,))
        assert key in question.text
    for number, (document, question) in enumerate(zip(given.documents, given.questions, strict=True)):
        assert list(json.loads(document.text))[2 * number] == question.text.split('"')[1]
