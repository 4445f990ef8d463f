"""What an answer is worth, against reference answers and evidence, and for saying that it is not there."""

from __future__ import annotations

import time
from typing import Protocol

from pipeline import measure
from pipeline.errors import InvalidRequestError
from pipeline.evaluation.dataset import Question
from pipeline.types import Answer, Query


class Answers(Protocol):
    """Answers questions; see :class:`pipeline.answer.Answerer`."""

    def answer(self, query: Query) -> Answer:
        """The whole answer."""
        ...


def answer_values(
    question: Question, query: Query, answerer: Answers, seconds: dict[str, float]
) -> dict[str, float]:
    """Ask one question and measure the answer; ``seconds`` gets its times by stage.

    ``abstained`` is 1 where "not in the documents" was said rightly and 0 where it was missed; for a
    question that has an answer, ``answered`` is 1 where something was said. A question that cannot be
    served counts as nothing said.
    """
    asked = Query(question.question, query.collection, query.tenant, 10, query.filter, query.document_id)
    began = time.perf_counter()
    try:
        answer = answerer.answer(asked)
    except InvalidRequestError:
        answer = None
    seconds["answer"] = time.perf_counter() - began
    if answer is not None:
        seconds |= {f"answer_{stage}": spent for stage, spent in answer.timings.items()}
    said = answer is not None and answer.found
    if not question.answerable:
        return {"abstained": float(not said)}
    values = {"answered": float(said)}
    text = answer.text if answer is not None and said else ""
    if question.answers:
        values["exact_match"] = measure.exact_match(text, question.answers)
        values["token_f1"] = measure.token_f1(text, question.answers)
        values["holds_reference"] = measure.contains(text, question.answers)
    statements = answer.statements if answer is not None else ()
    if statements:
        values["supported"] = sum(s.supported for s in statements) / len(statements)
    if question.spans:
        cited = [(c.document_id, (c.start, c.end)) for s in statements if s.supported for c in s.citations]
        found = measure.citations(question.spans, cited)
        values |= {f"citation_{name}": value for name, value in found.items()}
    return values
