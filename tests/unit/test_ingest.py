"""The write flow: what is stored and found, what is left alone, what fails without harm."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from workplace import CHUNKING, files_below, text, workplace

from embedders import hashing
from pipeline import preparing, stages
from pipeline.chunk import ChunkConfig
from pipeline.errors import (
    EmbeddingError,
    FingerprintMismatchError,
    IndexingError,
    IndexOwnedError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
    WorkCancelledError,
)
from pipeline.ingest import Ingestor, Source
from pipeline.layers import expected_ids, index_name
from pipeline.lexical import Analyser, LexicalConfig
from pipeline.records import VersionKey, VersionRecord

LONG = "\n\n".join(
    f"Paragraph {i} speaks of otters. It has a second sentence about river{i}." for i in range(60)
)


@pytest.fixture
def place(tmp_path):
    with workplace(tmp_path) as opened:
        yield opened


class Counting:
    """An embedder that counts its documents, and may refuse some."""

    def __init__(self, poison: str = "") -> None:
        self._inner = hashing.build(hashing.TINY)
        self._poison = poison
        self.calls: list[list[str]] = []

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def embed_documents(self, documents, progress=None):
        self.calls.append([document.document.title for document in documents])
        for document in documents:
            if self._poison and self._poison in document.document.text:
                raise EmbeddingError(f"{self._poison!r} gives NaN.")
        return self._inner.embed_documents(documents, progress)


def test_a_document_is_stored_and_found_on_every_layer(place):
    (result,) = place.ingest(text("a.txt", LONG, metadata={"year": 1900}, title="On otters"))
    assert (result.status, result.document_id, result.version, result.title) == (
        "created",
        "a.txt",
        1,
        "On otters",
    )
    assert result.chars == len(LONG)
    assert result.passages > 5
    assert result.units > result.passages
    assert set(result.seconds) == {"reading", "chunking", "counting", "embedding", "indexing"}
    assert place.points() == {"documents": 1, "passages": result.passages, "units": result.units}
    assert place.texts() == {"a.txt": LONG}
    assert set(place.findable("river17", "passages")) == {"a.txt"}  # its neighbours have it as context
    record = place.ledger.document("default", "default", "a.txt")
    assert (record.tokens, record.passages, record.units) == (result.tokens, result.passages, result.units)
    assert record.metadata == {"year": 1900}
    key = VersionKey("default", "default", "a.txt", 1)
    for layer, count in (("passages", result.passages), ("units", result.units)):
        found = dict(place.indexer.points(index_name("default", "default", layer)))
        assert set(found) == set(expected_ids(key, layer, count))
        for payload in found.values():
            piece = LONG[payload["_start"] : payload["_end"]]
            assert piece.strip() == piece != ""
            assert payload["year"] == 1900
            assert (payload["_document_id"], payload["_version"], payload["_title"]) == (
                "a.txt",
                1,
                "On otters",
            )
            assert 0 < payload["_tokens"] <= CHUNKING.passage_tokens


def test_unchanged_costs_nothing(tmp_path):
    embedder = Counting()
    with workplace(tmp_path, embedder=embedder) as place:
        source = text("a", "Some words here.", metadata={"k": "v"})
        place.ingest(source)
        before = {
            path: path.stat().st_mtime_ns for path in files_below(tmp_path) if "ingest.lock" not in path.name
        }
        (again,) = place.ingest(source)
        assert (again.status, again.version, again.passages) == ("unchanged", 1, 1)
        assert len(embedder.calls) == 1
        assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_hash_is_checked_before_parsing(place, tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    file.write_text("Some words.")
    place.ingest(Source("a.txt", file))
    monkeypatch.setattr("pipeline.sources.read", lambda *_, **__: pytest.fail("it was parsed"))
    assert [r.status for r in place.ingest(Source("a.txt", file))] == ["unchanged"]


@pytest.mark.parametrize(
    "changed",
    [
        text("a", "Other words, badger."),
        text("a", "Some words, otter.", metadata={"k": 2}),
        text("a", "Some words, otter.", title="T"),
    ],
)
def test_a_change_of_text_metadata_or_title_replaces(place, changed):
    place.ingest(text("a", "Some words, otter."), text("b", "Untouched heron."))
    (result,) = place.ingest(changed)
    assert (result.status, result.version) == ("replaced", 2)
    assert place.texts() == {"a": changed.text, "b": "Untouched heron."}
    assert place.findable("words") == ["a"]
    assert place.points(document_id="a")["documents"] == 1
    assert place.ledger.leftovers() == []
    assert len(place.stored_folders()) == 2


def test_the_old_version_is_found_until_the_new_one_is(tmp_path):
    """Readers look between any two steps of a replacement and always see exactly one version."""
    seen: list[list[str]] = []

    class Watched:
        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            member = getattr(self._inner, name)
            if name not in ("upsert", "delete", "flush", "publish", "retire", "forget", "stage"):
                return member

            def call(*args, **kwargs):
                look()
                result = member(*args, **kwargs)
                look()
                return result

            return call

    def look():
        if place is not None:
            seen.append(place.findable("words"))

    place = None
    with workplace(tmp_path, wrap=lambda ledger, indexer: (Watched(ledger), Watched(indexer))) as opened:
        opened.ingest(text("a", "Some words, otter."))
        place = opened
        opened.ingest(text("a", "Other words, badger."))
        place = None
    assert len(seen) > 10
    assert all(found == ["a"] for found in seen), seen


def test_one_bad_file_stops_nobody(place, tmp_path):
    good, empty, rubbish = tmp_path / "good.txt", tmp_path / "empty.txt", tmp_path / "rubbish.pdf"
    good.write_text("Good words.")
    empty.touch()
    rubbish.write_bytes(np.random.default_rng(0).bytes(3000))
    results = place.ingest(
        text("first", "First words."),
        Source("empty.txt", empty),
        Source("rubbish.pdf", rubbish),
        Source("missing.txt", tmp_path / "missing.txt"),
        Source("good.txt", good),
        text("reserved", "Words.", metadata={"_secret": 1}),
        text("bad id", "Words.", document_id="a\nb"),
        Source("neither"),
        text("blank", " \n "),
        text("half", "half \ud800 a character"),
        text("last", "Last words."),
    )
    assert [r.status for r in results] == ["created", *["failed"] * 3, "created", *["failed"] * 5, "created"]
    failed = {r.name: r for r in results if r.status == "failed"}
    assert failed["empty.txt"].code == "empty_document"
    assert failed["missing.txt"].code == "not_found"
    assert failed["reserved"].code == "invalid_request"
    assert "_secret" in failed["reserved"].message
    assert all(r.message and r.remedy and r.version == 0 for r in failed.values()), failed
    assert "internal" not in {r.code for r in results}
    assert sorted(place.texts()) == ["first", "good.txt", "last"]
    assert len(place.stored_folders()) == 3
    assert list(tmp_path.glob("spool/*")) == []


def test_a_defect_in_a_stage_fails_that_document_only(place, monkeypatch):
    honest = stages.chunk

    def chunk(document, *rest):
        if "poison" in document.text:
            raise ZeroDivisionError("a defect")
        return honest(document, *rest)

    monkeypatch.setattr(stages, "chunk", chunk)
    results = place.ingest(text("a", "Fine words."), text("b", "poison"), text("c", "Fine too."))
    assert [r.status for r in results] == ["created", "failed", "created"]
    assert (results[1].code, results[1].message) == ("internal", "ZeroDivisionError: a defect")


def test_what_cannot_be_embedded_fails_alone(tmp_path):
    embedder = Counting(poison="badger")
    with workplace(tmp_path, embedder=embedder) as place:
        results = place.ingest(*(text(name, f"{name} words") for name in ("otter", "badger", "heron")))
        assert [r.status for r in results] == ["created", "failed", "created"]
        assert results[1].code == "embedding"
        assert embedder.calls[0] == ["otter", "badger", "heron"]
        assert sorted(place.texts()) == ["heron", "otter"]
        assert place.points()["documents"] == 2


def test_small_documents_share_a_batch_and_large_ones_do_not_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "GROUP_TOKENS", 100)
    embedder = Counting()
    with workplace(tmp_path, embedder=embedder) as place:
        place.ingest(
            *(text(f"{i:02}", "ten words " * 15) for i in range(10)), text("long", LONG), text("z", "End.")
        )
    assert embedder.calls == [["00", "01", "02", "03"], ["04", "05", "06", "07"], ["08", "09", "long"], ["z"]]


def test_the_same_id_twice_in_a_batch_ends_with_the_last(place):
    place.ingest(text("a", "Version zero."))
    results = place.ingest(
        text("a", "Version one."),
        text("a", "Version two."),
        text("b", "Between."),
        text("a", "Version zero."),
    )
    assert [(r.status, r.version) for r in results] == [
        ("replaced", 2),
        ("replaced", 3),
        ("created", 1),
        ("replaced", 4),
    ]
    assert place.texts() == {"a": "Version zero.", "b": "Between."}
    repeated = place.ingest(text("c", "Same."), text("c", "Same."))
    assert [(r.status, r.version) for r in repeated] == [("created", 1), ("unchanged", 1)]
    assert place.points(document_id="c")["documents"] == 1


def test_more_points_than_one_slice(place, monkeypatch):
    monkeypatch.setattr("pipeline.storing.SLICE_POINTS", 7)
    results = place.ingest(text("a", LONG), text("b", LONG + " end"))
    assert place.points() == {
        "documents": 2,
        "passages": sum(r.passages for r in results),
        "units": sum(r.units for r in results),
    }


def test_the_callers_metadata_goes_over_the_files_own(place, tmp_path):
    file = tmp_path / "a.html"
    file.write_text(
        "<html lang=fr><head><title>Own title</title><meta name=author content=Balzac></head>"
        "<body><p>Des mots.</body></html>"
    )
    (result,) = place.ingest(Source("a.html", file, metadata={"author": "Stendhal"}))
    assert result.title == "Own title"
    assert place.ledger.document("default", "default", "a.html").metadata["author"] == "Stendhal"
    assert place.ledger.metadata_fields("default", "default")["author"] == "keyword"
    assert place.ledger.original("default", "default", "a.html").read_bytes() == file.read_bytes()


def test_deleting_removes_rows_points_and_files(place):
    place.ingest(text("a", LONG), text("b", "Heron."))
    place.ingestor.delete("default", "default", "a")
    assert place.points(document_id="a") == {"documents": 0, "passages": 0, "units": 0}
    assert place.points()["documents"] == 1
    assert len(place.stored_folders()) == 1
    with pytest.raises(NotFoundError):
        place.ingestor.delete("default", "default", "a")
    with pytest.raises(InvalidRequestError):
        place.ingestor.delete("default", "default", "")
    (again,) = place.ingest(text("a", "Back again."))
    assert (again.status, again.version) == ("created", 2), "a number is never given out again"


def test_a_failed_deletion_is_hidden_at_once_and_finished_later(place, monkeypatch):
    place.ingest(text("a", "Otter."), text("b", "Heron."))
    with monkeypatch.context() as broken:
        broken.setattr(place.indexer, "delete", lambda *_: None)
        with pytest.raises(IndexingError, match="still has 1 points"):
            place.ingestor.delete("default", "default", "a")
    assert place.texts() == {"b": "Heron."}
    assert place.findable("otter") == []
    assert place.points(document_id="a")["documents"] == 1
    place.ingestor.recover()
    assert place.points(document_id="a")["documents"] == 0
    assert place.ledger.leftovers() == []


def test_collections_and_tenants_are_apart(place):
    place.ingest(text("a", "Otter."), collection="one")
    place.ingest(text("a", "Heron."), collection="two")
    list(place.ingestor.ingest([text("a", "Badger.")], tenant="other", collection="one"))
    assert place.texts("one") == {"a": "Otter."}
    assert place.findable("heron", collection="two") == ["a"]
    assert place.findable("heron", collection="one") == []
    place.ingestor.drop("default", "one")
    assert [(c.tenant, c.name) for c in place.ledger.collections()] == [("default", "two"), ("other", "one")]
    assert index_name("default", "one", "units") not in place.indexer.names()
    assert len(place.stored_folders()) == 2
    with pytest.raises(NotFoundError):
        place.ingestor.drop("default", "one")
    (again,) = place.ingest(text("a", "Otter."), collection="one")
    assert (again.status, again.version) == ("created", 2), "a number is never given out again"


def test_no_collection_is_made_by_failures_or_bad_names(place):
    place.ingest(text("a", " "))
    assert place.ledger.collections() == []
    for options in ({"collection": "a/b"}, {"tenant": "a b", "collection": "c"}):
        with pytest.raises(InvalidRequestError):
            list(place.ingestor.ingest([text("a", "Words.")], **options))


@pytest.mark.parametrize("what", ["embedder", "chunking", "lexical analysis"])
def test_other_settings_are_refused_with_the_remedy(place, what):
    place.ingest(text("a", "Otter."))
    other = Ingestor(
        place.ledger,
        place.indexer,
        hashing.build(hashing.Config(dim=64)) if what == "embedder" else place.embedder,
        Analyser(LexicalConfig(b=0.5)) if what == "lexical analysis" else place.analyser,
        replace(CHUNKING, passage_tokens=64) if what == "chunking" else CHUNKING,
    )
    with pytest.raises(FingerprintMismatchError, match=f"made with the {what}") as caught:
        list(other.ingest([text("b", "Heron.")]))
    assert "longleaf reindex" in caught.value.remedy
    assert place.texts() == {"a": "Otter."}


def test_average_lengths_are_fixed_by_the_first_documents(place):
    place.ingest(text("a", "One short line."))
    lengths = place.ledger.collection("default", "default").lexical["avg_len"]
    assert lengths["passages"] > 15, "a passage is taken to be as long as the chunker makes it"
    assert 100 < lengths["documents"] < 2000, "one odd document does not decide alone"
    place.ingest(text("b", LONG))
    assert place.ledger.collection("default", "default").lexical["avg_len"] == lengths
    place.ingest(*(text(str(i), f"{i} {LONG}") for i in range(60)), collection="many")
    words = place.analyser.length(LONG)
    fixed = place.ledger.collection("default", "many").lexical["avg_len"]["documents"]
    assert fixed == pytest.approx(words, rel=0.15), "many ordinary ones do"


def test_progress_adds_up(place):
    told = []
    results = place.ingest(text("a", LONG), text("b", " "), text("c", "Heron."), progress=told.append)
    assert told[-1].stage == "optimizing"
    assert (told[-1].documents_done, told[-1].documents_total) == (3, 3)
    assert told[-1].tokens_done == sum(r.tokens for r in results)
    assert {p.stage for p in told} == {"reading", "chunking", "embedding", "indexing", "done", "optimizing"}
    done = [p.tokens_done for p in told]
    assert done == sorted(done)
    unsized = []
    list(place.ingestor.ingest(iter([text("d", "Words.")]), progress=unsized.append))
    assert {p.documents_total for p in unsized} == {None}


@pytest.mark.parametrize("stage", ["reading", "chunking", "embedding", "indexing"])
def test_cancelling_at_any_stage_leaves_whole_documents_only(tmp_path, monkeypatch, stage):
    monkeypatch.setattr(preparing, "GROUP_TOKENS", 1)
    with workplace(tmp_path) as place:
        stop = threading.Event()

        def watch(progress):
            if (progress.stage, progress.name) == (stage, "3"):
                stop.set()

        done = []
        with pytest.raises(WorkCancelledError, match="Cancelled while"):
            done.extend(
                result.document_id
                for result in place.ingestor.ingest(
                    [text(str(i), f"Otter number {i}.") for i in range(6)],
                    progress=watch,
                    cancelled=stop.is_set,
                )
            )
        assert len(done) < 6
        assert set(done) <= set(place.texts())
        assert place.points()["documents"] == len(place.texts()) == len(place.stored_folders())
        assert place.ledger.leftovers() == []
        assert list(tmp_path.glob("spool/*")) == []
        assert len(place.ingest(*(text(str(i), f"Otter number {i}.") for i in range(6)))) == 6
        assert len(place.texts()) == 6


def test_a_consumer_that_leaves_stops_the_work(place, monkeypatch):
    monkeypatch.setattr(preparing, "GROUP_TOKENS", 1)
    results = place.ingestor.ingest(text(str(i), f"Otter {i}.") for i in range(1000))
    assert next(results).status == "created"
    results.close()
    assert len(place.texts()) < 10
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_calls_at_the_same_time_take_turns(place):
    errors = []

    def work(worker: int) -> None:
        try:
            for i in range(3):
                place.ingest(
                    text(f"{worker}-{i}", f"Otter {worker} {i}."), text("shared", f"Heron {worker} {i}.")
                )
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    place.ingestor.recover()
    assert len(place.texts()) == 10
    assert place.points()["documents"] == 10
    assert place.findable("heron") == ["shared"]
    assert place.ledger.leftovers() == []
    assert len(place.stored_folders()) == 10


def test_a_second_owner_is_refused(place, tmp_path):
    place.ingest(text("a", "Otter."))
    with workplace(tmp_path / ".." / tmp_path.name) as second:
        with pytest.raises(UnavailableError, match="Another process is ingesting"):
            second.ingest(text("b", "Heron."))
        assert second.texts() == {"a": "Otter."}, "reading is free"


def test_default_settings_work(place):
    ingestor = Ingestor(place.ledger, place.indexer, place.embedder, place.analyser)
    list(ingestor.ingest([text("a", LONG)], collection="defaults"))
    made = place.ledger.collection("default", "defaults").chunking
    assert made["passage_tokens"] == ChunkConfig().passage_tokens


def test_nothing_is_deleted_while_the_index_cannot_be_opened(place, monkeypatch):
    place.ingest(text("a", "Otter."))

    def owned() -> list[str]:
        raise IndexOwnedError("Another process owns the index.", remedy="Stop it.")

    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(place.indexer, "names", owned)
        for remove in (
            lambda: place.ingestor.delete("default", "default", "a"),
            lambda: place.ingestor.drop("default", "default"),
        ):
            with pytest.raises(IndexOwnedError):
                remove()
    assert place.texts() == {"a": "Otter."}


def test_what_was_left_in_a_collection_without_an_index_is_removed(place):
    """Killed after the collection was made and before its indexes were."""
    place.ledger.create_collection("default", "new", fingerprint="f", chunking={}, lexical={})
    values = {"sha256": "0", "digest": "0", "title": "", "media_type": "", "source_name": "", "metadata": {}}
    counts = dict.fromkeys(("bytes", "pages", "chars", "tokens", "passages", "units"), 0)
    place.ledger.stage("default", "new", [VersionRecord("a", **values, **counts, windowing="")])
    place.ingestor.recover()
    assert place.ledger.leftovers() == []
