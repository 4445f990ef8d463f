"""What embedders are measured on: hidden sentences at chosen lengths, and sets in the uniform layout."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.evaluation.protocols import needles

Span = tuple[int, int]
TURNS = "qmsum turns"


@dataclass(frozen=True)
class Question:
    """A query, what is relevant to it, and where in the documents the answer is.

    ``one`` says that a single document is right, so that the first rank is what counts; ``scope`` is the
    only document to look in.
    """

    text: str
    relevance: dict[str, float]
    spans: dict[str, list[Span]] = field(default_factory=dict)
    one: bool = False
    scope: str | None = None


@dataclass(frozen=True)
class Task:
    """Documents by id, and questions about them."""

    name: str
    documents: dict[str, str]
    questions: list[Question]


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """One file of a set."""
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def hidden(haystack: str, encode: Callable[[str], Any], tokens: int, count: int, seed: int = 0) -> list[Task]:
    """Passkeys and needles in ``count`` documents of about ``tokens`` tokens, the right document to be found
    among all of them (Zhu et al. 2024, LongEmbed, section 3)."""
    made = needles(haystack, encode, tokens, candidates=count, seed=seed)
    documents = {document.id: document.text for document in made.documents}
    return [
        Task(
            f"{name} {tokens}",
            documents,
            [
                Question(q.text, {d: float(grade) for d, grade in q.relevance.items()}, one=True)
                for q in made.questions
                if q.id.startswith(name)
            ],
        )
        for name in ("passkey", "needle")
    ]


def from_folder(folder: Path, documents: int, questions: int, language: str | None = None) -> Task:
    """A set on disk; ``question`` instead of ``text`` where QMSum tells the turns that answer it."""
    corpus = [r for r in rows(folder, "corpus") if r["text"].strip() and language in (None, r.get("lang"))]
    texts = {row["id"]: row["text"] for row in corpus[:documents]}
    relevance: dict[str, dict[str, float]] = defaultdict(dict)
    spans: dict[str, dict[str, list[Span]]] = defaultdict(dict)
    for row in rows(folder, "qrels"):
        if row["doc_id"] in texts and row["relevance"] > 0:
            relevance[row["query_id"]][row["doc_id"]] = row["relevance"]
            found = [(int(a), int(b)) for a, b in row.get("spans") or ()]
            if found:
                spans[row["query_id"]][row["doc_id"]] = found
    asked = [q for q in rows(folder, "queries") if q["id"] in relevance]
    asked = thinned(asked, questions)
    made = [Question(q["text"], relevance[q["id"]], spans[q["id"]], scope=q.get("scope_doc")) for q in asked]
    return Task(folder.name + (f" {language}" if language else ""), texts, made)


def meeting_turns(folder: Path, documents: int, questions: int, *, by_answer: bool = False) -> Task:
    """QMSum's questions about one meeting each, whose answers are known turns; ``by_answer`` searches with the
    reference answer instead, as LongEmbed does."""
    task = from_folder(folder, documents, 1_000_000)
    asked = {q["text"]: q.get("question") or "" for q in rows(folder, "queries")}
    made = [
        Question(q.text if by_answer else asked[q.text], q.relevance, q.spans, scope=next(iter(q.relevance)))
        for q in task.questions
        if q.spans and asked[q.text]
    ]
    return Task(f"{TURNS} by answer" if by_answer else TURNS, task.documents, thinned(made, questions))


def thinned(items: Sequence[Any], count: int) -> list[Any]:
    """At most ``count`` of them, evenly spread."""
    return list(items[:: max(1, -(-len(items) // count))])[:count]
