"""The default embedder, for which the thresholds were measured, on passages it was not measured on."""

from __future__ import annotations

import pytest
from constitution import TERMS, Found, Library, hits

from pipeline import plugins
from pipeline.answer import Answerer
from pipeline.evidence import Reader, gather, rank
from pipeline.similarity import calibrate
from pipeline.types import Query

pytestmark = pytest.mark.model

ASKED = {
    "How old must a member of the House be?": "twenty five Years",
    "Which chamber tries an impeached officer?": "sole Power to try all Impeachments",
    "Who presides over the Senate?": "The Vice President",
    "How long does a senator serve?": "six Years",
    "What is needed to convict somebody of treason?": "Testimony of two Witnesses",
    "Where is the judicial power placed?": "one supreme Court",
}
STRANGE = (
    "How do plants turn light into sugar?",
    "When did Mahler finish his first symphony?",
    "What is the boiling point of tungsten?",
    "Who painted the ceiling of the Sistine Chapel?",
    "How many moons does Jupiter have?",
    "What is the notice period of the lease?",
)


@pytest.fixture(scope="module")
def embedder():
    return plugins.load("embedders", "sentence_transformer")


def test_the_scale_tells_related_from_unrelated(embedder):
    similarity = calibrate(embedder)
    assert similarity.unrelated < 0.2
    assert similarity.related > 0.5


def test_what_is_there_is_found_and_quoted_and_what_is_not_is_said_so(embedder):
    answerer = Answerer(Found(), embedder, None, documents=Library())
    for question, expected in ASKED.items():
        answer = answerer.answer(Query(question))
        assert answer.found, question
        assert expected in answer.text, question
    assert not any(answerer.answer(Query(question)).found for question in STRANGE)


def test_what_is_there_is_likelier_than_anything_that_is_not(embedder):
    reader = Reader(calibrate(embedder), TERMS)
    evidence = gather(hits(), reader)
    asked = [rank(question, evidence, reader).answerable for question in ASKED]
    strange = [rank(question, evidence, reader).answerable for question in STRANGE]
    assert min(asked) > max(strange)
