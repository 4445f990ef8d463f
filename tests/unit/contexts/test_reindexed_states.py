"""Indexing anew with another chunking: states of passages that are no more go with them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from workplace import CHUNKING, text, workplace

from pipeline.aliases import Aliased
from pipeline.cached_states import CachedStates
from pipeline.chunk import ChunkConfig
from pipeline.errors import StorageError
from pipeline.lm.kv_identity import TenantKeys
from pipeline.records import VersionKey
from pipeline.reindex import reindex

LONG = "\n\n".join(f"Paragraph {i} speaks of otters and of river{i}. It goes on." for i in range(20))
SMALLER = ChunkConfig(passage_tokens=24, unit_tokens=8, unit_min_tokens=4)


@pytest.fixture
def place(tmp_path):
    def aliased(ledger, indexer):
        return ledger, Aliased(indexer, ledger)

    with workplace(tmp_path, wrap=aliased) as opened:
        opened.ingest(text("long", LONG), text("short", "Short."))
        yield opened


def anew(place, chunking, *caches):
    return reindex(place.ledger, place.indexer, place.embedder, place.analyser, chunking, caches=caches)


def keep_states(folder: Path, key: VersionKey) -> Path:
    """A file in place of the states of a version."""
    path = folder.joinpath(*TenantKeys.in_folder(folder).owner(key), "states.safetensors")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"states")
    return path


class Told:
    """A cache that keeps what it is told, and which chunking readers see by then."""

    def __init__(self, place):
        self.told, self._place = [], place

    def _note(self, what, keys):
        passage_tokens = self._place.ledger.collection("default", "default").chunking["passage_tokens"]
        self.told.append((what, [key.document_id for key in keys], passage_tokens))

    def added(self, keys):
        self._note("added", keys)

    def remove(self, keys):
        self._note("removed", keys)


def test_states_go_before_and_after_the_switch_where_passages_change(place, tmp_path):
    told, folder = Told(place), tmp_path / "kv"
    long, short = (keep_states(folder, VersionKey("default", "default", n, 1)) for n in ("long", "short"))
    states = CachedStates(folder, lambda: None, None)
    assert anew(place, CHUNKING, told, states).recut == 0
    assert long.exists() and short.exists()
    assert [names for _, names, _ in told.told] == [[], [], []]
    told.told.clear()
    assert anew(place, SMALLER, told, states).recut == 1
    assert (long.exists(), short.exists()) == (False, True)
    assert told.told == [
        ("removed", ["long"], CHUNKING.passage_tokens),
        ("removed", ["long"], SMALLER.passage_tokens),
        ("added", ["long"], SMALLER.passage_tokens),
    ]


def test_where_the_current_index_is_lost_all_states_go(place):
    told = Told(place)
    place.indexer.drop("default/default/passages")
    anew(place, CHUNKING, told)
    assert [(what, sorted(names)) for what, names, _ in told.told] == [
        ("removed", ["long", "short"]),
        ("removed", ["long", "short"]),
        ("added", ["long", "short"]),
    ]


def test_states_stored_while_the_new_index_is_built_go_too(place, tmp_path):
    """Another process answers from the old passages until the switch."""
    long, folder = VersionKey("default", "default", "long", 1), tmp_path / "kv"

    class Late(CachedStates):
        def remove(self, keys):
            super().remove(keys)
            if not stored:
                stored.append(keep_states(folder, long))

    stored = []
    anew(place, SMALLER, Late(folder, lambda: None, None))
    assert not stored[0].exists()


def test_states_that_cannot_be_removed_after_the_switch_do_not_undo_it(place):
    class Refusing(Told):
        def remove(self, keys):
            super().remove(keys)
            if len(self.told) > 1:
                raise StorageError("The disk refuses.", remedy="None.")

    told = Refusing(place)
    assert anew(place, SMALLER, told).recut == 1
    assert told.told[-1] == ("added", ["long"], SMALLER.passage_tokens)


def test_states_that_cannot_be_removed_leave_the_collection_as_it_was(place):
    class Refusing(Told):
        def remove(self, keys):
            raise StorageError("The disk refuses.", remedy="None.")

    with pytest.raises(StorageError):
        anew(place, SMALLER, Refusing(place))
    current = place.ledger.collection("default", "default")
    assert current.chunking["passage_tokens"] == CHUNKING.passage_tokens
    again = Told(place)
    assert anew(place, SMALLER, again).resumed == 2
    assert again.told[0][:2] == ("removed", ["long"])


def test_states_of_interrupted_removals_go_too(place):
    told = Told(place)
    place.ledger.delete("default", "default", "short")  # and killed before the rest was removed
    assert anew(place, CHUNKING, told).documents == 1
    assert told.told[0][:2] == ("removed", ["short"])


def test_the_command_removes_them_and_sees_the_building_through(tmp_path, monkeypatch, capsys):
    from api import building
    from api.cli import main

    monkeypatch.chdir(tmp_path)
    settings = {"EMBEDDER__NAME": "hashing", "INDEXER__NAME": "exact", "LANGUAGE_MODEL__SPEC": "none"}
    for name, value in settings.items():
        monkeypatch.setenv(f"LONGLEAF_{name}", value)

    def longleaf(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        printed = capsys.readouterr()
        assert not stop.value.code, printed
        return printed

    def build(_, key):
        time.sleep(0.2)
        built.append(key)

    built = []
    monkeypatch.setattr(building, "at_ingestion", lambda _: True)
    monkeypatch.setattr(building, "build", build)
    names = ["one.txt", "two.txt"]
    for name in names:
        (tmp_path / name).write_text(f"{name}\n\n{LONG}")
    longleaf("ingest", *names)
    built.clear()
    documents = json.loads(longleaf("documents", "list", "--json").out)["documents"]
    keys = [VersionKey("default", "default", document["id"], 1) for document in documents]
    states = [keep_states(tmp_path / "longleaf-data" / "kv", key) for key in keys]
    assert "Building" not in longleaf("reindex").err
    assert all(path.exists() for path in states) and not built
    smaller = ["--set", "chunking.passage_tokens=32", "--set", "chunking.unit_tokens=16"]
    assert "Building cached states of changed passages" in longleaf("reindex", *smaller).err
    assert not any(path.exists() for path in states)
    assert sorted(built) == sorted(keys)
