"""``longleaf ingest`` with patterns, manifests, a queue and a watch; ``longleaf jobs``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from api.cli import main

SMALL = ["--set", "embedder.name=hashing", "--set", "indexer.name=exact", "--set", "language_model.spec=none"]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str | Path) -> tuple[int, Any]:
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, arguments), "--data", str(tmp_path / "data"), "--json", *SMALL])
        return int(stopped.value.code or 0), json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/one.txt", "a/b/two.md", "a/b/three.txt", "a/.hidden.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"This is {name}, and it speaks of otters.")
    return tmp_path / "a"


def test_patterns_name_files(run: Any, folder: Path) -> None:
    code, told = run("ingest", folder / "**" / "*.txt")
    assert code == 0
    assert [d["document_id"] for d in told["documents"]] == ["b/three.txt", "one.txt"]
    code, told = run("ingest", folder / "*.pdf")
    assert (code, told["error"]["code"]) == (2, "invalid_request")


def test_manifests_say_what_each_document_is(run: Any, folder: Path) -> None:
    lines = [
        {"path": "a/one.txt", "id": "first", "title": "The first", "metadata": {"year": 1869}},
        {"id": "note", "text": "A note about herons."},
    ]
    manifest = folder.parent / "all.jsonl"
    manifest.write_text("\n\n".join(map(json.dumps, lines)))
    code, told = run("ingest", "--manifest", manifest, "-m", "kind=test")
    assert (code, [d["document_id"] for d in told["documents"]]) == (0, ["first", "note"])
    _, shown = run("documents", "show", "first")
    assert (shown["title"], shown["metadata"]) == ("The first", {"kind": "test", "year": 1869})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not json", "line 2 is not JSON"),
        ("[1]", "line 2 is no object"),
        ('{"path": "missing.txt"}', "line 2: there is no file 'missing.txt'"),
        ('{"path": "a/one.txt", "text": "x"}', "line 2 must have either"),
        ('{"colour": "red"}', "line 2: 'colour' is unknown"),
        ('{"path": 7}', "line 2: 'path' is of the wrong type"),
        ('{"id": "x", "text": "again"}', "line 2: 'x' is in line 1 already"),
    ],
)
def test_manifests_are_checked_before_work(run: Any, folder: Path, line: str, said: str) -> None:
    manifest = folder.parent / "all.jsonl"
    manifest.write_text('{"id": "x", "text": "fine"}\n' + line)
    code, told = run("ingest", "--manifest", manifest)
    assert code == 2
    assert said in told["error"]["message"]
    assert not (folder.parent / "data").exists()


def test_a_queue_is_worked_on_later(run: Any, folder: Path) -> None:
    code, told = run("ingest", folder, "--queue")
    job = told["job"]
    assert (code, job["state"], job["documents_total"]) == (0, "queued", 3)
    assert [j["id"] for j in run("jobs", "list")[1]["jobs"]] == [job["id"]]
    assert run("jobs", "work", "--drain") == (0, {"batches": 1})
    code, told = run("jobs", "wait", job["id"])
    assert (code, told["job"]["state"]) == (0, "done")
    code, told = run("jobs", "show", job["id"])
    assert [d["status"] for d in told["documents"]] == ["created"] * 3
    second = run("ingest", folder, "--queue", "--on-conflict", "skip")[1]["job"]
    assert run("jobs", "cancel", second["id"])[1]["job"]["state"] == "cancelled"
    assert run("jobs", "wait", second["id"])[0] == 1
    assert run("jobs", "retry", second["id"])[1]["error"]["code"] == "invalid_request"
    assert run("jobs", "show", "nope")[1]["error"]["code"] == "not_found"


def test_what_no_job_can_be_is_no_empty_list(
    run: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (["--state", "foo"], ["--limit", "0"]):
        code, told = run("jobs", "list", *wrong)
        assert (code, told["error"]["code"]) == (2, "usage")
    run("ingest", folder, "--queue")
    for filters, said in (
        (["--state", "failed"], "No job in this state."),
        (["--tenant", "acme"], "No job of this tenant."),
    ):
        with pytest.raises(SystemExit):
            main(["jobs", "list", *filters, "--data", str(tmp_path / "data"), *SMALL])
        assert capsys.readouterr().err.strip() == said


def test_conflicts_on_the_command_line(run: Any, folder: Path) -> None:
    run("ingest", folder / "one.txt")
    (folder / "one.txt").write_text("Changed.")
    code, told = run("ingest", folder / "one.txt", "--on-conflict", "fail")
    assert (code, told["documents"][0]["code"]) == (1, "conflict")
    assert run("ingest", folder / "one.txt", "--on-conflict", "skip")[1]["totals"]["skipped"] == 1
    assert run("ingest", folder / "one.txt", "--on-conflict", "odd")[0] == 2
    assert run("ingest")[0] == 2


def test_a_watched_folder_is_followed(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "api.cli", "ingest", str(folder), "--watch"]
    with (tmp_path / "told").open("w") as told:
        process = subprocess.Popen(
            [*command, "--data", str(tmp_path / "data"), *SMALL],
            stdout=told,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "COLUMNS": "200"},
        )

    def said(words: str) -> None:
        deadline = time.monotonic() + 60
        while words not in (tmp_path / "told").read_text():
            assert time.monotonic() < deadline and process.poll() is None, (tmp_path / "told").read_text()
            time.sleep(0.1)

    try:
        said("b/three.txt")
        (folder / "new.txt").write_text("A new one about herons.")
        said("new.txt")
        (folder / "new.txt").write_text("It changed, and speaks of newts and badgers.")
        said("replaced")
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
