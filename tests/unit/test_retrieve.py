"""Retrieval over a small collection: exact index, hashing embedder, the real ledger."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workplace import Source, Workplace, workplace

from pipeline.errors import FilterError, InvalidRequestError, LimitExceededError, NotFoundError
from pipeline.evaluation.runner import documents_of
from pipeline.fuse import Ranked
from pipeline.layers import index_name, point_id
from pipeline.records import VersionKey
from pipeline.regularize import Candidate, Regularization, regularized
from pipeline.retrieve import RetrievalConfig, Retriever, query_parts
from pipeline.types import Query

PASSAGES = index_name("default", "default", "passages")
TOPICS = ["harbour", "orchard", "telescope", "glacier", "printing press", "lighthouse", "vineyard", "canal"]


def text(topic: str) -> str:
    return "\n\n".join(
        f"Paragraph {n} of the report on the {topic} describes its costs in year {1900 + n}. "
        f"The {topic} was inspected by committee {n * 7 % 11}, which found {n} faults in the {topic}."
        for n in range(12)
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with workplace(tmp_path_factory.mktemp("data")) as opened:
        results = opened.ingest(
            *(
                Source(
                    name=t,
                    text=text(t),
                    title=t.title(),
                    metadata={"rank": n, "kind": "old" if n % 2 else "new"},
                )
                for n, t in enumerate(TOPICS)
            )
        )
        assert {r.status for r in results} == {"created"}
        yield opened


@pytest.fixture(scope="module")
def retriever(place: Workplace) -> Retriever:
    return Retriever(place.embedder, place.indexer, place.ledger, place.analyser)


def test_hits_are_exact_spans_best_first(place: Workplace, retriever: Retriever) -> None:
    found = retriever.search(Query("Which faults did the committee find in the glacier?", top_k=5))
    assert found.hits[0].document_id == "glacier"
    assert [h.score for h in found.hits] == sorted((h.score for h in found.hits), reverse=True)
    for hit in found.hits:
        document = place.ledger.load("default", "default", hit.document_id)
        assert document.text[hit.start : hit.end] == hit.text
        assert hit.title == hit.document_id.title()
        assert {"unit", "passage", "lexical", "document_lexical"} <= set(hit.scores)
    assert set(found.timings) == {"embed", "search", "fuse", "load"}


def test_scores_rise_towards_those_of_what_resembles_them(place: Workplace) -> None:
    """Among the best so many, never down, and not within one document; the parts say by how much."""
    parts = place.embedder, place.indexer, place.ledger, place.analyser
    query = Query("Which faults did the committee find in the glacier?", top_k=50)

    def ranked(query: Query, **settings: float) -> dict[tuple[str, int], Ranked]:
        found = Retriever(*parts, RetrievalConfig(**settings)).find(query).ranked
        assert [r.score for r in found] == sorted((r.score for r in found), reverse=True)
        return {(r.document_id, r.ordinal): r for r in found}

    plain, risen = ranked(query, regularization=0), ranked(query, regularization_candidates=40)
    assert plain.keys() == risen.keys()
    best = [r for r in plain.values()][:40]
    ids = [point_id(VersionKey("default", "default", *r[:2]), "passages", r.ordinal) for r in best]
    vectors = [place.indexer.vectors(PASSAGES, [id_])[id_] for id_ in ids]
    assert all(len(v.sparse.indices) for v in vectors)
    sizes = [place.ledger.document("default", "default", r.document_id).passages for r in best]
    expected = regularized(
        [Candidate(r.score, v, r.document_id, n) for r, v, n in zip(best, vectors, sizes, strict=True)],
        Regularization(),
    )
    assert max(expected - [r.score for r in best]) > 0
    for before, score in zip(best, expected, strict=True):
        after = risen[before.document_id, before.ordinal]
        assert after.score == score
        assert after.scores.get("regularization", 0) == score - before.score
    assert all(risen[at] == r for at, r in list(plain.items())[40:])
    scoped = Query(query.text, document_id="canal", top_k=50)
    assert ranked(scoped, regularization=0) == ranked(scoped)


def test_points_that_vanish_during_a_search_keep_their_scores(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = place.embedder, place.indexer, place.ledger, place.analyser
    query = Query("Which faults did the committee find in the glacier?", top_k=50)
    plain = Retriever(*parts, RetrievalConfig(regularization=0)).find(query).ranked
    whole = place.indexer.vectors
    left = plain[1]
    left_id = point_id(VersionKey("default", "default", *left[:2]), "passages", left.ordinal)

    def without(name: str, ids: list[str]) -> dict[str, Any]:
        return whole(name, [i for i in ids if i != left_id])

    monkeypatch.setattr(place.indexer, "vectors", without)
    assert left in Retriever(*parts).find(query).ranked
    monkeypatch.setattr(place.indexer, "vectors", lambda name, ids: {})
    assert Retriever(*parts).find(query).ranked == plain


def test_long_documents_are_discounted_by_how_many_passages_they_have(place: Workplace) -> None:
    parts = place.embedder, place.indexer, place.ledger, place.analyser
    query = Query("Which faults did the committee find in the glacier?", top_k=50)

    def found(discount: float) -> list[Ranked]:
        config = RetrievalConfig(length_discount=discount, regularization=0)
        return list(Retriever(*parts, config).find(query).ranked)

    plain = {(r.document_id, r.ordinal): r.scores["document_unit"] for r in found(0)}
    for r in found(0.1):
        passages = place.ledger.document("default", "default", r.document_id).passages
        assert passages > 1
        expected = plain[r.document_id, r.ordinal] - 0.1 * math.log(passages)
        assert r.scores["document_unit"] == pytest.approx(expected)


def test_scope_and_filter(retriever: Retriever) -> None:
    scoped = retriever.search(Query("glacier faults", document_id="canal", top_k=20))
    assert {h.document_id for h in scoped.hits} == {"canal"}
    filtered = retriever.search(
        Query("committee faults", filter={"kind": "old", "rank": {"gte": 3}}, top_k=50)
    )
    assert {h.document_id for h in filtered.hits} == {TOPICS[i] for i in (3, 5, 7)}


def test_hits_of_one_search_do_not_overlap(retriever: Retriever) -> None:
    hits = retriever.search(Query("committee inspected the vineyard", top_k=50)).hits
    for document_id in {h.document_id for h in hits}:
        spans = sorted((h.start, h.end) for h in hits if h.document_id == document_id)
        assert all(a[1] <= b[0] for a, b in pairwise(spans))


@pytest.mark.parametrize("budget", [1, 20, 50, 100, 333])
def test_budget_is_kept_and_used(place: Workplace, retriever: Retriever, budget: int) -> None:
    hits = retriever.search(
        Query("Which faults did the committee find?", top_k=100, budget_tokens=budget)
    ).hits
    tokens = sum(len(place.embedder.encode(h.text)) for h in hits)
    assert tokens <= budget
    assert tokens == sum(h.tokens for h in hits)
    assert tokens >= min(budget, 0.6 * budget)
    for hit in hits:
        assert place.ledger.load("default", "default", hit.document_id).text[hit.start : hit.end] == hit.text


def test_top_k_is_kept(retriever: Retriever) -> None:
    assert len(retriever.search(Query("committee", top_k=1)).hits) == 1
    assert len(retriever.search(Query("committee", top_k=7)).hits) == 7


def test_neighbours_in_rank_are_joined_only_up_to_the_limit(tmp_path: Path) -> None:
    with workplace(tmp_path) as place:
        place.ingest(Source(name="log", text=text("telescope")[:300]))
        parts = place.embedder, place.indexer, place.ledger, place.analyser
        apart = Retriever(*parts, RetrievalConfig(max_merged_tokens=0)).search(Query("telescope")).hits
        joined = Retriever(*parts, RetrievalConfig(max_merged_tokens=200)).search(Query("telescope")).hits
        assert len(apart) == 2
        (whole,) = joined
        assert (whole.start, whole.end) == (min(h.start for h in apart), max(h.end for h in apart))
        assert whole.text == place.ledger.load("default", "default", "log").text[whole.start : whole.end]
        assert whole.tokens == sum(h.tokens for h in apart)


def test_the_same_clause_elsewhere_is_named_beside_the_hit(tmp_path: Path) -> None:
    clause = "Either party may end this lease by giving ninety days of written notice to the other party."
    other = clause.replace("ninety", "thirty")
    with workplace(tmp_path) as place:
        place.ingest(
            *(Source(name=name, text=clause, title=name.title()) for name in ("ash", "birch", "cedar")),
            Source(name="dogwood", text=other),
            Source(name="elm", text="The canal was inspected, and nothing was found."),
        )
        retriever = Retriever(place.embedder, place.indexer, place.ledger, place.analyser)
        found = retriever.search(Query("How many days of notice end the lease?", top_k=5)).hits
        by_document = {hit.document_id: hit for hit in found}
        [shown] = set(by_document) & {"ash", "birch", "cedar"}
        also = by_document[shown].also
        assert {at.document_id for at in also} == {"ash", "birch", "cedar"} - {shown}
        assert "dogwood" in by_document, "another number is no repetition"
        assert by_document["dogwood"].also == by_document["elm"].also == ()
        for at in also:
            assert place.ledger.load("default", "default", at.document_id).text[at.start : at.end] == clause
            assert (at.title, at.version) == (at.document_id.title(), 1)
            assert at.score <= by_document[shown].score
        assert documents_of(found)[:3] == [shown, *(at.document_id for at in also)]
        budget = by_document[shown].tokens  # no room for anything else, and a copy needs none
        [alone] = retriever.search(Query("How many days of notice end the lease?", budget_tokens=budget)).hits
        assert {at.document_id for at in alone.also} == {at.document_id for at in also}


def test_the_copies_of_joined_passages_are_joined(tmp_path: Path) -> None:
    clause = text("notice")
    with workplace(tmp_path) as place:
        place.ingest(*(Source(name=name, text=f"{clause}\n\nSigned.") for name in ("ash", "birch")))
        config = RetrievalConfig(max_merged_tokens=100_000)
        retriever = Retriever(place.embedder, place.indexer, place.ledger, place.analyser, config)
        found = retriever.search(Query("What did the committee find about the notice?", top_k=50)).hits
        assert len(found) < place.points()["passages"] / 2, "several were joined"
        for hit in found:
            places = sorted(hit.also, key=lambda at: at.start)
            assert {at.document_id for at in places} <= {"ash", "birch"} - {hit.document_id}
            assert all(clause[a.end : b.start].strip() for a, b in pairwise(places)), "none touches the next"
        longest = max(found, key=lambda hit: len(hit.text))
        assert [(at.start, at.end) for at in longest.also] == [(longest.start, longest.end)]


def test_a_replaced_document_is_found_in_its_new_version_only(tmp_path: Path) -> None:
    with workplace(tmp_path) as place:
        place.ingest(Source(name="memo", text="The budget for sailcloth is forty crowns."))
        place.ingest(Source(name="memo", text="The budget for sailcloth is ninety crowns."))
        retriever = Retriever(place.embedder, place.indexer, place.ledger, place.analyser)
        hits = retriever.search(Query("budget for sailcloth")).hits
        assert [(h.version, h.text) for h in hits] == [(2, "The budget for sailcloth is ninety crowns.")]


@pytest.mark.parametrize(
    ("query", "error", "names"),
    [
        (Query("  \n"), InvalidRequestError, "empty"),
        (Query("x" * 100_000), LimitExceededError, "100,000"),
        (Query("x", top_k=0), InvalidRequestError, "top_k is 0"),
        (Query("x", top_k=100_000), InvalidRequestError, "100000"),
        (Query("x", budget_tokens=0), InvalidRequestError, "budget_tokens is 0"),
        (Query("x", collection="nowhere"), NotFoundError, "nowhere"),
        (Query("x", document_id="nothing"), NotFoundError, "nothing"),
        (Query("x", filter={"knd": "old"}), FilterError, "knd"),
    ],
)
def test_bad_queries_say_what_is_wrong(
    retriever: Retriever, query: Query, error: type[Exception], names: str
) -> None:
    with pytest.raises(error, match=names) as caught:
        retriever.search(query)
    assert getattr(caught.value, "remedy", "")


@given(
    st.lists(
        st.sampled_from(["Why?", "The ship sailed at noon.", "No.", "It was late, and dark."]), min_size=1
    )
)
def test_parts_keep_every_word(pieces: list[str]) -> None:
    question = " ".join(pieces)
    parts = query_parts(question, 4)
    assert 1 <= len(parts) <= 4
    assert " ".join(parts).split() == question.split()
