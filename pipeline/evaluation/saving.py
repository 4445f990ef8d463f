"""Write a set in the uniform layout, as :func:`pipeline.evaluation.dataset.load_set` reads it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConflictError
from pipeline.evaluation.dataset import EvaluationSet, Question
from pipeline.originals import disk_errors


def check_free(folder: Path) -> None:
    """Raises ConflictError where the folder holds a set already."""
    if any(folder.glob("corpus.jsonl*")):
        raise ConflictError(
            f"{str(folder)!r} holds a set already.",
            remedy=f"Measure it with: longleaf eval {shlex.quote(str(folder))}. Or name another folder.",
        )


def save_set(given: EvaluationSet, folder: Path) -> None:
    """Three ``.jsonl`` files. Raises ConflictError where the folder holds a set already."""
    check_free(folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "queries.jsonl", (_query(q) for q in given.questions))
        _write(folder / "qrels.jsonl", (row for q in given.questions for row in _qrels(q)))
        corpus = ({"id": d.id, "title": d.title, "text": d.text, "lang": d.language} for d in given.documents)
        _write(folder / "corpus.jsonl", corpus)


def _query(question: Question) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": question.id,
        "text": question.text,
        "question": question.asked,
        "answers": list(question.answers),
        "type": question.kind,
        "lang": question.language,
        "scope_doc": question.scope,
    }
    kept = {key: value for key, value in row.items() if value or key in ("id", "text")}
    return kept if question.answerable else {**kept, "answerable": False}


def _qrels(question: Question) -> Iterable[dict[str, Any]]:
    for document, grade in question.relevance.items():
        spans = [list(span) for span in question.spans.get(document, ())]
        row: dict[str, Any] = {"query_id": question.id, "doc_id": document, "relevance": grade}
        yield {**row, "spans": spans} if spans else row


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
