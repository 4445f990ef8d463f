"""Backups while others write; restores that bring nothing back that was deleted."""

from __future__ import annotations

import json
import shutil

import pytest
from test_jobs import office
from workplace import CHUNKING, files_below, text, workplace

from pipeline import reconcile
from pipeline.backup import back_up
from pipeline.errors import ConflictError, DataVersionError, StorageError, UnavailableError
from pipeline.ingest import Source
from pipeline.job_queue import JobQueue
from pipeline.ledger import Ledger
from pipeline.restoring import restore
from pipeline.worker import Worker


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request):
    return None if request.param == "sqlite" else request.getfixturevalue("postgres").database()


def opened(root, url=None):
    """A restored workplace with its index built, and found to be in order."""

    class Opened:
        def __enter__(self):
            self.stack = workplace(root, url=url)
            place = self.stack.__enter__()
            reconcile.repair(place.ledger, place.indexer, place.embedder, place.analyser, CHUNKING)
            assert all(each.clean for each in reconcile.verify(place.ledger, place.indexer))
            assert place.ledger.check() == []
            return place

        def __exit__(self, *error):
            return self.stack.__exit__(*error)

    return Opened()


def test_all_comes_back(tmp_path, url):
    with office(tmp_path / "data", url=url) as (place, queue, _):
        place.ingest(text("a", "Otter.", metadata={"year": 1869}), Source("b.md", b"# Heron\n\nIt stands."))
        place.ingest(text("a", "Otter again."), on_conflict="new_version")
        (tmp_path / "data" / "keys.json").write_text("[]")
        queue.submit([text("c", "Newt.")])
        report = back_up(place.ledger, tmp_path / "backup")
        assert (report.documents, report.waiting) == (2, 1)
        place.ingest(text("later", "Badger."))
    other = None if url is None else url.replace("test_", "test_again_")
    if other:
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {other.rpartition('%3D')[2]}")
    told = restore(tmp_path / "backup", tmp_path / "new", url=other)
    assert (told.documents, told.waiting, told.left_out) == (2, 1, 0)
    assert (tmp_path / "new" / "keys.json").read_text() == "[]"
    with opened(tmp_path / "new", other) as place:
        assert place.texts() == {"a": "Otter again.", "b.md": "Heron\n\nIt stands."}
        assert place.ledger.history("default", "default", "a") == [2, 1]
        assert place.ledger.original("default", "default", "b.md").read_bytes().startswith(b"# Heron")
        queue = JobQueue(place.ledger)
        Worker(place.ledger, queue, lambda *_: place.ingestor).drain()
        assert place.texts()["c"] == "Newt."
        queue.submit([text("d", "Pike.")])
        (again,) = place.ingest(text("a", "Third."))
        assert again.version == 3


@pytest.mark.parametrize("how", ["stored", "replaced", "dropped", "on its way", "quarantined"])
@pytest.mark.parametrize("knows", ["ledger", "note beside a damaged ledger", "later backup"])
def test_what_was_deleted_stays_deleted(tmp_path, how, knows):
    with office(tmp_path / "data") as (place, queue, worker):
        place.ingest(text("kept", "Heron."), text("back", "First."))
        if how in ("on its way", "quarantined"):
            queue.submit([text("canary", "This is poison." if how == "quarantined" else "Otter.")])
            while how == "quarantined" and queue.jobs()[0].finished is None:
                worker.drain()
        else:
            place.ingest(text("canary", "Otter."), collection="second" if how == "dropped" else "default")
        back_up(place.ledger, tmp_path / "backup")
        if how == "replaced":
            place.ingest(text("canary", "Otter again."))
        if how == "dropped":
            place.ingestor.drop("default", "second")
        else:
            place.ingestor.delete("default", "default", "canary")
        place.ingestor.delete("default", "default", "back")
        place.ingest(text("back", "Second."))
        back_up(place.ledger, tmp_path / "later")
    deletions = []
    if knows == "note beside a damaged ledger":
        (tmp_path / "data" / "ledger.sqlite").write_bytes(b"damaged" * 1000)
    elif knows == "later backup":
        for path in (tmp_path / "data").iterdir():
            if path.name != "keys.json":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        deletions = [tmp_path / "later"]
    told = restore(tmp_path / "backup", tmp_path / "data", replace=True, deletions=deletions)
    assert told.left_out == 2
    with opened(tmp_path / "data") as place:
        assert place.texts() == {"kept": "Heron."}
        assert "second" not in [c.name for c in place.ledger.collections()] or not place.texts("second")
        left = [p for p in files_below(tmp_path / "data") if b"canary" in p.read_bytes()]
        assert left == []
        (again,) = place.ingest(text("back", "Third."))
        assert again.version > 1, "its numbers are not given out again"


def test_only_a_whole_backup_is_restored(tmp_path):
    with workplace(tmp_path / "data") as place:
        place.ingest(text("a", "Otter."))
        back_up(place.ledger, tmp_path / "backup")
        with pytest.raises(ConflictError, match="not empty"):
            back_up(place.ledger, tmp_path / "backup")
    with pytest.raises(StorageError, match="not a complete backup"):
        restore(tmp_path / "data", tmp_path / "new")
    with pytest.raises(ConflictError, match="data in"):
        restore(tmp_path / "backup", tmp_path / "data")
    manifest = tmp_path / "backup" / "backup.json"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**told, "data_version": 999}))
    with pytest.raises(DataVersionError, match="999"):
        restore(tmp_path / "backup", tmp_path / "new")
    manifest.write_text(json.dumps(told))
    document = next((tmp_path / "backup").glob("documents/*/*/*/document.json"))
    content = bytearray(document.read_bytes())
    content[10] ^= 1
    document.write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        restore(tmp_path / "backup", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_data_in_use_is_not_replaced(tmp_path):
    with workplace(tmp_path / "data") as place:
        place.ingest(text("a", "Otter."))
        back_up(place.ledger, tmp_path / "backup")
        with pytest.raises(UnavailableError, match="Another process"):
            restore(tmp_path / "backup", tmp_path / "data", replace=True)


def test_an_interrupted_restore_is_seen_and_finished(tmp_path, monkeypatch):
    from pipeline import restoring

    with workplace(tmp_path / "data") as place:
        place.ingest(text("a", "Otter."), text("canary", "Heron."))
        back_up(place.ledger, tmp_path / "backup")
        place.ingestor.delete("default", "default", "canary")

    def fails(*_):
        raise KeyboardInterrupt

    for owner, name in ((restoring, "_respect"), (restoring.shutil, "copyfile")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fails)
            with pytest.raises(KeyboardInterrupt):
                restore(tmp_path / "backup", tmp_path / "data", replace=True)
        with workplace(tmp_path / "data") as place:
            assert place.texts() == {"a": "Otter."}, "nothing was touched yet"
    for name in ("_remove_old", "_put"):
        with monkeypatch.context() as patch:
            patch.setattr(restoring, name, fails)
            with pytest.raises(KeyboardInterrupt):
                restore(tmp_path / "backup", tmp_path / "data", replace=True)
        with pytest.raises(StorageError, match="interrupted"):
            Ledger(tmp_path / "data")
    told = restore(tmp_path / "backup", tmp_path / "data", replace=True)
    assert told.left_out == 1, "what was deleted is known although the old ledger is gone"
    with opened(tmp_path / "data") as place:
        assert place.texts() == {"a": "Otter."}


def test_where_deletions_are_read_from_is_checked(tmp_path):
    with workplace(tmp_path / "data") as place:
        place.ingest(text("a", "Otter."))
        back_up(place.ledger, tmp_path / "backup")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="does not tell what was deleted"):
        restore(tmp_path / "backup", tmp_path / "new", deletions=[tmp_path / "empty"])
    manifest = tmp_path / "backup" / "backup.json"
    told = json.loads(manifest.read_text())
    told["files"]["../outside"] = "00"
    manifest.write_text(json.dumps(told))
    with pytest.raises(StorageError, match="outside of itself"):
        restore(tmp_path / "backup", tmp_path / "new")
