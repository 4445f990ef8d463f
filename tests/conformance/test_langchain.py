"""LangChain's public standard tests on Longleaf's classes, and what they do not ask."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import InMemoryRecordManager, aindex, index
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
from pipeline.errors import EmbeddingError, FilterError, InvalidRequestError
from pipeline.langchain import (
    LongleafCompressor,
    LongleafEmbeddings,
    LongleafRetriever,
    LongleafVectorStore,
)
from pipeline.plugins import load
from pipeline.rerank import Reranked
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


def test_a_score_that_is_none_is_no_score():
    documents = [Document("a", metadata={"score": None}), Document("bb", metadata={"score": "high"})]
    kept = LongleafCompressor(reranker=ByLength()).compress_documents(documents, "?")
    assert [d.page_content for d in kept] == ["bb", "a"]


def test_a_retriever_may_be_reranked(place):
    part = Reranked(Retriever(place.embedder, place.indexer, place.ledger, place.analyser), ByLength)
    found = LongleafRetriever(retriever=part, k=3).invoke("otters")
    assert [len(d.page_content) for d in found] == sorted((len(d.page_content) for d in found), reverse=True)
    with pytest.raises(ValueError, match="Searching"):
        LongleafRetriever(retriever=ByLength())


@pytest.fixture(params=["exact", "qdrant_edge"])
def store(request, tmp_path):
    made = load("indexers", request.param, path=tmp_path / "index")
    yield LongleafVectorStore(LongleafEmbeddings(hashing.build(hashing.TINY)), made)
    made.close()


def some(*texts: str, source: str = "s") -> list[Document]:
    return [Document(text, metadata={"source": source}) for text in texts]


def contents(store: LongleafVectorStore) -> set[str]:
    return {d.page_content for d in store.similarity_search("otter", k=50)}


def test_langchain_s_indexing_adds_skips_and_deletes(store):
    records = InMemoryRecordManager("here")
    records.create_schema()
    keys = {"source_id_key": "source", "key_encoder": "sha256"}

    def run(documents: list[Document], cleanup: str | None, **more: Any) -> tuple[int, ...]:
        done = index(documents, records, store, cleanup=cleanup, **keys, **more)
        return done["num_added"], done["num_updated"], done["num_skipped"], done["num_deleted"]

    otters = some(*(f"otter {i}" for i in range(5)))
    assert run(otters, None, batch_size=2) == (5, 0, 0, 0)
    assert run(otters, None) == (0, 0, 5, 0)
    assert run(otters, None, force_update=True) == (0, 5, 0, 0)
    assert run(some("otter 0", "heron"), "incremental") == (1, 0, 1, 4)
    assert contents(store) == {"otter 0", "heron"}
    assert run(some("a lease", source="t"), "scoped_full") == (1, 0, 0, 0)
    assert run([*some("heron"), *some("a will", source="t")], "full") == (1, 0, 1, 2)
    assert contents(store) == {"heron", "a will"}
    assert run([], "full") == (0, 0, 0, 2)
    assert contents(store) == set()
    with pytest.raises(InvalidRequestError, match="batch_size is 0"):
        store.add_texts(["x"], batch_size=0)


async def _aindexed(store: LongleafVectorStore) -> dict[str, Any]:
    records = InMemoryRecordManager("there")
    return await aindex(some("otter"), records, store, key_encoder="sha256")


def test_langchain_s_indexing_runs_asynchronously(store):
    assert asyncio.run(_aindexed(store))["num_added"] == 1


def test_a_store_finds_what_is_near_and_unlike(store):
    same = [f"otters swim in the river {'far ' * i}" for i in range(4)]
    store.add_texts([*same, "otters and herons"], [{"n": i} for i in range(5)])
    near = store.as_retriever(search_kwargs={"k": 2}).invoke("otters swim in the river")
    assert "otters and herons" not in {d.page_content for d in near}
    options = {"k": 2, "fetch_k": 5, "lambda_mult": 0.2}
    apart = store.as_retriever(search_type="mmr", search_kwargs=options).invoke("otters swim in the river")
    assert [d.page_content for d in apart] == [same[0], "otters and herons"]
    found = store.max_marginal_relevance_search("otters", **options, filter={"n": {"lt": 3}})
    assert {d.metadata["n"] for d in found} <= {0, 1, 2}
    store.delete()
    assert store.max_marginal_relevance_search("otters") == []


def test_a_text_without_a_token_is_refused_before_anything_is_written(store):
    with pytest.raises(EmbeddingError, match="Text 2 of 2 is ''"):
        store.embeddings.embed_documents(["hi", ""])
    store.add_texts(["kept"])
    with pytest.raises(InvalidRequestError, match=r"Text 3 is blank: ' \\n'"):
        store.add_texts(["one", "two", " \n"], batch_size=1)
    with pytest.raises(InvalidRequestError, match="Text 2 is not valid Unicode"):
        store.add_texts(["one", "half \ud800"], batch_size=1)
    assert contents(store) == {"kept"}


@pytest.mark.parametrize("value", [datetime.date(2024, 5, 31), float("nan"), {"x": {1, 2}}])
def test_metadata_that_are_no_json_are_refused(store, value):
    with pytest.raises(InvalidRequestError, match=r"[Mm]etadata"):
        store.add_texts(["one", "two"], [{"year": 1}, {"signed": value}])
    assert contents(store) == set()


def test_a_filter_on_a_field_that_no_text_has_is_refused(store, place):
    part = Retriever(place.embedder, place.indexer, place.ledger, place.analyser)
    store.add_texts(["otter"], [{"year": 2020, "who": {"name": "x"}}])
    for where in ({"yaer": 2020}, {"not": {"yaer": 2020}}):
        with pytest.raises(FilterError, match="'yaer'"):
            store.similarity_search("otter", filter=where)
        with pytest.raises(FilterError, match="'yaer'"):
            LongleafRetriever(retriever=part, filter=where).invoke("otter")
    assert len(store.similarity_search("otter", filter={"who": {"exists": True}, "year": 2020})) == 1
