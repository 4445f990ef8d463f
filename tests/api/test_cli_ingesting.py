"""``longleaf ingest``: names that are no text, what is left out, prefixes, and what would be done."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from small_library import SMALL

from api.cli import main
from api.commands.following import Watcher
from api.sources import find


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "a"
    (root / "b").mkdir(parents=True)
    (root / "b" / "lease.txt").write_text("A lease of the mill.")
    (root / "whale.txt").write_text("A whale in the sea.")
    return root


def test_names_that_are_no_text_stop_no_batch(run: Any, folder: Path) -> None:
    for name, content in ((b"x\xff.txt", "Otters."), (b"x\xfe.txt", "Herons."), (b"\xff.txt", "")):
        (folder / os.fsdecode(name)).write_text(content)
    code, told = run("ingest", folder)
    assert code == 1  # the empty one
    assert told["totals"] | {"seconds": 0, "tokens": 0} == {
        "created": 4, "failed": 1, "seconds": 0, "tokens": 0,
    }  # fmt: skip
    ids = {each["document_id"] for each in told["documents"] if each["name"] == "x?.txt"}
    assert len(ids) == 2
    assert run("ingest", folder, "--queue")[0] == 0
    assert run("jobs", "work", "--drain")[0] == 0
    assert {each["id"] for each in run("documents", "list")[1]["documents"]} > ids
    assert len(run("documents", "list")[1]["documents"]) == 4


def test_what_is_left_out_is_told_with_its_reason(
    run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "picture.png").write_bytes(b"x")
    (folder / "linked").symlink_to(folder / "b")
    (folder / "broken.txt").symlink_to(folder / "nowhere")
    (folder / ".hidden.png").write_bytes(b"x")
    os.mkfifo(folder / "pipe.txt")
    (folder / "locked").mkdir()
    scandir = os.scandir

    def guarded(path: Any) -> Any:  # as for anybody but root
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    _, told = run("ingest", folder)
    assert told["totals"]["created"] == 2
    assert {Path(each["path"]).name: each["reason"] for each in told["left_out"]} == {
        "picture.png": "another kind of file",
        "linked": "link to a folder",
        "broken.txt": "link that cannot be followed (No such file or directory)",
        "pipe.txt": "pipe or other special file",
        "locked": "folder that cannot be read (Permission denied)",
    }
    monkeypatch.undo()


def test_what_cannot_be_looked_at_stops_no_batch(run: Any, folder: Path) -> None:
    """A name that no file system takes, as what stands in a folder that is closed to whoever asks."""
    beyond = folder / ("n" * 300)
    code, told = run("ingest", folder, beyond)
    assert (code, told["totals"]["created"], told["totals"]["failed"]) == (1, 2, 1)
    failed = next(each for each in told["documents"] if each["status"] == "failed")
    assert (failed["code"], "cannot be opened" in failed["message"]) == ("unreadable", True)
    watcher = Watcher([str(beyond), f"{beyond}/*.txt"])
    assert watcher.changed() == []
    assert [remark[:8] for remark in watcher.remarks] == ["There is", "The patt"]
    manifest = folder.parent / "list.jsonl"
    manifest.write_text(json.dumps({"path": beyond.name}))
    assert "line 1: there is no file" in run("ingest", "--manifest", manifest)[1]["error"]["message"]


def test_a_prefix_keeps_files_of_one_name_apart(run: Any, folder: Path) -> None:
    other = folder.parent / "other"
    other.mkdir()
    (other / "whale.txt").write_text("Another whale.")
    run("ingest", folder, "--prefix", "2023/")
    _, told = run("ingest", other / "whale.txt", "--prefix", "2024/")
    assert [each["status"] for each in told["documents"]] == ["created"]
    ids = [each["id"] for each in run("documents", "list")[1]["documents"]]
    assert ids == ["2023/b/lease.txt", "2023/whale.txt", "2024/whale.txt"]
    found, _ = find([str(other / "*.txt")], "p-")
    assert [item.name for item in found] == ["p-whale.txt"]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(run: Any, folder: Path) -> None:
    (folder / "picture.png").write_bytes(b"x")
    code, told = run("ingest", folder, "--dry-run")
    assert not (folder.parent / "data").exists()
    assert (code, told["dry_run"], told["totals"]) == (0, True, {"created": 2})
    assert [Path(each["path"]).name for each in told["left_out"]] == ["picture.png"]
    run("ingest", folder)
    (folder / "whale.txt").write_text("A whale in the sea, seen again.")
    (folder / "new.md").write_text("New.")
    code, told = run("ingest", folder, folder / "missing.txt", "--dry-run")
    seen = {each["document_id"]: (each["status"], each["format"]) for each in told["documents"]}
    assert seen == {
        "b/lease.txt": ("unchanged", "text"),
        "whale.txt": ("replaced", "text"),
        "new.md": ("created", "markdown"),
        "missing.txt": ("failed", ""),
    }
    assert told["documents"][2]["bytes"] == len("A whale in the sea, seen again.")
    assert code == 1
    kept = run("ingest", folder, "--dry-run", "--on-conflict", "skip")[1]["totals"]
    done = run("ingest", folder, "--on-conflict", "skip")[1]["totals"]
    assert {
        "skipped": 1,
        "unchanged": 1,
        "created": 1,
    }.items() <= kept.items() and kept.items() <= done.items()


def test_people_read_what_would_be_done(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "picture.png").write_bytes(b"x")
    with pytest.raises(SystemExit):
        main(["ingest", str(folder), "--dry-run", "--data", str(tmp_path / "data"), *SMALL])
    told = capsys.readouterr()
    assert "b/lease.txt" in told.out
    assert "picture.png: another kind of file" in told.err
    assert "Nothing was written." in told.err
