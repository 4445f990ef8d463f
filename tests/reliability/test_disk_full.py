"""Promise 5: a full disk refuses writes, keeps reads and deletes, and recovers by itself."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections import namedtuple

import pytest
from workplace import text, workplace

from pipeline import originals, storing
from pipeline.errors import DiskFullError
from pipeline.reconcile import verify

LONG = "\n\n".join(f"Paragraph {i} speaks of otters and of river{i}. It goes on." for i in range(100))
POINTS = 60 if os.environ.get("LONGLEAF_RELIABILITY") == "full" else 3
MEBIBYTE = 1 << 20


def untouched(place) -> None:
    assert place.texts() == {"a": "Otter."}
    assert place.points()["documents"] == 1
    assert place.ledger.leftovers() == []
    assert len(place.stored_folders()) == 1
    assert not list(place.root.glob("spool/*"))
    assert all(each.clean for each in verify(place.ledger, place.indexer))


def test_too_little_room_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(100, 99, 1_000_000)
    with workplace(tmp_path) as place:
        place.ingest(text("a", "Otter."))
        with monkeypatch.context() as full:
            full.setattr(storing.shutil, "disk_usage", lambda _: usage)
            with pytest.raises(DiskFullError, match="1,000,000 bytes free") as caught:
                place.ingest(text("b", LONG))
        assert "Free space" in caught.value.remedy
        untouched(place)
        place.ingestor.delete("default", "default", "a")
        assert [r.status for r in place.ingest(text("b", LONG))] == ["created"]


@pytest.mark.parametrize("call", range(1, 7))
def test_no_room_in_the_middle_of_the_files(tmp_path, monkeypatch, call):
    """The n-th fsync of a document's files finds the disk full."""
    calls = 0
    honest = os.fsync

    def full(handle):
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return honest(handle)

    with workplace(tmp_path) as place:
        place.ingest(text("a", "Otter."))
        with monkeypatch.context() as patch:
            patch.setattr(originals.os, "fsync", full)
            with pytest.raises(DiskFullError):
                place.ingest(text("b", LONG))
        untouched(place)


def test_no_room_to_optimise_is_a_note(tmp_path, monkeypatch):
    """What was asked for is done: the documents are stored and the deleted one is gone."""
    with workplace(tmp_path) as place:

        def full(name):
            raise DiskFullError(f"No room for {name}.")

        monkeypatch.setattr(place.indexer, "optimize", full)
        notes: list[str] = []
        sources = [text("a", "Otter."), text("b", "Heron.")]
        assert [r.status for r in place.ingestor.ingest(sources, note=notes.append)] == ["created"] * 2
        assert len(notes) == 3
        assert "No room for default/default/units." in " ".join(notes)
        place.ingestor.delete("default", "default", "b", notes.append)
        assert len(notes) == 6
        assert place.texts() == {"a": "Otter."}


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounting a small disk needs root")
@pytest.mark.parametrize("indexer", ["exact", "qdrant_edge"])
def test_a_small_disk_fills_up(tmp_path, indexer, monkeypatch):
    """Fill a real 256 MB disk to leave ever less room; every answer is a stored document or DiskFullError."""
    monkeypatch.setattr(storing, "RESERVE_BYTES", 0)  # so that the disk itself says no, not the check
    command = ["mount", "-t", "tmpfs", "-o", "size=256m", "longleaf-test", str(tmp_path)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk here: {mounted.stderr.decode().strip()}")
    try:
        refused = 0
        with workplace(tmp_path / "data", indexer=indexer) as place:
            place.ingest(text("a", "Otter."))
            for point in range(POINTS):
                room = point * 2 * MEBIBYTE // POINTS
                balloon = tmp_path / "balloon"
                free = shutil.disk_usage(tmp_path).free
                balloon.write_bytes(b"\0" * max(free - room, 0))
                try:
                    place.ingest(text("b", LONG))
                except DiskFullError:
                    refused += 1
                    assert place.texts() == {"a": "Otter."}
                    assert place.findable("otter") == ["a"]
                else:
                    place.ingestor.delete("default", "default", "b")
                balloon.unlink()
                place.ingestor.recover()
                untouched(place)
            assert refused
            assert [r.status for r in place.ingest(text("b", LONG))] == ["created"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
