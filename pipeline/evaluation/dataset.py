"""Sets in the uniform layout: documents, questions, and which document (and where in it) answers them.

A set is a folder with ``corpus``, ``queries`` and ``qrels``, each ``.jsonl`` or ``.jsonl.gz``, one JSON
object a line. Everything is checked before any work starts, and what is wrong is named with file and line.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import InvalidRequestError
from pipeline.measure import Span, joined

_SHOWN_PROBLEMS = 20
_SUFFIXES = (".jsonl", ".jsonl.gz")


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


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """A checked set."""

    name: str
    documents: tuple[SetDocument, ...]
    questions: tuple[Question, ...]

    def sample(self, documents: int | None, questions: int | None) -> EvaluationSet:
        """The first ``documents``, and as many ``questions`` spread evenly over those that they answer.

        Questions whose relevant documents are all cut off are left out, so that what is measured can be
        reached.
        """
        kept = self.documents[:documents]
        ids = {document.id for document in kept}
        asked = [q for q in self.questions if _within(q, ids)]
        if documents is not None and len(kept) < len(self.documents):
            asked = [_restricted(q, ids) for q in asked]
        if questions is not None and len(asked) > questions:
            asked = [asked[i * len(asked) // questions] for i in range(questions)]
        return EvaluationSet(self.name, kept, tuple(asked))


def find_sets(folder: Path) -> list[Path]:
    """The set that ``folder`` is, or those in it, by name. Raises InvalidRequestError if there is none."""
    if not folder.is_dir():
        raise InvalidRequestError(f"There is no folder {str(folder)!r}.", remedy="Name a folder.")
    if _path(folder, "corpus"):
        return [folder]
    found = sorted(path for path in folder.iterdir() if path.is_dir() and _path(path, "corpus"))
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
    return EvaluationSet(folder.resolve().name, tuple(documents.values()), asked)


def _within(question: Question, ids: set[str]) -> bool:
    if question.scope is not None and question.scope not in ids:
        return False
    return not question.judged or any(q in ids for q, grade in question.relevance.items() if grade > 0)


def _restricted(q: Question, ids: set[str]) -> Question:
    relevance = {d: grade for d, grade in q.relevance.items() if d in ids}
    spans = {d: found for d, found in q.spans.items() if d in ids}
    return replace(q, relevance=relevance, spans=spans)


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a file, with ways to ask for its fields that note what is wrong."""

    place: str
    values: Mapping[str, Any]
    problems: list[str]

    def wrong(self, what: str) -> None:
        self.problems.append(f"{self.place}: {what}")

    def text(self, name: str, *, required: bool = False) -> str:
        value = self.values.get(name)
        if value is None and not required:
            return ""
        if not isinstance(value, str) or (required and not value.strip()):
            self.wrong(f"{name} is {_short(value)}; it must be a text{' with words' * required}.")
            return ""
        return value


def _documents(folder: Path, problems: list[str]) -> dict[str, SetDocument]:
    found: dict[str, SetDocument] = {}
    for row in _rows(folder, "corpus", problems):
        identity = row.text("id", required=True)
        if identity in found:
            row.wrong(f"there is a document {identity!r} already.")
        file = row.text("file")
        path = folder / file if file else None
        if path is not None and not path.is_file():
            row.wrong(f"there is no file {str(path)!r}.")
        if path is None and not isinstance(row.values.get("text"), str):
            row.wrong("there is neither text nor file.")
        found[identity] = SetDocument(identity, row.text("text"), row.text("title"), row.text("lang"), path)
    if not found and not problems:
        problems.append(f"{folder}: the corpus is empty.")
    return found


def _questions(
    folder: Path, documents: Mapping[str, SetDocument], problems: list[str]
) -> tuple[Question, ...]:
    rows: dict[str, _Row] = {}
    for row in _rows(folder, "queries", problems):
        identity = row.text("id", required=True)
        if identity in rows:
            row.wrong(f"there is a query {identity!r} already.")
        rows[identity] = row
    relevance: dict[str, dict[str, int]] = {identity: {} for identity in rows}
    spans: dict[str, dict[str, tuple[Span, ...]]] = {identity: {} for identity in rows}
    for row in _rows(folder, "qrels", problems):
        query, document = row.text("query_id", required=True), row.text("doc_id", required=True)
        if query not in rows:
            row.wrong(f"there is no query {query!r}.")
        elif document not in documents:
            row.wrong(f"there is no document {document!r}.")
        elif document in relevance[query]:
            row.wrong(f"query {query!r} and document {document!r} are judged already.")
        else:
            relevance[query][document] = _grade(row)
            found = _spans(row, documents[document])
            if found:
                spans[query][document] = found
    if not rows and not problems:
        problems.append(f"{folder}: there are no queries.")
    return tuple(_question(row, documents, relevance[key], spans[key]) for key, row in rows.items())


def _question(
    row: _Row,
    documents: Mapping[str, SetDocument],
    relevance: Mapping[str, int],
    spans: Mapping[str, tuple[Span, ...]],
) -> Question:
    scope = row.values.get("scope_doc")
    if scope is not None and scope not in documents:
        row.wrong(f"scope_doc {_short(scope)} is no document.")
        scope = None
    answers = row.values.get("answers") or []
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        row.wrong(f"answers is {_short(answers)}; it must be a list of texts.")
        answers = []
    answerable = row.values.get("answerable", True)
    if not isinstance(answerable, bool):
        row.wrong(f"answerable is {_short(answerable)}; it must be true or false.")
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


def _grade(row: _Row) -> int:
    grade = row.values.get("relevance")
    if not isinstance(grade, int) or isinstance(grade, bool):
        row.wrong(f"relevance is {_short(grade)}; it must be a whole number.")
        return 0
    return grade


def _spans(row: _Row, document: SetDocument) -> tuple[Span, ...]:
    given = row.values.get("spans") or []
    if not isinstance(given, list):
        row.wrong(f"spans is {_short(given)}; it must be a list of [start, end).")
        return ()
    found = []
    for span in given:
        if not (isinstance(span, list) and len(span) == 2 and all(type(x) is int for x in span)):
            row.wrong(f"the span {_short(span)} is not [start, end).")
        elif not 0 <= span[0] < span[1] <= len(document.text):
            row.wrong(
                f"the span {span} is out of bounds: {document.id!r} has {len(document.text)} characters."
            )
        else:
            found.append((span[0], span[1]))
    return tuple(joined(found))


def _path(folder: Path, name: str) -> Path | None:
    return next((p for suffix in _SUFFIXES if (p := folder / f"{name}{suffix}").is_file()), None)


def _rows(folder: Path, name: str, problems: list[str]) -> Iterator[_Row]:
    path = _path(folder, name)
    if path is None:
        problems.append(f"{folder / name}.jsonl: there is no such file.")
        return
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    row = _Row(f"{path}:{number}", _parsed(line), problems)
                    if row.values:
                        yield row
                    else:
                        row.wrong("this line is not a JSON object.")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        problems.append(f"{path}:{number + 1}: it cannot be read: {error}.")


def _parsed(line: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
