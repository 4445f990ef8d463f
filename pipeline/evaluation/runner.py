"""Ask every question of a set and measure what comes back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline import measure
from pipeline.errors import InvalidRequestError
from pipeline.evaluation.answers import Answers, Likelihood, answer_values
from pipeline.evaluation.copies import Copies, copies_of, read_with, with_copies
from pipeline.evaluation.dataset import EvaluationSet, Question
from pipeline.ingest import Source
from pipeline.results import IngestResult
from pipeline.retrieve import Findings
from pipeline.types import Hit, Query, Retrieval

THIRDS = ("beginning", "middle", "end")
PLACES = (*THIRDS, "several")
"""Where in its document the evidence of a question stands; `several` if in more than one third."""

DEPTH, MOST_DEPTH = 100, 1_000
"""Passages that rankings of documents are made of, usually and at most."""

Values = dict[str, float]
Progress = Callable[[str, int, int], None]


class Searcher(Protocol):
    """Finds passages; see :class:`pipeline.retrieve.Retriever`."""

    def find(self, query: Query) -> Findings:
        """Everything that selections are made from."""
        ...

    def select(self, query: Query, found: Findings) -> Retrieval:
        """The best of it."""
        ...


class Ingests(Protocol):
    """Takes documents in; see :class:`pipeline.ingest.Ingestor`."""

    def ingest(self, sources: Sequence[Source], *, collection: str) -> Iterator[IngestResult]:
        """Results in order."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Rankings of documents are measured at ``cutoffs`` (at most ``depth``, which is at most MOST_DEPTH) on the
    best ``depth`` passages, spans at ``budgets`` (tokens of the embedder). ``answers`` says whether
    questions are also answered.
    """

    cutoffs: tuple[int, ...] = (1, 5, 10)
    budgets: tuple[int, ...] = (500, 1000, 2000)
    depth: int = DEPTH
    answers: bool = False

    def __post_init__(self) -> None:
        for name in ("cutoffs", "budgets"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise InvalidRequestError(f"{name} is {values}.", remedy="Give whole numbers of 1 or more.")
        if max(self.cutoffs) > MOST_DEPTH:
            raise InvalidRequestError(
                f"The cutoff {max(self.cutoffs)} is beyond the {MOST_DEPTH} passages that a search gives.",
                remedy=f"Give cutoffs of at most {MOST_DEPTH}.",
            )
        if not max(self.cutoffs) <= self.depth <= MOST_DEPTH:
            raise InvalidRequestError(
                f"depth is {self.depth}.",
                remedy=f"Set it from {max(self.cutoffs)} (the largest cutoff) to {MOST_DEPTH}.",
            )


@dataclass(frozen=True, slots=True)
class Ingested:
    """How a set went in. ``seconds`` is None where all of it was there already."""

    documents: int
    tokens: int
    passages: int
    units: int
    seconds: float | None
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """What one question gave: measures by name, seconds by stage, and what groups it belongs to."""

    id: str
    values: Values
    seconds: Mapping[str, float]
    groups: Mapping[str, str]


def ingest(given: EvaluationSet, ingestor: Ingests, collection: str, progress: Progress) -> Ingested:
    """Put every document in; those that are there already cost nothing.

    Documents that cannot be ingested (an empty one) are counted, and their questions answered without
    them. Raises what stops every document.
    """
    sources = [
        Source(
            document.id,
            text=None if document.file else document.text,
            data=document.file,
            document_id=document.id,
            title=document.title or None,
            metadata={"language": document.language} if document.language else {},
        )
        for document in given.documents
    ]
    began, results = time.perf_counter(), []
    for result in ingestor.ingest(sources, collection=collection):
        results.append(result)
        progress("ingesting", len(results), len(sources))
    seconds = time.perf_counter() - began
    status = Counter(result.status for result in results)
    stored = [result for result in results if result.status != "failed"]
    return Ingested(
        len(stored),
        sum(result.tokens for result in stored),
        sum(result.passages for result in stored),
        sum(result.units for result in stored),
        seconds if status["created"] == len(stored) and stored else None,
        {result.document_id: result.message for result in results if result.status == "failed"},
    )


def warm_up(given: EvaluationSet, searcher: Searcher, collection: str, plan: Plan) -> None:
    """Search for the last question, so that what the first search loads is no question's time."""
    for last in given.measurable(answers=plan.answers)[-1:]:
        query = _query(last, collection, plan.depth, filtered=False)
        _search(last, query, searcher, plan, seconds={}, copies={})


def ask(
    given: EvaluationSet,
    searcher: Searcher,
    collection: str,
    plan: Plan,
    *,
    answerer: Answers | None = None,
    likelihood: Likelihood | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> list[Asked]:
    """Every question that can be measured, in order.

    Raises MissingDependencyError without ir-measures, before the first question is asked.
    """
    measure.rankings({}, {}, plan.cutoffs)
    texts = {document.id: document.text for document in given.documents}
    lengths = {document: len(text) for document, text in texts.items()}
    asked = given.measurable(answers=plan.answers)
    filtered = any(document.language for document in given.documents)
    found: list[Asked] = []
    rankings: dict[str, list[str]] = {}
    for number, question in enumerate(asked, 1):
        query = _query(question, collection, plan.depth, filtered=filtered)
        values: Values = {}
        seconds: dict[str, float] = {}
        if question.judged:
            rankings[question.id], values = _search(
                question, query, searcher, plan, seconds=seconds, copies=copies_of(question, texts)
            )
        if answerer is not None and plan.answers:
            values |= answer_values(question, query, answerer, seconds, likelihood)
        found.append(Asked(question.id, values, seconds, groups(question, lengths)))
        progress("asking", number, len(asked))
    ranked = measure.rankings(
        {q.id: q.relevance for q in asked if q.scope is None and q.judged}, rankings, plan.cutoffs
    )
    for each in found:
        each.values.update(ranked.get(each.id, {}))
    return found


def _query(question: Question, collection: str, depth: int, *, filtered: bool) -> Query:
    return Query(
        question.text,
        collection=collection,
        top_k=depth,
        document_id=question.scope,
        filter={"language": question.language} if filtered and question.language else None,
    )


def _search(
    question: Question,
    query: Query,
    searcher: Searcher,
    plan: Plan,
    *,
    seconds: dict[str, float],
    copies: Copies,
) -> tuple[list[str], Values]:
    """Documents best first, and span measures at each budget. A question that is refused finds nothing."""
    values: Values = {"refused": 0.0}
    hits: Sequence[Hit] = ()
    found: Findings | None = None
    began = time.perf_counter()
    try:
        found = searcher.find(query)
        hits = searcher.select(_smaller(query, top_k=10), found).hits
        seconds["search"] = time.perf_counter() - began
        if question.scope is None:
            hits = searcher.select(query, found).hits
    except InvalidRequestError:  # a question without words, say
        values["refused"] = 1.0
    for budget in plan.budgets if question.spans else ():
        within: Sequence[Hit] = ()
        if found is not None:
            within = searcher.select(_smaller(query, budget_tokens=budget), found).hits
        read = with_copies(read_with(within), copies)
        for name, value in measure.spans(question.spans, read).items():
            values[f"span_{name}@{budget}"] = value
    return documents_of(hits), values


def documents_of(hits: Sequence[Hit]) -> list[str]:
    """Documents best first: each hit's, then those that repeat it."""
    return list(dict.fromkeys(at.document_id for hit in hits for at in hit.locations))


def _smaller(query: Query, *, top_k: int | None = None, budget_tokens: int | None = None) -> Query:
    return Query(
        query.text,
        query.collection,
        query.tenant,
        query.top_k if top_k is None else top_k,
        query.filter,
        query.document_id,
        budget_tokens,
    )


def groups(question: Question, lengths: Mapping[str, int]) -> dict[str, str]:
    """What results are also shown by: language, length of the document that answers, and in which third of
    it the evidence stands (see ``PLACES``)."""
    made = {"language": question.language} if question.language else {}
    if question.kind:
        made["type"] = question.kind
    gold = [document for document, grade in question.relevance.items() if grade > 0]
    if gold:
        made["length"] = _length_class(max(lengths[document] for document in gold))
    if question.spans:
        places = {
            THIRDS[min(2, int(3 * (start + end) / 2 / max(lengths[document], 1)))]
            for document, spans in question.spans.items()
            for start, end in spans
        }
        made["position"] = places.pop() if len(places) == 1 else "several"
    return made


def _length_class(chars: int) -> str:
    edges = ((4_000, "under 4k characters"), (32_000, "4k to 32k"), (128_000, "32k to 128k"))
    return next((name for most, name in edges if chars < most), "over 128k")
