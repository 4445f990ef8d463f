"""``longleaf ingest --watch``: files as they come, what is waited for, and what is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_library import SMALL

from api.build import open_longleaf
from api.cli import main
from api.commands.following import Watcher
from api.settings import load_settings
from pipeline.errors import UnavailableError
from pipeline.ledger import Ledger

Said = Callable[[str], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/one.txt", "a/b/two.md", "a/b/three.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"This is {name}, and it speaks of otters.")
    return tmp_path / "a"


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Said]]:
    """Starts a watch; what that gives waits until it has said something."""
    processes = []

    def start(*arguments: str | Path) -> Said:
        told = tmp_path / f"told-{len(processes)}"
        command = [sys.executable, "-m", "api.cli", "ingest", "--watch", *SMALL, *map(str, arguments)]
        with told.open("w") as output:
            process = subprocess.Popen(
                [*command, "--data", str(tmp_path / "data")],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[2],
                env={**os.environ, "COLUMNS": "200"},
            )
        processes.append(process)

        def said(words: str) -> None:
            deadline = time.monotonic() + 60
            while words not in told.read_text():
                assert time.monotonic() < deadline and process.poll() is None, told.read_text()
                time.sleep(0.1)

        return said

    yield start
    for process in processes:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_a_watched_folder_is_followed(watch: Any, folder: Path) -> None:
    said = watch(folder, folder.parent / "later")
    said("later' yet")
    said("b/three.txt")
    (folder / "new.txt").write_text("A new one about herons.")
    said("new.txt")
    (folder / "new.txt").write_text("It changed, and speaks of newts and badgers.")
    said("replaced")
    (folder.parent / "later").mkdir()
    (folder.parent / "later" / "last.txt").write_text("The last one is about owls.")
    said("last.txt")


def test_files_wait_for_another_process_and_a_queue_takes_them_at_once(
    watch: Any, folder: Path, tmp_path: Path
) -> None:
    other = Ledger(tmp_path / "data")
    other.own_ingestion()
    waiting = watch(folder)
    waiting("Another process is ingesting")
    waiting("longleaf ingest --queue")
    queued = watch(folder, "--queue", "--prefix", "q/")
    queued("Accepted 3 documents")
    (folder / "new.txt").write_text("A new one about herons.")
    queued("Accepted 1 documents")
    other.close()
    waiting("created")


def test_who_waits_for_the_index_keeps_nobody_from_ingesting(
    watch: Any, folder: Path, tmp_path: Path
) -> None:
    with open_longleaf(
        load_settings({"data": tmp_path / "data", "indexer.name": "qdrant_edge"}, None)
    ) as other:
        other.indexer.names()
        said = watch(folder, "--set", "indexer.name=qdrant_edge")
        said("is in use by")
        said("The files are taken once that is over.")
        deadline = time.monotonic() + 30
        while True:
            try:
                other.ledger.own_ingestion()
                break
            except UnavailableError:  # it is trying again just now
                assert time.monotonic() < deadline
                time.sleep(0.05)
    said("created")


def test_a_file_is_told_until_it_is_settled(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one")
    watcher = Watcher([str(tmp_path)])
    assert watcher.changed() == []  # it may still be being written
    assert [item.path for item in watcher.changed()] == [file]
    again = watcher.changed()
    assert [item.path for item in again] == [file]
    watcher.settle(again)
    assert watcher.changed() == []
    file.write_text("another")
    watcher.changed()
    assert [item.path for item in watcher.changed()] == [file]


def test_what_is_not_taken_is_remarked_on(tmp_path: Path) -> None:
    for name in ("a/caf\u00e9.txt", "b/cafe\u0301.txt", "b/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "empty").mkdir()
    watcher = Watcher([str(tmp_path / name) for name in ("a", "b", "empty", "nowhere")])
    watcher.changed()
    assert [item.path.name for item in watcher.changed()] == ["caf\u00e9.txt"]
    remarks = "\n".join(watcher.remarks)
    for words in (
        "Unicode form only. The second is left out",
        "another kind of file: 1",
        "empty' has no file",
    ):
        assert words in remarks
    assert f"There is no {str(tmp_path / 'nowhere')!r} yet" in remarks


@pytest.mark.parametrize(
    "others", [["--id", "x"], ["--title", "x"], ["--manifest", "x"], ["--dry-run"], ["-"]], ids=" ".join
)
def test_what_cannot_be_watched_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], others: list[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["ingest", str(folder), "--watch", "--json", "--data", str(tmp_path / "data"), *others, *SMALL])
    told = json.loads(capsys.readouterr().out)["error"]
    assert (stopped.value.code, told["code"]) == (2, "invalid_request")
    assert others[0].replace("-", "standard input") in told["message"] or others[0] in told["message"]


def test_one_file_that_no_job_takes_stops_no_other(watch: Any, folder: Path) -> None:
    (folder / "big.txt").write_text("x" * 3_000)
    said = watch(folder, "--queue", "--set", "reading.input_bytes=2000")
    said("the limit is 2,000")
    said("Accepted 1 documents")
