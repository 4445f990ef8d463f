"""Indexing anew: built beside, switched to in one step, resumable, and nothing of the old is left."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from workplace import CHUNKING, text, workplace

from embedders import hashing
from pipeline.aliases import Aliased
from pipeline.chunk import ChunkConfig
from pipeline.errors import FingerprintMismatchError, NotFoundError, WorkCancelledError
from pipeline.ingest import Ingestor
from pipeline.lexical import Analyser
from pipeline.reconcile import repair, verify
from pipeline.reindex import reindex
from pipeline.retrieve import Retriever
from pipeline.types import Query

LONG = "\n\n".join(f"Paragraph {i} speaks of otters and of river{i}. It goes on." for i in range(20))
SMALLER = ChunkConfig(passage_tokens=24, unit_tokens=8, unit_min_tokens=4)


@pytest.fixture
def place(tmp_path, request):
    def aliased(ledger, indexer):
        return ledger, Aliased(indexer, ledger)

    with workplace(tmp_path, indexer=getattr(request, "param", "exact"), wrap=aliased) as opened:
        opened.ingest(text("a", LONG), text("b", LONG + " End."), text("c", "Short.", metadata={"k": 1}))
        yield opened


def wider() -> hashing.HashingEmbedder:
    return hashing.build(hashing.TINY.model_copy(update={"dim": hashing.TINY.dim * 2}))


def anew(place, embedder=None, chunking=SMALLER, **options):
    return reindex(place.ledger, place.indexer, embedder or wider(), Analyser(), chunking, **options)


def searcher(place, embedder) -> Retriever:
    return Retriever(embedder, place.indexer, place.ledger, place.analyser)


@pytest.mark.parametrize("place", ["exact", "qdrant_edge"], indirect=True)
def test_the_collection_is_what_an_ingestion_with_the_new_parts_would_have_made(place, tmp_path):
    before = set(place.indexer._indexer.names())
    done = anew(place)
    assert (done.documents, done.resumed, done.generation) == (3, 0, 1)
    fresh = Ingestor(place.ledger, place.indexer, wider(), place.analyser, SMALLER)
    list(
        fresh.ingest(
            [text("a", LONG), text("b", LONG + " End."), text("c", "Short.", metadata={"k": 1})],
            collection="fresh",
        )
    )
    mine, theirs = (place.ledger.collection("default", name) for name in ("default", "fresh"))
    assert (mine.fingerprint, mine.chunking) == (theirs.fingerprint, theirs.chunking)
    assert place.points() == place.points("fresh")
    assert place.ledger.totals("default", "default") == place.ledger.totals("default", "fresh")
    for question in ("Which river does paragraph 7 speak of?", "Short"):
        found, expected = (
            searcher(place, wider()).search(Query(question, collection=name)).hits
            for name in ("default", "fresh")
        )
        assert [(h.document_id, h.start, h.text) for h in found] == [
            (h.document_id, h.start, h.text) for h in expected
        ]
    assert searcher(place, wider()).search(Query("Short", filter={"k": 1})).hits[0].document_id == "c"
    with pytest.raises(FingerprintMismatchError):
        searcher(place, place.embedder).search(Query("otters"))
    assert not before & set(place.indexer._indexer.names())
    assert all(state.clean for state in verify(place.ledger, place.indexer))
    assert anew(place, place.embedder, CHUNKING).generation == 2
    assert searcher(place, place.embedder).search(Query("river7")).hits


def test_readers_see_the_old_one_until_the_switch(place):
    """Searches of another thread go on all the time; each is answered from one generation or told so."""
    retriever, failures, answered = searcher(place, place.embedder), [], 0
    ended = threading.Event()

    def read() -> None:
        nonlocal answered
        while not ended.is_set():
            try:
                assert retriever.search(Query("river7 otters")).hits
                answered += 1
            except FingerprintMismatchError:
                return  # switched
            except BaseException as error:
                failures.append(error)
                return

    thread = threading.Thread(target=read)
    thread.start()
    anew(place)
    thread.join(30)
    ended.set()
    assert failures == []
    assert answered


def test_interrupted_work_is_resumed_and_never_seen(place):
    seen = []

    def stop() -> bool:
        return sum(p.stage == "done" for p in seen) >= 2

    with pytest.raises(WorkCancelledError):
        anew(place, progress=seen.append, cancelled=stop)
    assert searcher(place, place.embedder).search(Query("river7")).hits
    assert place.ledger.collection("default", "default").settings["building"] == 1
    place.ingestor.delete("default", "default", "a")
    done = anew(place)
    assert (done.documents, done.resumed, done.generation) == (2, 1, 1)
    assert place.ledger.collection("default", "default").settings == {"generation": 1}
    assert {h.document_id for h in searcher(place, wider()).search(Query("river7 otters")).hits} == {"b"}
    assert all(state.clean for state in verify(place.ledger, place.indexer))


def test_what_was_half_built_is_dropped_by_repair_and_with_the_collection(place):
    seen = []
    with pytest.raises(WorkCancelledError):
        anew(place, progress=seen.append, cancelled=lambda: any(p.stage == "done" for p in seen))
    assert any("@" in name for name in place.indexer.names())
    repair(place.ledger, place.indexer, place.embedder, place.analyser, CHUNKING)
    assert not any("@" in name for name in place.indexer.names())
    anew(place)
    other = Ingestor(place.ledger, place.indexer, wider(), place.analyser, SMALLER)
    other.drop("default", "default")
    assert place.indexer._indexer.names() == []
    with pytest.raises(NotFoundError):
        anew(place)


def test_another_setting_begins_again(place):
    seen = []
    with pytest.raises(WorkCancelledError):
        anew(place, progress=seen.append, cancelled=lambda: any(p.stage == "done" for p in seen))
    again = replace(SMALLER, passage_tokens=40)
    done = anew(place, chunking=again)
    assert done.documents == 3
    assert all(state.clean for state in verify(place.ledger, place.indexer))
    assert place.ledger.collection("default", "default").chunking["passage_tokens"] == 40
