"""The command line as a person or a script uses it: what is printed where, and the exit code."""

from __future__ import annotations

import inspect
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_library import FROST, LEASE, WHALE

from api.build import open_longleaf
from api.cli import build_app, main
from api.settings import load_settings
from pipeline.errors import DiskFullError
from pipeline.ingest import Ingestor, IngestResult

Command = Callable[..., "Outcome"]


class Outcome:
    """What a command printed and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def longleaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``longleaf`` in this process, in a folder of its own, without model weights."""
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("EMBEDDER__NAME", "hashing"),
        ("INDEXER__NAME", "exact"),
        ("LANGUAGE_MODEL__SPEC", "none"),
    ):
        monkeypatch.setenv(f"LONGLEAF_{name}", value)

    def run(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        printed = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three readable files, one of them in a folder below, one of another kind and a hidden one."""
    root = tmp_path / "papers"
    (root / "deeds").mkdir(parents=True)
    (root / "deeds" / "lease.txt").write_text(LEASE)
    (root / "whale.txt").write_text(WHALE)
    (root / "frost.txt").write_text(FROST)
    (root / "picture.png").write_bytes(b"\x89PNG\r\n")
    (root / ".hidden.txt").write_text("hidden")
    return root


def test_a_folder_goes_in_and_answers_come_out(longleaf: Command, folder: Path) -> None:
    done = longleaf("ingest", str(folder), "-m", "year=1869", "--json")
    assert done.code == 0
    assert [d["document_id"] for d in done.json["documents"]] == ["deeds/lease.txt", "frost.txt", "whale.txt"]
    assert done.json["totals"]["created"] == 3
    assert done.err == ""

    listed = longleaf("documents", "list", "--json").json["documents"]
    assert {d["id"]: d["metadata"]["year"] for d in listed} == dict.fromkeys(
        ("deeds/lease.txt", "frost.txt", "whale.txt"), 1869
    )

    found = longleaf("search", "three months notice to end the lease", "-k", "1", "--json").json
    assert found["hits"][0]["document_id"] == "deeds/lease.txt"

    answer = longleaf("ask", "With how much notice may either party end the lease?", "--json").json
    citation = answer["statements"][0]["citations"][0]
    assert LEASE[citation["start"] : citation["end"]] == citation["quote"]


def test_a_person_reads_the_answer_its_source_and_the_times(longleaf: Command, folder: Path) -> None:
    longleaf("ingest", str(folder))
    told = longleaf("ask", "With how much notice may either party end the lease?")
    assert told.code == 0
    assert "three months' notice" in told.out
    assert re.search(r"\[1\] .*characters \d+-\d+", told.out)
    assert re.search(r"retrieve \d+\.\d\d s", told.err)
    shown = longleaf("search", "whale", "-k", "1")
    assert shown.out.startswith("1. ")
    assert "whale" in shown.out


def test_unchanged_files_cost_nothing_and_changed_ones_replace(longleaf: Command, folder: Path) -> None:
    longleaf("ingest", str(folder))
    (folder / "whale.txt").write_text(WHALE + " The sea was calm.")
    statuses = longleaf("ingest", str(folder), "--json").json["totals"]
    assert (statuses["unchanged"], statuses["replaced"]) == (2, 1)


def test_standard_input_is_a_document(longleaf: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    class Piped:
        buffer = io.BytesIO(LEASE.encode())

    monkeypatch.setattr(sys, "stdin", Piped())
    done = longleaf("ingest", "-", "--id", "lease", "--title", "The mill", "--json")
    assert done.code == 0
    [document] = done.json["documents"]
    assert (document["document_id"], document["title"]) == ("lease", "The mill")
    Piped.buffer = io.BytesIO(WHALE.encode())
    [document] = longleaf("ingest", "-", "--id", "whale", "--json").json["documents"]
    assert document["title"] == "whale"


def test_a_bad_file_is_told_with_its_remedy_and_the_others_go_in(longleaf: Command, folder: Path) -> None:
    (folder / "rubbish.pdf").write_bytes(bytes(range(256)) * 8)
    (folder / "empty.txt").write_bytes(b"")
    told = longleaf("ingest", str(folder), str(folder / "missing.txt"))
    assert told.code == 1
    assert f"Left out, another kind of file: 1, such as {folder / 'picture.png'}." in told.err
    for name in ("rubbish.pdf", "empty.txt", "missing.txt"):
        assert re.search(rf"failed: {name}: .+\n  fix: .+", told.err), name
    assert "3 created, 3 failed" in told.err
    assert len(longleaf("documents", "list", "--json").json["documents"]) == 3


def test_what_stops_an_ingestion_is_told_with_what_was_done(
    longleaf: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = Ingestor.ingest

    def fills_the_disk(*parts: object, **options: object) -> Iterator[IngestResult]:
        yield next(ingest(*parts, **options))  # type: ignore[arg-type]
        raise DiskFullError("No space is left.", remedy="Free some.")

    monkeypatch.setattr(Ingestor, "ingest", fills_the_disk)
    told = longleaf("ingest", str(folder), "--json")
    assert told.code == 1
    assert told.json["error"]["code"] == "disk_full"
    assert [document["status"] for document in told.json["documents"]] == ["created"]
    assert "error: No space is left.\n  fix: Free some.\n" in longleaf("ingest", str(folder)).err


def test_two_files_of_one_name_are_not_mistaken_for_one(longleaf: Command, folder: Path) -> None:
    (folder / "lease.txt").write_text("Another lease.")
    told = longleaf("ingest", str(folder / "lease.txt"), str(folder / "deeds" / "lease.txt"))
    assert told.code == 2
    assert "would both be the document 'lease.txt'" in told.err
    twice = longleaf("ingest", str(folder / "lease.txt"), str(folder / "lease.txt"), "--json")
    assert [document["status"] for document in twice.json["documents"]] == ["created", "unchanged"]
    assert longleaf("ingest", str(folder), "--json").json["totals"]["created"] == 3
    for name in ("caf\u00e9.txt", "cafe\u0301.txt"):  # one name in two Unicode forms
        (folder / name).write_text(name)
    assert (
        "be the document 'caf\u00e9.txt': their names differ in their Unicode form only"
        in longleaf("ingest", str(folder)).err
    )


def test_documents_are_shown_and_deleted(longleaf: Command, folder: Path) -> None:
    longleaf("ingest", str(folder))
    assert "whale.txt" in longleaf("documents", "list").out
    assert longleaf("documents", "show", "whale.txt", "--json").json["chars"] == len(WHALE)
    assert longleaf("documents", "show", "whale.txt", "--text").out.strip() == WHALE
    deleted = longleaf("documents", "delete", "whale.txt", "nothing.txt", "--json")
    assert deleted.code == 1
    assert deleted.json["deleted"] == ["whale.txt"]
    assert deleted.json["errors"][0]["code"] == "not_found"
    assert longleaf("documents", "show", "whale.txt").code == 1
    [books] = longleaf("collections", "list", "--json").json["collections"]
    assert (books["name"], books["documents"]) == ("default", 2)
    assert longleaf("collections", "drop", "default", "--json").code == 2
    assert longleaf("collections", "drop", "default", "--yes").code == 0
    assert longleaf("collections", "list", "--json").json == {"collections": []}


@pytest.mark.parametrize("answer", ["n\n", "", None], ids=["no", "ended", "closed"])
def test_a_collection_is_not_dropped_without_a_yes(
    longleaf: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str | None
) -> None:
    longleaf("ingest", str(folder))
    monkeypatch.setattr(sys, "stdin", None if answer is None else io.StringIO(answer))
    told = longleaf("collections", "drop", "default")
    assert told.code == 1
    assert told.err.endswith("Nothing was dropped. Without a terminal, add --yes.\n")
    assert longleaf("collections", "list", "--json").json["collections"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert longleaf("collections", "drop", "default").code == 0


LOOKING = [
    "documents list",
    "collections list",
    "jobs list",
    "kv stats",
    "kv verify --quick",
    "search x",
    "ask x",
    "verify",
    "repair",
    "migrate",
    "reindex",
    "export default moved",
    "backup saved",
]


@pytest.mark.parametrize("command", LOOKING)
def test_looking_where_nothing_is_creates_nothing(longleaf: Command, tmp_path: Path, command: str) -> None:
    for folder in (tmp_path / "nx", tmp_path):
        told = longleaf(*command.split(), "--data", str(folder), "--json")
        assert (told.code, told.json["error"]["code"]) == (1, "not_found")
        assert told.json["error"]["message"] == f"There is no data in '{folder}'."
        assert "--data" in told.json["error"]["remedy"]
    longleaf("doctor", "--data", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_an_empty_installation_has_nothing_to_compare(longleaf: Command) -> None:
    longleaf("jobs", "work", "--drain")
    told = longleaf("verify")
    assert (told.code, told.out) == (0, "")
    assert told.err.startswith("Nothing is there to compare.")


def test_the_index_is_verified_and_rebuilt(longleaf: Command, folder: Path, tmp_path: Path) -> None:
    import shutil

    longleaf("ingest", str(folder))
    assert longleaf("verify", "--json").json["clean"]
    shutil.rmtree(tmp_path / "longleaf-data" / "index")
    broken = longleaf("verify")
    assert broken.code == 1
    assert "longleaf repair" in broken.err
    assert longleaf("repair", "--json").json["collections"][0]["rebuilt_documents"] == 3
    assert longleaf("verify").code == 0
    assert longleaf("search", "whale", "-k", "1", "--json").json["hits"][0]["document_id"] == "whale.txt"


@pytest.mark.parametrize("indexer", ["exact", "qdrant_edge"])
def test_a_damaged_index_is_told_and_repaired(
    longleaf: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indexer: str
) -> None:
    monkeypatch.setenv("LONGLEAF_INDEXER__NAME", indexer)
    longleaf("ingest", str(folder))
    for file in (tmp_path / "longleaf-data" / "index").rglob("*"):
        if file.is_file():
            file.write_bytes(b"rubbish")
    for command in (["search", "whale"], ["ingest", str(folder)]):
        told = longleaf(*command, "--json")
        assert told.code == 1
        assert told.json["error"]["code"] == "index_damaged"
        assert "longleaf repair" in told.json["error"]["remedy"]
    assert longleaf("repair").code == 0
    assert longleaf("verify").code == 0
    assert longleaf("search", "whale", "-k", "1", "--json").json["hits"][0]["document_id"] == "whale.txt"


def test_kept_versions_are_shown_by_number(longleaf: Command, folder: Path) -> None:
    whale = folder / "whale.txt"
    for text in ("The first whale.", "The second whale."):
        whale.write_text(text)
        assert longleaf("ingest", str(whale), "--id", "whale", "--on-conflict", "new_version").code == 0
    assert longleaf("documents", "show", "whale", "--text").out == "The second whale.\n"
    old = ("documents", "show", "whale", "--version", "1")
    assert longleaf(*old, "--text").out == "The first whale.\n"
    record = longleaf(*old, "--json").json
    assert (record["version"], record["chars"]) == (1, 16)
    assert longleaf("documents", "show", "whale", "--json").json["version"] == 2
    missing = longleaf("documents", "show", "whale", "--version", "3", "--json").json["error"]
    assert "newest first: 2, 1;" in missing["remedy"]


def test_answers_read_as_many_passages_wherever_they_are_asked_for() -> None:
    from api.commands.answering import ask
    from api.compat.chat import SearchOptions
    from api.routes.answer import AnswerRequest
    from pipeline.types import ANSWER_TOP_K

    told = inspect.signature(ask).parameters["top_k"].default
    assert told == SearchOptions().top_k == AnswerRequest(query="x").top_k == ANSWER_TOP_K


def test_a_missing_model_is_told(longleaf: Command, folder: Path, tmp_path: Path) -> None:
    for command in (["ingest", str(folder)], ["search", "whale"]):
        absent = ("--set", "embedder.name=sentence_transformer", "--set", f"embedder.model={tmp_path}")
        told = longleaf(*command, *absent, "--json")
        assert told.code == 1
        assert told.json["error"]["code"] == "model_not_found"
        assert told.json["error"]["remedy"]


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["search", ""], 2, "invalid_request"),
        (["search", "x" * 100_000], 2, "limit_exceeded"),
        (["search", "x", "-c", "nowhere"], 1, "not_found"),
        (["search", "x", "--filter", '{"colour": "red"}'], 2, "filter"),
        (["search", "x", "--filter", "colour=red"], 2, "invalid_request"),
        (["search", "x", "-k", "0"], 2, "invalid_request"),
        (["search", "x", "-k", "many"], 2, "usage"),
        (["search"], 2, "usage"),
        (["search", "x", "--colour"], 2, "usage"),
        (["serch"], 2, "usage"),
        (["ask", "x", "--mode", "guess"], 2, "usage"),
        (["ask", " "], 2, "invalid_request"),
        (["search", "\udcff"], 2, "invalid_request"),
        (["ask", "\udcff"], 2, "invalid_request"),
        (["documents", "show", "whale.txt", "--version", "0"], 2, "usage"),
        (["documents", "show", "whale.txt", "--version", "9"], 1, "not_found"),
        (["ingest", "papers/none"], 2, "invalid_request"),
        (["ingest", "papers", "--id", "one"], 2, "invalid_request"),
        (["ingest", "papers", "-m", "year"], 2, "invalid_request"),
        (["ingest", "papers", "-m", "{"], 2, "invalid_request"),
        (["ingest", "papers", "--set", "server.prot=1"], 2, "configuration"),
        (["ingest", "papers", "--set", "prot"], 2, "configuration"),
        (["ingest", "papers", "--config", "none.toml"], 2, "configuration"),
        (["documents", "show", "nothing"], 1, "not_found"),
        (["collections", "drop", "nothing", "--yes"], 1, "not_found"),
        (["keys", "revoke", "nothing"], 1, "not_found"),
        (["serve", "--host", "0.0.0.0"], 2, "configuration"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_told(
    longleaf: Command, folder: Path, arguments: list[str], code: int, kind: str
) -> None:
    (folder / "none").mkdir()
    (folder / "none" / "notes.bin").write_bytes(b"\x00\x01")
    longleaf("ingest", str(folder))
    told = longleaf(*arguments, "--json")
    assert told.code == code
    assert told.json["error"]["code"] == kind
    assert told.json["error"]["message"]
    assert told.json["error"]["remedy"]
    assert told.err == ""
    for_people = longleaf(*arguments)
    assert for_people.code == code
    assert for_people.out == ""
    assert for_people.err.startswith("error: ")
    assert "\n  fix: " in for_people.err
    assert "Traceback" not in for_people.err


def test_text_cannot_steer_the_terminal(longleaf: Command, tmp_path: Path) -> None:
    (tmp_path / "evil.txt").write_text("The whale \x1b[31mturns\x1b]0;title\x07 red. [bold]not bold[/bold]")
    longleaf("ingest", "evil.txt")
    told = longleaf("search", "whale")
    assert "\x1b" not in told.out + told.err
    assert "[bold]not bold[/bold]" in told.out


def test_keys_are_made_listed_and_revoked(longleaf: Command) -> None:
    assert longleaf("keys", "list", "--json").json == {"keys": []}
    made = longleaf("keys", "create", "robot", "--json").json
    [key] = longleaf("keys", "list", "--json").json["keys"]
    assert made["key"].startswith(f"{key['id']}.")
    assert made["key"].split(".")[1] not in longleaf("keys", "list").out
    assert longleaf("keys", "revoke", key["id"]).code == 0
    assert longleaf("keys", "list", "--json").json["keys"][0]["revoked"]
    scope = ("--tenant", "acme", "-c", "books", "-c", "notes*", "--access", "read")
    made = longleaf("keys", "create", "reader", *scope, "--json").json
    assert (made["tenant"], made["collections"], made["access"]) == ("acme", ["books", "notes*"], "read")
    listed = longleaf("keys", "list", "--json").json["keys"][1]
    assert (listed["tenant"], listed["collections"], listed["access"]) == ("acme", "books notes*", "read")
    assert longleaf("keys", "create", "x", "--access", "root").code == 2


def test_ready_says_when_nothing_answers(longleaf: Command) -> None:
    told = longleaf("ready", "--url", "http://127.0.0.1:9", "--json")
    assert (told.code, told.json["status"]) == (1, "unreachable")


def test_the_doctor_says_what_is_there_and_what_is_missing(longleaf: Command, tmp_path: Path) -> None:
    checks = {check["name"]: check for check in longleaf("doctor", "--json").json["checks"]}
    assert {"longleaf", "libraries", "processor", "memory", "disk", "embedder", "index"} <= set(checks)
    assert checks["embedder"]["state"] == "ok"
    assert checks["ledger"]["remedy"] == "longleaf ingest FILE"
    assert not (tmp_path / "longleaf-data").exists()
    sick = longleaf("doctor", "--set", f"language_model.spec={tmp_path}", "--json")
    assert sick.code == 1
    missing = next(check for check in sick.json["checks"] if check["state"] == "missing")
    assert missing["name"] == "language model"
    assert missing["remedy"]
    settings = longleaf("doctor", "--settings", "--json").json["settings"]
    assert settings["embedder.name"] == "hashing"


def test_a_defect_is_one_line_unless_asked_for_more(
    longleaf: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("api.settings.load_settings", broken)
    told = longleaf("search", "x")
    assert told.code == 1
    assert told.err == "error: ZeroDivisionError: by zero\n  fix: Run again with --debug for the trace.\n"
    with pytest.raises(ZeroDivisionError):
        main(["search", "x", "--debug"])


def commands() -> list[list[str]]:
    app = build_app()
    own = [[command.name or ""] for command in app.registered_commands]
    return own + [
        [group.name or "", command.name or ""]
        for group in app.registered_groups
        for command in (group.typer_instance.registered_commands if group.typer_instance else [])
    ]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(longleaf: Command, command: list[str]) -> None:
    told = longleaf(*command, "--help")
    assert told.code == 0
    assert f"Example: longleaf {' '.join(command)}" in told.out
    assert "--json" in told.out


def test_help_is_quick() -> None:
    """As a process, because that is what is waited for; nothing heavy may be loaded on the way."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "api.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Exit codes: 0 done" in re.sub(r"\s+", " ", result.stdout)
    loaded = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines()}
    assert not loaded & {"numpy", "torch", "sqlalchemy", "fastapi", "pipeline.types"}


def test_a_collection_indexed_anew_keeps_settings_of_its_own(longleaf: Command, folder: Path) -> None:
    with open_longleaf(load_settings({})) as opened:
        opened.benches.create(
            "default", "mine", chunking={"passage_tokens": 24, "unit_tokens": 12, "unit_min_tokens": 4}
        )
    for name in ("mine", "usual"):
        assert longleaf("ingest", str(folder), "-c", name).code == 0
    before, usual = (longleaf("reindex", name, "--json").json["passages"] for name in ("mine", "usual"))
    assert before > usual
    assert longleaf("reindex", "mine", "--json").json["passages"] == before
    assert longleaf("search", "whale", "-c", "mine", "--json").json["hits"]


def test_an_embedder_learns_from_a_collection(longleaf: Command, folder: Path) -> None:
    """Refused where it learns nothing; afterwards the collection is indexed anew."""
    assert longleaf("ingest", str(folder)).code == 0
    refused = longleaf("calibrate", "embedder")
    assert (refused.code, "Set embedder.name to whitened" in refused.err) == (2, True), refused.err
    whitened = ["--set", "embedder.name=whitened", "--set", "embedder.inner=hashing"]
    found = longleaf("calibrate", "embedder", "--json", *whitened).json
    assert found["documents"] == 3
    assert found["vectors"] >= 3
    told = longleaf("calibrate", "embedder", "--tokens", "1", *whitened)
    assert told.out.startswith("learnt from 1 documents, "), told.out
    assert "longleaf reindex" not in told.err  # made with another embedder, and searched with that
    assert longleaf("search", "whale", *whitened).code != 0
    assert longleaf("reindex", *whitened).code == 0
    assert longleaf("search", "whale", "--json", *whitened).json["hits"]
    outdated = longleaf("calibrate", "embedder", *whitened)
    assert "built anew: longleaf reindex default" in outdated.err, outdated.err


def test_a_collection_is_indexed_anew_and_moved(longleaf: Command, folder: Path) -> None:
    """Other chunks and other vectors, then to another index and another name."""
    assert longleaf("ingest", str(folder)).code == 0
    smaller = ["--set", "chunking.passage_tokens=128", "--set", "embedder.dim=128"]
    refused = longleaf("search", "whale", *smaller)
    assert refused.code != 0, refused.err
    built = longleaf("reindex", "--json", *smaller).json
    assert (built["generation"], built["documents"]) == (1, 3)
    found = longleaf("search", "whale", "--json", *smaller).json
    assert found["hits"]
    assert longleaf("export", "default", "moved", *smaller).code == 0
    elsewhere = [
        *smaller,
        "--data",
        "elsewhere",
        "--set",
        "indexer.name=faiss",
        "--set",
        "indexer.record=exact",
    ]
    moved = longleaf("import", "moved", "-c", "copy", "--json", *elsewhere).json
    assert (moved["collection"], moved["documents"], moved["unchanged"]) == ("copy", 3, 0)
    again = longleaf("search", "whale", "-c", "copy", "--json", *elsewhere).json
    assert [hit["text"] for hit in again["hits"]] == [hit["text"] for hit in found["hits"]]
    assert longleaf("verify", *elsewhere).code == 0
    assert longleaf("import", "nowhere").code == 2
