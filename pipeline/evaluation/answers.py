"""What an answer is worth, against reference answers and evidence, and for saying that it is not there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, get_args, runtime_checkable

from pipeline import measure, prompt
from pipeline.answer import AnswerConfig
from pipeline.errors import InvalidRequestError
from pipeline.evaluation.dataset import Question
from pipeline.order import ReadingOrder
from pipeline.seams import LanguageModel, Message
from pipeline.types import ANSWER_TOP_K, Answer, Query

_MOST_REFERENCES = 3
_PLAIN: Mapping[str, ReadingOrder] = {order: order for order in get_args(ReadingOrder)}


class Answers(Protocol):
    """Answers questions; see :class:`pipeline.answer.Answerer`."""

    def answer(self, query: Query) -> Answer:
        """The whole answer."""
        ...


@runtime_checkable
class TellsProbabilities(Protocol):
    """A language model that says how likely it finds an answer; one in this process does."""

    def logprob(self, messages: Sequence[Message], continuation: str) -> list[float]:
        """Natural logarithm of each token's probability."""
        ...


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely the language model finds the reference answers, given the passages it would read, with its
    attention as it is (see ``answer.reweigh``)."""

    model: LanguageModel
    config: AnswerConfig

    def of(self, question: Question, answer: Answer) -> float | None:
        """Mean logarithm of the probability of a token (at most 0) of the likeliest of three references.

        It moves long before exact match does. None where there is nothing to score, or no room.
        """
        best = sorted(answer.context.passages, key=lambda hit: -hit.score)[: self.config.prompt_passages]
        built = prompt.build(
            question.question,
            best,
            self.model,
            budget_tokens=self.config.prompt_tokens,
            max_tokens=self.config.max_tokens,
            order=_PLAIN.get(self.config.order, "reverse"),  # orders by attention need passages read first
        )
        if built is None or not isinstance(self.model, TellsProbabilities):
            return None
        references = [reference for reference in question.answers if reference.strip()][:_MOST_REFERENCES]
        found = [self.model.logprob(built.messages, reference) for reference in references]
        return max((sum(each) / len(each) for each in found), default=None)


def answer_values(
    question: Question,
    query: Query,
    answerer: Answers,
    seconds: dict[str, float],
    likelihood: Likelihood | None = None,
) -> dict[str, float]:
    """Ask one question and measure the answer; ``seconds`` gets its times by stage.

    ``abstained`` is 1 where "not in the documents" was said rightly and 0 where it was missed; for a
    question that has an answer, ``answered`` is 1 where something was said. A question that cannot be
    served counts as nothing said.
    """
    asked = Query(
        question.question, query.collection, query.tenant, ANSWER_TOP_K, query.filter, query.document_id
    )
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
    scored = likelihood.of(question, answer) if likelihood is not None and answer is not None else None
    if scored is not None:
        values["reference_logprob"] = scored
    statements = answer.statements if answer is not None else ()
    if statements:
        values["supported"] = sum(s.supported for s in statements) / len(statements)
    if question.spans:
        cited = [(c.document_id, (c.start, c.end)) for s in statements if s.supported for c in s.citations]
        found = measure.citations(question.spans, cited)
        values |= {f"citation_{name}": value for name, value in found.items()}
    return values
