"""A collection leaves one index and arrives in another as it was; a changed file is noticed first."""

from __future__ import annotations

import json

import pytest
from workplace import text, workplace

from pipeline.errors import (
    ConflictError,
    DamagedFileError,
    IndexingError,
    InvalidRequestError,
    NotFoundError,
    StorageError,
)
from pipeline.filters import EVERYTHING
from pipeline.importing import import_collection
from pipeline.ingest import Source
from pipeline.layers import LAYERS, index_name
from pipeline.moving import export_collection
from pipeline.reconcile import verify
from pipeline.retrieve import Retriever
from pipeline.types import Query

LONG = "\n\n".join(f"Paragraph {i} speaks of otters and of river{i}. It goes on." for i in range(20))


@pytest.fixture
def exported(tmp_path):
    file = tmp_path / "heron.md"
    file.write_text("# Herons\n\nA heron stands in the water.")
    with workplace(tmp_path / "from") as place:
        place.ingest(
            text("日本/a", LONG), text("b", LONG + " End.", metadata={"k": [1, "x"]}), Source("heron", file)
        )
        place.ingest(text("b", LONG + " Another end.", metadata={"k": [1, "x"]}))
        done = export_collection(place.ledger, place.indexer, tmp_path / "out")
        assert (done.documents, done.points) == (3, sum(place.points().values()))
        yield place


def hits(place, collection="default"):
    retriever = Retriever(place.embedder, place.indexer, place.ledger, place.analyser)
    found = [
        retriever.search(Query(question, collection=collection, filter=where)).hits
        for question, where in (("river7 otters", None), ("heron", None), ("river3", {"k": "x"}))
    ]
    return [[(h.document_id, h.start, h.text, round(h.score, 4), h.metadata) for h in each] for each in found]


@pytest.mark.parametrize("indexer", ["exact", "qdrant_edge", "faiss"])
def test_it_arrives_as_it_was(exported, tmp_path, indexer):
    with workplace(tmp_path / "to", indexer=indexer) as place:
        done = import_collection(place.ledger, place.indexer, tmp_path / "out", collection="other")
        assert (done.documents, done.unchanged) == (3, 0)
        assert hits(place, "other") == hits(exported)
        assert place.points("other") == exported.points()
        assert place.ledger.original("default", "other", "heron").read_bytes().startswith(b"# Herons")
        assert all(state.clean for state in verify(place.ledger, place.indexer))
        again = import_collection(place.ledger, place.indexer, tmp_path / "out", collection="other")
        assert again.unchanged == 3
        assert place.points("other") == exported.points()
        assert [r.status for r in place.ingest(text("日本/a", LONG), collection="other")] == ["unchanged"]


def test_another_index_of_the_same_installation(exported, tmp_path):
    """The documents are there, the index is empty: only points move."""
    before = hits(exported)
    for layer in LAYERS:
        exported.indexer.delete(index_name("default", "default", layer), EVERYTHING)
    done = import_collection(exported.ledger, exported.indexer, tmp_path / "out")
    assert (done.documents, done.unchanged) == (3, 3)
    assert hits(exported) == before
    assert exported.ledger.document("default", "default", "b").version == 2


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_every_file_is_checked_before_anything_is_stored(exported, tmp_path, damage):
    files = [p for p in sorted((tmp_path / "out").rglob("*")) if p.is_file() and p.name != "manifest.json"]
    assert {p.suffix for p in files} >= {".jsonl", ".safetensors"}
    with workplace(tmp_path / "to") as place:
        for path in files:
            whole = path.read_bytes()
            changed = bytearray(whole)
            changed[len(changed) // 2] ^= 1
            path.unlink() if damage == "missing" else path.write_bytes(changed)
            with pytest.raises(DamagedFileError, match=path.name):
                import_collection(place.ledger, place.indexer, tmp_path / "out")
            path.write_bytes(whole)
        assert place.ledger.collections() == []
        assert place.indexer.names() == []


def test_a_collection_made_otherwise_is_refused(exported, tmp_path):
    with workplace(tmp_path / "to") as place:
        place.ingest(text("z", "Something else entirely, and short."))
        with pytest.raises(ConflictError, match=r"other settings \(lexical\)"):
            import_collection(place.ledger, place.indexer, tmp_path / "out")
        assert place.texts() == {"z": "Something else entirely, and short."}


def test_a_failure_in_the_middle_leaves_nothing(exported, tmp_path, monkeypatch):
    with workplace(tmp_path / "to") as place:
        honest, calls = place.indexer.upsert, []

        def failing(name, points):
            calls.append(name)
            if len(calls) == 3:
                raise StorageError("The disk is gone.")
            honest(name, points)

        with monkeypatch.context() as patch:
            patch.setattr(place.indexer, "upsert", failing)
            with pytest.raises(StorageError, match="gone"):
                import_collection(place.ledger, place.indexer, tmp_path / "out")
        assert place.texts() == {}
        assert sum(place.points().values()) == 0
        assert place.ledger.leftovers() == []
        assert import_collection(place.ledger, place.indexer, tmp_path / "out").documents == 3


def test_bad_input(exported, tmp_path):
    with pytest.raises(InvalidRequestError, match="exists"):
        export_collection(exported.ledger, exported.indexer, tmp_path / "out")
    with pytest.raises(NotFoundError):
        export_collection(exported.ledger, exported.indexer, tmp_path / "new", collection="nothing")
    with pytest.raises(InvalidRequestError, match="holds no exported collection"):
        import_collection(exported.ledger, exported.indexer, tmp_path)
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 99}))
    with pytest.raises(InvalidRequestError, match="format 99"):
        import_collection(exported.ledger, exported.indexer, tmp_path / "out")
    exported.indexer.delete(index_name("default", "default", "units"), EVERYTHING)
    with pytest.raises(IndexingError, match="longleaf repair"):
        export_collection(exported.ledger, exported.indexer, tmp_path / "new")
    assert not (tmp_path / "new").exists()
