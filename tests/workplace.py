"""A small Longleaf without models that can be opened again and again: exact index, hashing embedder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedders import hashing
from pipeline.chunk import ChunkConfig
from pipeline.filters import Equals
from pipeline.ingest import Ingestor, IngestResult, Source
from pipeline.layers import LAYERS, index_name
from pipeline.ledger import Ledger
from pipeline.lexical import Analyser
from pipeline.plugins import load
from pipeline.seams import IndexSearch

CHUNKING = ChunkConfig(passage_tokens=32, unit_tokens=12, unit_min_tokens=4)


@dataclass(frozen=True)
class Workplace:
    """Everything that ingestion needs, on one folder."""

    root: Path
    ledger: Ledger
    indexer: Any
    embedder: Any
    analyser: Analyser
    ingestor: Ingestor

    def ingest(self, *sources: Source, collection: str = "default", **options: Any) -> list[IngestResult]:
        return list(self.ingestor.ingest(sources, collection=collection, **options))

    def texts(self, collection: str = "default") -> dict[str, str]:
        """Id and text of every document, as readers see them."""
        return {
            record.id: self.ledger.load("default", collection, record.id).text
            for record in self.ledger.documents("default", collection, limit=1000)
        }

    def findable(self, word: str, layer: str = "documents", collection: str = "default") -> list[str]:
        """Documents found by a word, once for each point, those of versions that are not live left out."""
        name = index_name("default", collection, layer)
        search = IndexSearch(limit=1000, sparse=self.analyser.query_vector(word))
        payloads = [match.payload for match in self.indexer.search(name, [search])[0] if match.score > 0]
        live = self.ledger.live_versions("default", collection, [p["_document_id"] for p in payloads])
        versions = {(document, found.version) for document, found in live.items()}
        current = [p["_document_id"] for p in payloads if (p["_document_id"], p["_version"]) in versions]
        return sorted(current)

    def points(self, collection: str = "default", document_id: str | None = None) -> dict[str, int]:
        where = None if document_id is None else Equals("_document_id", document_id)
        return {
            layer: self.indexer.count(index_name("default", collection, layer), where) for layer in LAYERS
        }

    def stored_folders(self) -> set[str]:
        return {str(path.relative_to(self.root / "documents")) for path in self.root.glob("documents/*/*/*")}


@contextmanager
def workplace(
    root: Path,
    *,
    wrap: Any = None,
    embedder: Any = None,
    indexer: Any = "exact",
    analyser: Analyser | None = None,
    url: str | None = None,
) -> Iterator[Workplace]:
    """Open the folder; ``wrap(ledger, indexer)`` may put something around both."""
    ledger: Any = Ledger(root, url=url)
    indexer = load("indexers", indexer, path=root / "index")
    if wrap is not None:
        ledger, indexer = wrap(ledger, indexer)
    embedder = embedder or hashing.build(hashing.TINY)
    analyser = analyser or Analyser()
    try:
        yield Workplace(
            root,
            ledger,
            indexer,
            embedder,
            analyser,
            Ingestor(ledger, indexer, embedder, analyser, CHUNKING),
        )
    finally:
        indexer.close()
        ledger.close()


def text(name: str, content: str, **options: Any) -> Source:
    return Source(name, text=content, **options)


def files_below(root: Path) -> Iterable[Path]:
    return (path for path in root.rglob("*") if path.is_file())
