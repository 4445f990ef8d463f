"""LangChain's public standard tests on Longleaf's classes, and what they do not ask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests
from workplace import text, workplace

from embedders import hashing
from pipeline.errors import FilterError, InvalidRequestError
from pipeline.langchain import (
    LongleafCompressor,
    LongleafEmbeddings,
    LongleafRetriever,
    LongleafVectorStore,
)
from pipeline.plugins import load
from pipeline.retrieve import Retriever


class TestEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return LongleafEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"embedder": hashing.build(hashing.TINY)}


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return LongleafEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"embedder": hashing.build(hashing.TINY)}


class StoreTests(VectorStoreIntegrationTests):
    indexer = "exact"

    @pytest.fixture
    def vectorstore(self, tmp_path) -> Iterator[VectorStore]:
        made = load("indexers", self.indexer, path=tmp_path)
        yield LongleafVectorStore(self.get_embeddings(), made)
        made.close()


class TestExactStore(StoreTests):
    indexer = "exact"


class TestEmbeddedStore(StoreTests):
    indexer = "qdrant_edge"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with workplace(tmp_path_factory.mktemp("langchain")) as opened:
        opened.ingest(
            *(
                text(f"d{i}", f"Otters of river{i} swim far. {'Herons stand. ' * i}", metadata={"n": i})
                for i in range(6)
            )
        )
        yield opened


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _place(self, place) -> None:
        self.retriever_part = Retriever(place.embedder, place.indexer, place.ledger, place.analyser)

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return LongleafRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"retriever": self.retriever_part}

    @property
    def retriever_query_example(self) -> str:
        return "Where do otters swim?"


def test_a_retrieved_document_says_where_it_is(place):
    part = Retriever(place.embedder, place.indexer, place.ledger, place.analyser)
    best = LongleafRetriever(retriever=part, k=2, filter={"n": {"gte": 2}}).invoke("river3 otters")[0]
    whole = place.ledger.load("default", "default", best.metadata["document_id"]).text
    assert best.page_content == whole[best.metadata["start"] : best.metadata["end"]]
    assert (best.metadata["document_id"], best.metadata["n"], best.metadata["also"]) == ("d3", 3, [])


def test_a_store_filters_and_scores(tmp_path):
    embeddings = LongleafEmbeddings(hashing.build(hashing.TINY))
    store = LongleafVectorStore.from_texts(
        ["an otter", "a heron", "an otter and a heron"],
        embeddings,
        [{"year": 2020, "who": {"name": "x"}}, {"year": 2021}, {"year": 2022}],
        ids=["a", "b", "c"],
        indexer=load("indexers", "exact"),
    )
    found = store.similarity_search_with_score("an otter", k=3, filter={"year": {"lt": 2022}})
    assert [document.id for document, _ in found] == ["a", "b"]
    vectors = np.array([*embeddings.embed_documents(["an otter"]), embeddings.embed_query("an otter")])
    assert found[0][1] == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)
    assert found[0][0].metadata == {"year": 2020, "who": {"name": "x"}}
    assert store.similarity_search("otter", filter={"who.name": "x"})[0].id == "a"
    with pytest.raises(FilterError):
        store.similarity_search("otter", filter={"year": {"about": 3}})
    with pytest.raises(InvalidRequestError, match="where"):
        store.similarity_search("otter", where={})
    with pytest.raises(InvalidRequestError, match="2 texts have 1 ids"):
        store.add_texts(["x", "y"], ids=["a"])
    store.delete()
    assert store.similarity_search("otter") == []


def test_a_long_text_is_covered_to_its_end():
    embeddings = LongleafEmbeddings(hashing.build(hashing.TINY))
    long = "The otter swims. " * 400
    with_end, without = np.array(embeddings.embed_documents([long + "Zebra zebra zebra. " * 80, long]))
    zebra = np.array(embeddings.embed_query("zebra"))
    assert with_end @ zebra > without @ zebra + 0.05
    assert np.linalg.norm(with_end) == pytest.approx(1, abs=1e-5)


class ByLength:
    """Reranks by length: the longest text is best."""

    def rerank(self, query, hits):
        scored = (replace(hit, score=float(len(hit.text))) for hit in hits)
        return sorted(scored, key=lambda hit: -hit.score)


def test_a_compressor_reorders_and_cuts():
    documents = [Document("a" * n, id=str(n), metadata={"n": n}) for n in (3, 9, 5)]
    kept = LongleafCompressor(reranker=ByLength(), top_n=2).compress_documents(documents, "?")
    assert [(d.id, d.metadata) for d in kept] == [
        ("9", {"n": 9, "relevance_score": 9.0}),
        ("5", {"n": 5, "relevance_score": 5.0}),
    ]
    assert documents[1].metadata == {"n": 9}
