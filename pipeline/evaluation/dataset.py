"""Sets in the uniform layout: documents, questions, and which document (and where in it) answers them.

A set is a folder with ``corpus``, ``queries`` and ``qrels``, each ``.jsonl`` or ``.jsonl.gz``, one JSON
object a line. Everything is checked before any work starts, and what is wrong is named with file and line.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from pipeline.errors import InvalidRequestError
from pipeline.evaluation.rows import Row, paths, read, short
from pipeline.measure import Span, joined

_SHOWN_PROBLEMS = 20
_FILES = ("corpus", "queries", "qrels")
_MOST_RELEVANT = 1_000  # trec_eval keeps a count for each grade up to the highest


@dataclass(frozen=True, slots=True)
class SetDocument:
    """A document of a set: its text, or the file that holds it."""

    id: str
    text: str
    title: str = ""
    language: str = ""
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question with what is known of its answer.

    ``relevance`` grades documents (0 is judged not relevant). ``spans`` are the evidence, half-open code
    points into each document's text. ``scope`` is the one document the question is about, if it is about
    one. ``answerable`` False means that the documents do not hold the answer. ``kind`` is what the set
    calls this type of question.
    """

    id: str
    text: str
    asked: str = ""
    answers: tuple[str, ...] = ()
    answerable: bool = True
    scope: str | None = None
    language: str = ""
    kind: str = ""
    relevance: Mapping[str, int] = field(default_factory=dict)
    spans: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """What a person asked; ``text`` is what is searched for where the two differ."""
        return self.asked or self.text

    @property
    def judged(self) -> bool:
        """Whether some document is known to be relevant."""
        return any(grade > 0 for grade in self.relevance.values())

    def measurable(self, *, answers: bool) -> bool:
        """Whether a run measures something of it: its search, or its answer where ``answers`` are wanted."""
        if answers:
            return self.judged or not self.answerable
        return self.judged and (self.scope is None or bool(self.spans))


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """A checked set."""

    name: str
    documents: tuple[SetDocument, ...]
    questions: tuple[Question, ...]

    def measurable(self, *, answers: bool) -> tuple[Question, ...]:
        """The questions that a run asks: it measures their search, or their answers if those are wanted."""
        return tuple(q for q in self.questions if q.measurable(answers=answers))

    def sample(self, documents: int | None, questions: int | None, *, answers: bool = False) -> EvaluationSet:
        """The first ``documents``, and ``questions`` of those that a run would ask of them.

        Questions whose relevant documents are all cut off are left out, so that what is measured can be
        reached. Of as many runs of neighbours as questions are wanted, each gives one by lot, so that a list
        that repeats itself is not met in step. The lots are always the same.
        """
        kept = self.documents[:documents]
        ids = {document.id for document in kept}
        asked = [q for q in self.questions if _within(q, ids)]
        if len(kept) < len(self.documents):
            asked = [_restricted(q, ids) for q in asked]
        if questions is not None:
            asked = _drawn([q for q in asked if q.measurable(answers=answers)], questions)
        return EvaluationSet(self.name, kept, tuple(asked))


def find_sets(folder: Path) -> list[Path]:
    """The set that ``folder`` is, or those in it, by name. Raises InvalidRequestError if there is none.

    A folder with any file of a set is one, so that :func:`load_set` tells what it lacks.
    """
    if not folder.is_dir():
        raise InvalidRequestError(f"There is no folder {str(folder)!r}.", remedy="Name a folder.")
    if _is_set(folder):
        return [folder]
    found = sorted(path for path in folder.iterdir() if path.is_dir() and _is_set(path))
    if not found:
        raise InvalidRequestError(
            f"{str(folder)!r} holds no evaluation set: there is no corpus.jsonl in or below it.",
            remedy="See docs/evaluation.md for the layout, or make questions with --generate.",
        )
    return found


def load_set(folder: Path, *, questions: bool = True) -> EvaluationSet:
    """Read and check a set. ``questions`` False reads the corpus only.

    Raises InvalidRequestError that names every problem (at most 20) with its file and line.
    """
    problems: list[str] = []
    documents = _documents(folder, problems)
    asked = _questions(folder, documents, problems) if questions else ()
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        raise InvalidRequestError(
            "\n".join(problems[:_SHOWN_PROBLEMS]) + (f"\n... and {more} more" if more > 0 else ""),
            remedy="Nothing was started. See docs/evaluation.md for the layout.",
        )
    return EvaluationSet(folder.resolve().name, tuple(documents.by_id.values()), asked)


def _is_set(folder: Path) -> bool:
    return any(paths(folder, name) for name in _FILES)


def _within(question: Question, ids: set[str]) -> bool:
    if question.scope is not None and question.scope not in ids:
        return False
    return not question.judged or any(q in ids for q, grade in question.relevance.items() if grade > 0)


def _drawn(given: list[Question], most: int) -> list[Question]:
    if len(given) <= most:
        return given
    lots = random.Random(0)  # noqa: S311 - which questions, no secret
    edges = [i * len(given) // most for i in range(most + 1)]
    return [given[lots.randrange(start, end)] for start, end in pairwise(edges)]


def _restricted(q: Question, ids: set[str]) -> Question:
    relevance = {d: grade for d, grade in q.relevance.items() if d in ids}
    spans = {d: found for d, found in q.spans.items() if d in ids}
    return replace(q, relevance=relevance, spans=spans)


@dataclass(frozen=True, slots=True)
class _Corpus:
    """Documents by id, and whether these are all."""

    by_id: Mapping[str, SetDocument]
    whole: bool

    def lacks(self, identity: str) -> bool:
        """Whether there certainly is no such document."""
        return self.whole and identity not in self.by_id


def _documents(folder: Path, problems: list[str]) -> _Corpus:
    found: dict[str, SetDocument] = {}
    file = read(folder, "corpus", problems)
    for row in file.rows:
        identity = row.text("id", required=True)
        if identity in found:
            row.wrong(f"there is a document {identity!r} already.")
        name = row.text("file")
        path = folder / name if name else None
        if path is not None and not path.is_file():
            row.wrong(f"there is no file {str(path)!r}.")
        if path is None and not isinstance(row.values.get("text"), str):
            row.wrong("there is neither text nor file.")
        found[identity] = SetDocument(identity, row.text("text"), row.text("title"), row.text("lang"), path)
    if not found and not problems:
        problems.append(f"{folder}: the corpus is empty.")
    return _Corpus(found, file.whole)


def _questions(folder: Path, documents: _Corpus, problems: list[str]) -> tuple[Question, ...]:
    rows: dict[str, Row] = {}
    file = read(folder, "queries", problems)
    for row in file.rows:
        identity = row.text("id", required=True)
        if identity in rows:
            row.wrong(f"there is a query {identity!r} already.")
        rows[identity] = row
    relevance: dict[str, dict[str, int]] = {identity: {} for identity in rows}
    spans: dict[str, dict[str, tuple[Span, ...]]] = {identity: {} for identity in rows}
    for row in read(folder, "qrels", problems).rows:
        query, document = row.text("query_id", required=True), row.text("doc_id", required=True)
        if file.whole and query not in rows:
            row.wrong(f"there is no query {query!r}.")
        elif documents.lacks(document):
            row.wrong(f"there is no document {document!r}.")
        elif query not in rows or document not in documents.by_id:
            continue  # it may stand where a file could not be read
        elif document in relevance[query]:
            row.wrong(f"query {query!r} and document {document!r} are judged already.")
        else:
            relevance[query][document] = _grade(row)
            found = _spans(row, documents.by_id[document])
            if found:
                spans[query][document] = found
    if not rows and not problems:
        problems.append(f"{folder}: there are no queries.")
    return tuple(_question(row, documents, relevance[key], spans[key]) for key, row in rows.items())


def _question(
    row: Row,
    documents: _Corpus,
    relevance: Mapping[str, int],
    spans: Mapping[str, tuple[Span, ...]],
) -> Question:
    scope = row.text("scope_doc") or None
    if scope is not None and documents.lacks(scope):
        row.wrong(f"scope_doc {short(scope)} is no document.")
    answers = row.values.get("answers") or []
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        row.wrong(f"answers is {short(answers)}; it must be a list of texts.")
        answers = []
    answerable = row.values.get("answerable", True)
    if not isinstance(answerable, bool):
        row.wrong(f"answerable is {short(answerable)}; it must be true or false.")
    return Question(
        row.text("id"),
        row.text("text", required=True),
        row.text("question"),
        tuple(answers),
        answerable is True,
        scope,
        row.text("lang"),
        row.text("type"),
        relevance,
        spans,
    )


def _grade(row: Row) -> int:
    grade = row.values.get("relevance")
    if not isinstance(grade, int) or isinstance(grade, bool):
        row.wrong(f"relevance is {short(grade)}; it must be a whole number.")
        return 0
    if grade > _MOST_RELEVANT:
        row.wrong(f"relevance is {short(grade)}; it must be at most {_MOST_RELEVANT:,}.")
    return grade


def _spans(row: Row, document: SetDocument) -> tuple[Span, ...]:
    given = row.values.get("spans") or []
    if not isinstance(given, list):
        row.wrong(f"spans is {short(given)}; it must be a list of [start, end).")
        return ()
    if given and document.file is not None:
        row.wrong(f"spans need the text of {document.id!r} in the corpus, which names a file for it.")
        return ()
    found = []
    for span in given:
        if not (isinstance(span, list) and len(span) == 2 and all(type(x) is int for x in span)):
            row.wrong(f"the span {short(span)} is not [start, end).")
        elif not 0 <= span[0] < span[1] <= len(document.text):
            row.wrong(
                f"the span {span} is out of bounds: {document.id!r} has {len(document.text)} characters."
            )
        else:
            found.append((span[0], span[1]))
    return tuple(joined(found))
