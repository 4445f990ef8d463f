"""Longleaf behind the same two methods as the other tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.peers.systems import Document, Piece

MOST = 100  # hits, as the other tools' pieces
LATE_ALONE: Mapping[str, float] = {"passage_late": 1.0, "unit_late": 1.0}  # one pass over the text


class Longleaf:
    """The defaults, or other options of the embedder."""

    def __init__(self, model: Path, work: Path, **embedder: Any) -> None:
        from api.build import open_longleaf
        from api.settings import load_settings

        options = {"model": str(model), **embedder}
        flags = {f"embedder.{name}": value for name, value in options.items()}
        self._closing = ExitStack()
        settings = load_settings({**flags, "data": work / "longleaf", "language_model.spec": "none"})
        self._longleaf = self._closing.enter_context(open_longleaf(settings))
        self._longleaf.embedder.embed_queries(["warm"])  # the others load their weights here, too
        self._longleaf.open_stores()

    def take(self, documents: Sequence[Document]) -> None:
        """Ingest."""
        from pipeline.ingest import Source

        sources = [Source(d.id, text=d.text, title=d.title or None) for d in documents]
        for result in self._longleaf.ingestor.ingest(sources):
            if result.status == "failed":
                raise SystemExit(f"{result.document_id}: {result.message}")

    def find(self, question: str, scope: str | None, limit: int) -> list[Piece]:
        """Search for passages; those that repeat one follow it."""
        from pipeline.types import Query

        hits = self._longleaf.retriever.search(Query(question, top_k=limit, document_id=scope)).hits
        pieces = [Piece(at.document_id, at.start, at.end) for hit in hits for at in hit.locations]
        return pieces[:limit]

    def within(self, question: str, scope: str | None, budget_tokens: int) -> list[Piece]:
        """Search with the budget told, and with no other bound that could leave some of it unused."""
        from pipeline.evaluation.copies import repeated
        from pipeline.types import Query

        query = Query(question, top_k=MOST, document_id=scope, budget_tokens=budget_tokens)
        pieces = []
        for hit in self._longleaf.retriever.search(query).hits:
            pieces.append(Piece(hit.document_id, hit.start, hit.end))
            pieces += [Piece(at.document_id, at.start, at.end, repeats=True) for at in repeated(hit)]
        return pieces

    def close(self) -> None:
        """Let go."""
        self._closing.close()


def late_alone(model: Path, work: Path) -> Longleaf:
    """With late chunking alone: units and passages from one pass."""
    return Longleaf(model, work, **LATE_ALONE)
