"""``longleaf ingest`` with patterns, manifests, a queue and a watch; ``longleaf jobs``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from small_library import SMALL

from api.cli import main


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


def test_a_manifest_replaces_no_file_named_beside_it(run: Any, folder: Path) -> None:
    manifest = folder.parent / "all.jsonl"
    manifest.write_text(json.dumps({"id": "one.txt", "text": "Something else."}))
    code, told = run("ingest", folder / "one.txt", "--manifest", manifest)
    assert (code, told["error"]["code"]) == (2, "invalid_request")
    assert "line 1: 'one.txt' is on the command line already" in told["error"]["message"]
    manifest.write_text(json.dumps({"id": "one.txt", "path": f"{folder.name}/one.txt", "title": "One"}))
    assert run("ingest", folder / "one.txt", "--manifest", manifest)[0] == 0, "the very same file"


def test_only_a_line_feed_ends_a_line_of_a_manifest(run: Any, folder: Path) -> None:
    text = "One line.\u2028And\u0085another, about \x0b herons."
    lines = [{"id": "a", "text": text}, {"path": "a/one.txt"}]
    manifest = folder.parent / "all.jsonl"
    written = "\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    manifest.write_bytes(b"\xef\xbb\xbf" + written.encode())
    code, told = run("ingest", "--manifest", manifest, "--prefix", "2023/")
    assert (code, [d["document_id"] for d in told["documents"]]) == (0, ["a", "2023/a/one.txt"])
    assert run("documents", "show", "a", "--text")[1]["text"] == text


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
        ('{"id": "a\\nb", "text": "x"}', "line 2: Document id"),
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


def test_waiting_says_when_nobody_works_and_a_stop_tells_how_far_it_came(
    run: Any,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = run("ingest", folder, "--queue")[1]["job"]["id"]
    looks = iter([None] * 20)

    def no_time_passes(_: float) -> None:
        if next(looks, "stop") == "stop":
            raise KeyboardInterrupt

    monkeypatch.setattr("api.commands.jobs._PATIENCE_SECONDS", -1)
    monkeypatch.setattr(time, "sleep", no_time_passes)
    with pytest.raises(SystemExit) as stopped:
        main(["jobs", "wait", job, "--data", str(tmp_path / "data"), "--json", *SMALL])
    told = capsys.readouterr()
    assert stopped.value.code == 130
    assert json.loads(told.out)["job"]["state"] == "queued"
    assert told.err.count("No worker has taken the job yet.") == 1
