"""Answers measured against references and evidence, worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline.answer import AnswerConfig
from pipeline.errors import InvalidRequestError
from pipeline.evaluation.answers import Likelihood, answer_values
from pipeline.evaluation.dataset import Question
from pipeline.seams import Message
from pipeline.types import Answer, Citation, Context, Hit, Query, Statement

HITS = tuple(
    Hit(f"c{i}", "d", 1, "Title", text, 50 * i, 50 * i + len(text), score)
    for i, (text, score) in enumerate([("The bridge is old.", 0.2), ("It opened in 1894.", 0.9)])
)
QUESTION = Question("q", "When?", answers=("1894", "in 1894"), relevance={"d": 1}, spans={"d": ((50, 68),)})


def cited(start: int, end: int, *, supported: bool = True) -> Statement:
    citation = Citation("d", 1, "Title", "c1", start, end, "x")
    return Statement("It opened in 1894.", "quoted", supported, 1.0, (citation,))


class Fixed:
    """Gives one answer to every question."""

    def __init__(self, answer: Answer | None) -> None:
        self._answer = answer

    def answer(self, query: Query) -> Answer:
        if self._answer is None:
            raise InvalidRequestError("No.")
        return self._answer


def answer(*statements: Statement, found: bool = True) -> Answer:
    text = " ".join(s.text for s in statements) if found else "The documents do not contain an answer."
    return Answer(text, found, statements, Context(HITS, 8), "extractive", {"retrieve": 0.25})


def values(given: Answer | None, question: Question = QUESTION) -> dict[str, float]:
    return answer_values(question, Query("When?"), Fixed(given), {})


def test_a_cited_answer() -> None:
    found = values(answer(cited(55, 60), cited(0, 10), cited(50, 68, supported=False)))
    assert found["answered"] == 1
    assert found["holds_reference"] == 1
    assert found["exact_match"] == 0
    assert found["token_f1"] == pytest.approx(2 * 2 / (3 * 4 + 2))
    assert found["supported"] == pytest.approx(2 / 3)
    assert (found["citation_precision"], found["citation_recall"]) == (0.5, 1.0)


def test_nothing_said_counts_as_nothing_found() -> None:
    for given in (answer(found=False), None):
        found = values(given)
        assert found["answered"] == found["token_f1"] == found["citation_recall"] == 0
        assert "supported" not in found


def test_saying_that_it_is_not_there() -> None:
    question = Question("q", "Who?", answerable=False)
    assert values(answer(found=False), question) == {"abstained": 1.0}
    assert values(answer(cited(0, 5)), question) == {"abstained": 0.0}


def test_seconds_by_stage_are_kept() -> None:
    seconds: dict[str, float] = {}
    answer_values(QUESTION, Query("When?"), Fixed(answer(cited(0, 5))), seconds)
    assert seconds["answer_retrieve"] == 0.25
    assert seconds["answer"] > 0


class Counting:
    """A model whose logarithms are told by the continuation, and that keeps what it was shown."""

    name, window_tokens = "counting", 2_000

    def __init__(self) -> None:
        self.shown: list[Sequence[Message]] = []

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(m.content.split()) for m in messages)

    def stream(self, *_: object) -> None:
        raise AssertionError("nothing is generated")

    def logprob(self, messages: Sequence[Message], continuation: str) -> list[float]:
        self.shown.append(messages)
        return [-1.0, -3.0] if continuation == "1894" else [-0.5, -1.0]


def test_the_likelihood_of_the_likeliest_reference() -> None:
    model = Counting()
    found = answer_values(
        QUESTION,
        Query("When?"),
        Fixed(answer(cited(0, 5))),
        {},
        Likelihood(model, AnswerConfig(prompt_passages=1)),  # type: ignore[arg-type]
    )
    assert found["reference_logprob"] == -0.75
    shown = " ".join(message.content for message in model.shown[0])
    assert "It opened in 1894." in shown
    assert "The bridge is old." not in shown  # only the best passage is read
