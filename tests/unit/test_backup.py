"""Backups while others write; restores that bring nothing back that was deleted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from test_jobs import office
from workplace import CHUNKING, files_below, text, workplace

from api.keys import KeyRing
from pipeline import reconcile
from pipeline.backup import back_up
from pipeline.errors import (
    ConflictError,
    DataVersionError,
    InvalidRequestError,
    StorageError,
    UnavailableError,
)
from pipeline.ingest import Source
from pipeline.job_queue import JobQueue
from pipeline.ledger import Ledger
from pipeline.restoring import restore
from pipeline.seams import IndexSchema
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
        key = KeyRing(tmp_path / "data").create("someone")
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
    assert KeyRing(tmp_path / "new").accepts(key)
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


def valid(root, **keys):
    """Those of the keys that are accepted there."""
    ring = KeyRing(root)
    return {name for name, key in keys.items() if ring.accepts(key)}


def test_no_revoked_key_is_valid_again_and_no_newer_one_is_lost(tmp_path):
    data, ring = tmp_path / "data", KeyRing(tmp_path / "data")
    with workplace(data) as place:
        place.ingest(text("a", "Otter."))
        back_up(place.ledger, tmp_path / "without")
        keys = {"leaked": ring.create("leaked"), "kept": ring.create("kept")}
        back_up(place.ledger, tmp_path / "backup")
        ring.revoke(keys["leaked"].partition(".")[0])
        keys["newer"] = ring.create("newer")
        back_up(place.ledger, tmp_path / "later")
    for source in ("backup", "without", "later"):
        restore(tmp_path / source, data, replace=True)
        assert valid(data, **keys) == {"kept", "newer"}
    restore(tmp_path / "backup", tmp_path / "new")
    assert valid(tmp_path / "new", **keys) == {"leaked", "kept"}, "nothing there tells of more"
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").glob("keys.*")} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "backup").glob("keys.*")} == {0o600}
    restore(tmp_path / "later", tmp_path / "new", replace=True)
    assert valid(tmp_path / "new", **keys) == {"kept", "newer"}, "the backup tells of more"
    for place in (data, tmp_path / "later"):
        shutil.rmtree(tmp_path / "new")
        restore(tmp_path / "backup", tmp_path / "new", deletions=[place])
        assert valid(tmp_path / "new", **keys) == {"kept"}


def test_no_copy_of_a_key_is_anybodys_for_a_moment(tmp_path, monkeypatch):
    modes, copy = {}, shutil.copyfile

    def watched(source, target):
        modes[Path(target).name] = Path(target).stat().st_mode & 0o777
        copy(source, target)

    with workplace(tmp_path / "data") as place:
        KeyRing(place.root).create("someone")
        (place.root / "keys.pepper").chmod(0o400)  # a copy must be written to nevertheless
        monkeypatch.setattr(shutil, "copyfile", watched)
        back_up(place.ledger, tmp_path / "backup")
    assert (modes["keys.json"], modes["keys.pepper"]) == (0o600, 0o600)


def test_without_their_pepper_keys_get_none(tmp_path):
    """An empty one, once written, would be that of all keys made later."""
    with workplace(tmp_path / "from") as place:
        theirs = KeyRing(place.root).create("theirs")
        (place.root / "keys.pepper").unlink()
        back_up(place.ledger, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "data")
    assert not (tmp_path / "data" / "keys.pepper").exists()
    mine = KeyRing(tmp_path / "data").create("mine")
    assert len((tmp_path / "data" / "keys.pepper").read_bytes()) == 32
    assert valid(tmp_path / "data", mine=mine, theirs=theirs) == {"mine"}


def test_keys_under_another_pepper_stay_alone(tmp_path):
    mine = KeyRing(tmp_path / "data").create("mine")
    with workplace(tmp_path / "from") as place:
        theirs = KeyRing(place.root).create("theirs")
        back_up(place.ledger, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "data")
    assert valid(tmp_path / "data", mine=mine, theirs=theirs) == {"mine"}
    assert len(json.loads((tmp_path / "data" / "keys.json").read_text())) == 1


def test_where_nobody_knows_what_was_revoked_nothing_is_touched(tmp_path):
    with workplace(tmp_path / "data") as place:
        place.ingest(text("a", "Otter."))
        KeyRing(place.root).create("leaked")
        back_up(place.ledger, tmp_path / "backup")
        place.ingest(text("b", "Heron."))
    (tmp_path / "data" / "keys.json").write_text("[{]")
    with pytest.raises(StorageError, match="key file") as caught:
        restore(tmp_path / "backup", tmp_path / "data", replace=True)
    assert "revoke again" in caught.value.remedy
    with workplace(tmp_path / "data") as place:
        assert set(place.texts()) == {"a", "b"}


def test_the_audit_log_stays(tmp_path):
    with workplace(tmp_path / "data") as place:
        place.ingest(text("a", "Otter."))
        back_up(place.ledger, tmp_path / "backup")
    logs = [tmp_path / "data" / name for name in ("audit.jsonl", "audit.jsonl.1")]
    for path in logs:
        path.write_text(path.name)
    restore(tmp_path / "backup", tmp_path / "data", replace=True)
    assert [path.read_text() for path in logs] == [path.name for path in logs]


def test_a_backup_inside_of_the_data_is_refused(tmp_path):
    with workplace(tmp_path / "data") as place:
        place.ingest(text("a", "Otter."))
        for target in (place.root / "inside", place.root, tmp_path / "x" / ".." / "data" / "inside"):
            with pytest.raises(InvalidRequestError, match="inside of the data folder"):
                back_up(place.ledger, target)
        back_up(place.ledger, tmp_path / "backup")
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="Not a directory"):
            back_up(place.ledger, tmp_path / "file")
    (tmp_path / "backup").rename(tmp_path / "data" / "backup")  # by an older Longleaf, or by hand
    with pytest.raises(InvalidRequestError, match="inside of the data folder"):
        restore(tmp_path / "data" / "backup", tmp_path / "data", replace=True)
    assert (tmp_path / "data" / "backup" / "backup.json").exists()
    with pytest.raises(StorageError, match="Not a directory"):
        restore(tmp_path / "data" / "backup", tmp_path / "file")


def test_where_there_is_data_already_is_said(tmp_path, postgres):
    url = postgres.database()
    with workplace(tmp_path / "data", url=url) as place:
        place.ingest(text("a", "Otter."))
        back_up(place.ledger, tmp_path / "backup")
    with pytest.raises(ConflictError) as caught:
        restore(tmp_path / "backup", tmp_path / "new", url=url)
    assert caught.value.message.startswith("There is data in the database postgresql")
    assert "all rows of that database" in caught.value.remedy and "ledger.url" in caught.value.remedy
    assert not (tmp_path / "new").exists()
    with pytest.raises(ConflictError, match=r"data in .*/data and in the database"):
        restore(tmp_path / "backup", tmp_path / "data", url=url)


def test_indexes_that_no_backup_holds_are_told(tmp_path):
    with workplace(tmp_path / "data") as place:
        place.ingest(text("a", "Otter."))
        assert back_up(place.ledger, tmp_path / "backup").not_in_it == ()
        place.indexer.create("langchain", IndexSchema("a program's own", 2, False, {}))
        assert back_up(place.ledger, tmp_path / "again").not_in_it == ("langchain",)


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
        leaked = KeyRing(place.root).create("leaked")
        back_up(place.ledger, tmp_path / "backup")
        place.ingestor.delete("default", "default", "canary")
        KeyRing(place.root).revoke(leaked.partition(".")[0])
        newer = KeyRing(place.root).create("newer")

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
    assert valid(tmp_path / "data", leaked=leaked, newer=newer) == {"newer"}
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
