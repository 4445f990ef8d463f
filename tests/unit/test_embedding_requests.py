"""Texts of a request as one document: the vectors are those that ingestion would make of its passages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from api.compat.texts import _document, best_similarity, embedded, encoded, reranked, together
from api.sections import ServerSettings
from embedders import hashing, late_chunking
from pipeline.types import Hit

TEXTS = [
    "Berlin is the capital of Germany.",
    "Its more than 3.85 million inhabitants make it big.",
    ("Frost harms. " * 90).strip(),
]


def test_passages_and_units_cover_the_texts_exactly() -> None:
    embedder = hashing.build(hashing.TINY)
    whole = "\n\n".join(TEXTS)
    document = _document(TEXTS, embedder.encode(whole))
    assert [p.text for p in document.passages] == TEXTS
    for chunk in (*document.passages, *document.units):
        assert whole[chunk.start : chunk.end] == chunk.text
        offsets = document.encoding.offsets[chunk.token_start : chunk.token_end]
        assert (offsets[0, 0], offsets[-1, 1]) == (chunk.start, chunk.end)
    assert [u.ordinal for u in document.units] == list(range(len(document.units)))
    parents = [u.parent for u in document.units]
    assert parents == sorted(parents)
    assert set(parents) == {0, 1, 2}


def test_the_hashing_embedder_sees_each_text_alone() -> None:
    embedder = hashing.build(hashing.TINY)
    alone = embedded(TEXTS, encoded(TEXTS, embedder, ServerSettings()), embedder)
    vectors, windowing = together(TEXTS, embedder)
    assert np.allclose(alone, vectors)
    assert windowing == "each chunk alone"
    scores = best_similarity("the capital of Germany", TEXTS, embedder, ServerSettings())
    assert scores.argmax() == 0


@pytest.mark.model
def test_late_chunking_gives_a_pronoun_its_meaning() -> None:
    """The example of the paper: "Its" is Berlin's when the sentences are read together."""
    embedder = late_chunking.build(late_chunking.TINY)
    texts = TEXTS[:2]
    alone = embedded(texts, encoded(texts, embedder, ServerSettings()), embedder)
    vectors, windowing = together(texts, embedder)
    assert "window" in windowing
    query = embedder.embed_queries(["Berlin"]).vectors[0]
    assert vectors[1] @ query > alone[1] @ query + 0.05
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)


def test_scores_of_a_reranker_come_back_in_the_order_of_the_texts() -> None:
    class Longest:
        """Likes long passages."""

        def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
            scored = [replace(hit, score=float(len(hit.text)) - 10) for hit in hits]
            return sorted(scored, key=lambda hit: -hit.score)

    scores = reranked("which", ["short", "a good deal longer", "middle one"], Longest())
    assert scores.argsort().tolist() == [0, 2, 1]
    assert scores[2] == pytest.approx(0.5)
    assert ((scores > 0) & (scores < 1)).all()
