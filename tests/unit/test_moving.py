"""A collection leaves one index and arrives in another as it was; a changed file is noticed first."""

from __future__ import annotations

import json

import pytest
from workplace import CHUNKING, text, workplace

from embedders import hashing, whitened
from pipeline.aliases import Aliased
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
from pipeline.lexical import Analyser, LexicalConfig
from pipeline.moving import export_collection
from pipeline.reconcile import verify
from pipeline.reindex import reindex
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
        with pytest.raises(ConflictError, match="lengths of its own first documents") as caught:
            import_collection(place.ledger, place.indexer, tmp_path / "out")
        assert "--collection" in caught.value.remedy
        assert place.texts() == {"z": "Something else entirely, and short."}


def test_other_settings_are_named(exported, tmp_path):
    with workplace(tmp_path / "to", analyser=Analyser(LexicalConfig(k1=2.0))) as place:
        place.ingest(text("z", "Something else entirely, and short."))
        with pytest.raises(ConflictError, match=r"other settings \(lexical\)"):
            import_collection(place.ledger, place.indexer, tmp_path / "out")


def test_only_its_owner_reads_an_export(exported, tmp_path):
    found = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in found if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in found if path.is_file()} == {0o600}


def whitening(root):
    return whitened.WhitenedEmbedder(hashing.build(hashing.TINY), 0.5, root / "embedder" / "whitened")


@pytest.fixture
def learnt(tmp_path):
    """A collection whose embedder has learnt, exported."""
    with workplace(tmp_path / "from", embedder=whitening(tmp_path / "from")) as place:
        place.ingest(text("otters", LONG), text("heron", "A heron stands.", metadata={"k": "x"}))
        export_collection(place.ledger, place.indexer, tmp_path / "out")
        yield place


@pytest.mark.parametrize("drawn", [False, True])
def test_what_the_embedder_had_learnt_comes_along(learnt, tmp_path, drawn):
    """Also where a name was drawn and nothing learnt, as by a search."""
    if drawn:
        assert whitening(tmp_path / "to").fingerprint != learnt.embedder.fingerprint
    with workplace(tmp_path / "to") as place:
        import_collection(place.ledger, place.indexer, tmp_path / "out")
    with workplace(tmp_path / "to", embedder=whitening(tmp_path / "to")) as place:
        assert place.embedder.fingerprint == learnt.embedder.fingerprint
        assert hits(place) == hits(learnt)
        import_collection(place.ledger, place.indexer, tmp_path / "out", collection="again")
        assert hits(place, "again") == hits(learnt)


def test_statistics_of_before_there_were_names_come_along(learnt, tmp_path):
    (file,) = (tmp_path / "from").glob("embedder/whitened/statistics-*.npz")
    file.rename(file.with_name("statistics.npz"))
    export_collection(learnt.ledger, learnt.indexer, tmp_path / "older")
    assert [path.name for path in (tmp_path / "older").glob("embedder/whitened/*")] == [file.name]


def test_where_something_else_was_learnt_nothing_is_written(learnt, tmp_path):
    with workplace(tmp_path / "to", embedder=whitening(tmp_path / "to")) as place:
        place.ingest(text("z", "Something else entirely, and short."), collection="mine")
        before = {p: p.read_bytes() for p in (tmp_path / "to" / "embedder").rglob("*") if p.is_file()}
        with pytest.raises(ConflictError, match="had learnt elsewhere") as caught:
            import_collection(place.ledger, place.indexer, tmp_path / "out")
        assert [c.name for c in place.ledger.collections()] == ["mine"]
        assert {p: p.read_bytes() for p in before} == before
    assert "move that folder away" in caught.value.remedy
    (tmp_path / "to" / "embedder" / "whitened").rename(tmp_path / "away")
    with workplace(tmp_path / "to", embedder=whitening(tmp_path / "to")) as place:
        import_collection(place.ledger, place.indexer, tmp_path / "out")
        assert hits(place) == hits(learnt)
        aliased = Aliased(place.indexer, place.ledger)
        reindex(place.ledger, aliased, place.embedder, place.analyser, CHUNKING, collection="mine")
        assert place.ledger.collection("default", "mine").fingerprint == str(learnt.embedder.fingerprint)


def test_a_fingerprint_names_no_path(learnt, tmp_path):
    """It comes with an export, and whoever wrote that may be a stranger."""
    manifest = tmp_path / "out" / "manifest.json"
    content = json.loads(manifest.read_text())
    name = learnt.embedder.fingerprint.options[-1].partition("=")[2]
    (tmp_path / "out" / "embedder" / "whitened" / "statistics-..").mkdir()
    (tmp_path / "out" / "embedder" / "x.npz").write_bytes(b"")
    content["fingerprint"] = content["fingerprint"].replace(name, "../../x")
    manifest.write_text(json.dumps(content))
    with workplace(tmp_path / "to") as place:
        import_collection(place.ledger, place.indexer, tmp_path / "out")
    assert not (tmp_path / "to" / "embedder").exists()


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
    with pytest.raises(InvalidRequestError, match="inside of the data folder"):
        export_collection(exported.ledger, exported.indexer, exported.root / "out")
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
