"""Verify sees every difference between ledger, index and files; repair removes those it can."""

from __future__ import annotations

import pytest
from workplace import CHUNKING, text, workplace

from pipeline.chunk import ChunkConfig
from pipeline.filters import EVERYTHING, And, Equals, Range
from pipeline.ingest import Ingestor
from pipeline.layers import LAYERS, index_name, point_id
from pipeline.reconcile import repair, verify
from pipeline.records import VersionKey
from pipeline.types import Point

LONG = "\n\n".join(f"Paragraph {i} speaks of otters and of river{i}. It goes on." for i in range(20))


@pytest.fixture
def place(tmp_path):
    with workplace(tmp_path) as opened:
        opened.ingest(text("a", LONG), text("b", LONG + " End."), text("c", "Short."))
        yield opened


def mend(place, chunking=CHUNKING):
    return repair(place.ledger, place.indexer, place.embedder, place.analyser, chunking)


def snapshot(place):
    return {layer: dict(place.indexer.points(index_name("default", "default", layer))) for layer in LAYERS}


def test_a_sound_place_is_clean_and_left_alone(place):
    (found,) = verify(place.ledger, place.indexer)
    assert found.clean
    assert [(s.missing, s.orphans) for s in found.layers] == [(0, 0)] * 3
    assert sum(s.expected for s in found.layers) == sum(place.points().values())
    (done,) = mend(place)
    assert (done.rebuilt_documents, done.deleted_orphans, done.failed) == (0, 0, {})


@pytest.mark.parametrize("layer", LAYERS)
def test_missing_points_are_embedded_again(place, layer):
    before = snapshot(place)
    of_b = Equals("_document_id", "b")
    where = of_b if layer == "documents" else And((of_b, Range("_ordinal", gte=3, lt=5)))
    place.indexer.delete(index_name("default", "default", layer), where)
    (found,) = verify(place.ledger, place.indexer)
    assert not found.clean
    assert found.incomplete == (VersionKey("default", "default", "b", 1),)
    assert [s.missing for s in found.layers if s.index.endswith(layer)] == [1 if layer == "documents" else 2]
    (done,) = mend(place)
    assert done.rebuilt_documents == 1
    assert snapshot(place) == before
    assert verify(place.ledger, place.indexer)[0].clean


def test_a_lost_index_is_rebuilt(place):
    before = snapshot(place)
    for layer in LAYERS:
        place.indexer.drop(index_name("default", "default", layer))
    assert len(verify(place.ledger, place.indexer)[0].incomplete) == 3
    assert mend(place)[0].rebuilt_documents == 3
    assert snapshot(place) == before
    assert set(place.findable("river7", "passages")) == {"a", "b"}


def test_orphans_are_deleted(place):
    name = index_name("default", "default", "units")
    vector = place.embedder.embed_queries(["x"]).vectors[0]
    gone, old = VersionKey("default", "default", "gone", 1), VersionKey("default", "default", "a", 7)
    beyond = VersionKey("default", "default", "c", 1)
    place.indexer.upsert(
        name,
        [
            Point(
                point_id(key, "units", ordinal),
                {"_document_id": key.document_id, "_version": key.version, "_ordinal": ordinal},
                vector,
            )
            for key, ordinal in ((gone, 0), (old, 3), (beyond, 99))
        ],
    )
    (found,) = verify(place.ledger, place.indexer)
    assert found.orphaned == (old, gone)
    assert found.incomplete == (beyond,)
    assert sum(s.orphans for s in found.layers) == 3
    assert mend(place)[0].deleted_orphans == 3
    assert verify(place.ledger, place.indexer)[0].clean


def test_indexes_of_unknown_collections_are_dropped(place):
    schema = place.indexer.schema(index_name("default", "default", "units"))
    place.indexer.create("default/ghost/units", schema)
    place.indexer.create("somebody else's", schema)
    mend(place)
    assert "default/ghost/units" not in place.indexer.names()
    assert "somebody else's" in place.indexer.names()


def test_changed_files_are_told_and_not_embedded(place, tmp_path):
    for name, damage in (("a", b"{}"), ("b", None)):
        path = place.ledger.originals.folder(VersionKey("default", "default", name, 1)) / "document.json"
        path.write_bytes(damage if damage is not None else path.read_bytes().replace(b"otters", b"badger"))
    (found,) = verify(place.ledger, place.indexer)
    assert [key.document_id for key in found.unreadable] == ["a", "b"]
    assert not found.clean
    assert verify(place.ledger, place.indexer, files=False)[0].clean
    place.indexer.delete(index_name("default", "default", "units"), EVERYTHING)
    (done,) = mend(place)
    assert done.rebuilt_documents == 1
    assert list(done.failed) == ["a", "b"]
    assert "missing or were changed" in done.failed["b"]


def test_a_collection_of_other_settings_is_left_and_the_others_go_on(place, tmp_path):
    """Repair with other settings than "default" was made with: told, untouched, and "late" is mended."""
    other = ChunkConfig(passage_tokens=48, unit_tokens=12, unit_min_tokens=4)
    late = Ingestor(place.ledger, place.indexer, place.embedder, place.analyser, other)
    list(late.ingest([text("x", LONG)], collection="late"))
    for collection in ("default", "late"):
        place.indexer.delete(index_name("default", collection, "units"), EVERYTHING)
    first, second = mend(place, other)
    assert "chunking" in first.refused
    assert (first.rebuilt_documents, place.points()["units"]) == (0, 0)
    assert (second.refused, second.rebuilt_documents) == ("", 1)
    assert [state.clean for state in verify(place.ledger, place.indexer)] == [False, True]
