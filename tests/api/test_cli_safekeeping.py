"""``longleaf backup``, ``restore`` and ``migrate``."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from api.build import open_longleaf
from api.cli import main
from api.settings import load_settings
from pipeline.layers import LAYERS, index_name
from pipeline.seams import IndexSchema

SMALL = ["--set", "embedder.name=hashing", "--set", "language_model.spec=none"]
GOLDEN = Path(__file__).parents[1] / "data" / "version_1"


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(
        *arguments: str | Path, data: str = "data", embedder: str = "", indexer: str = "exact"
    ) -> tuple[int, Any]:
        learning = ["--set", f"embedder.name={embedder}", "--set", "embedder.inner=hashing"]
        settings = [*SMALL, *(learning if embedder else []), "--set", f"indexer.name={indexer}"]
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, arguments), "--data", str(tmp_path / data), "--json", *settings])
        return int(stopped.value.code or 0), json.loads(capsys.readouterr().out)

    return call


def test_a_backup_is_restored_and_searched(run: Any, tmp_path: Path) -> None:
    (tmp_path / "otter.txt").write_text("The otter lives by the river.")
    run("ingest", tmp_path / "otter.txt")
    code, told = run("backup", tmp_path / "backup")
    assert (code, told["documents"]) == (0, 1)
    assert run("backup", tmp_path / "backup")[1]["error"]["code"] == "conflict"
    code, told = run("restore", tmp_path / "backup")
    assert (code, told["error"]["code"]) == (1, "conflict")
    code, told = run("restore", tmp_path / "backup", "--replace")
    assert (code, told["documents"], told["left_out"]) == (0, 1, 0)
    assert run("search", "otter")[1]["hits"]
    assert run("verify")[1]["clean"]
    code, told = run("restore", tmp_path / "backup", "--no-index", data="other")
    assert code == 0
    assert run("verify", data="other")[1]["clean"] is False


@pytest.mark.parametrize("name", ["whitened", "centred"])
def test_what_an_embedder_has_learnt_comes_back(run: Any, tmp_path: Path, name: str) -> None:
    """With its name, or the restored collection would be another embedder's."""
    (tmp_path / "otter.txt").write_text("The otter lives by the river. It eats fish. The heron stands in it.")
    assert run("ingest", tmp_path / "otter.txt", embedder=name)[0] == 0
    found = run("search", "otter", embedder=name)[1]["hits"]
    learnt = files_in(tmp_path / "data" / "embedder")
    assert run("backup", tmp_path / "backup")[0] == 0
    for data in ("data", "elsewhere"):
        assert run("restore", tmp_path / "backup", "--replace", embedder=name, data=data)[0] == 0
        assert files_in(tmp_path / data / "embedder") == learnt
        again = run("search", "otter", embedder=name, data=data)[1]["hits"]
        assert [(hit["text"], hit["score"]) for hit in again] == [(h["text"], h["score"]) for h in found]
    (statistics,) = (tmp_path / "backup").glob("embedder/*/statistics*.npz")
    statistics.write_bytes(b"damaged")
    code, told = run("restore", tmp_path / "backup", "--replace", embedder=name)
    assert (code, told["error"]["code"]) == (1, "storage")
    assert files_in(tmp_path / "data" / "embedder") == learnt


def test_calibrations_come_back(run: Any, tmp_path: Path) -> None:
    (tmp_path / "otter.txt").write_text("The otter lives by the river.")
    run("ingest", tmp_path / "otter.txt")
    kept = tmp_path / "data" / "calibrations"
    kept.mkdir()
    (kept / "model.json").write_text("{}")
    (kept / "model.tmp").write_text("half writ")
    assert run("backup", tmp_path / "backup")[0] == 0
    for data in ("data", "elsewhere"):
        assert run("restore", tmp_path / "backup", "--replace", "--no-index", data=data)[0] == 0
        assert [path.name for path in (tmp_path / data / "calibrations").iterdir()] == ["model.json"]


def test_a_backup_from_before_leaves_what_was_learnt(run: Any, tmp_path: Path) -> None:
    (tmp_path / "otter.txt").write_text("The otter lives by the river. It eats fish. The heron stands in it.")
    run("ingest", tmp_path / "otter.txt", embedder="whitened")
    run("backup", tmp_path / "backup")
    shutil.rmtree(tmp_path / "backup" / "embedder")
    manifest = tmp_path / "backup" / "backup.json"
    told = json.loads(manifest.read_text())
    told["files"] = {path: digest for path, digest in told["files"].items() if "embedder" not in path}
    manifest.write_text(json.dumps(told))
    assert run("restore", tmp_path / "backup", "--replace", embedder="whitened")[0] == 0
    assert run("search", "otter", embedder="whitened")[1]["hits"]
    assert run("restore", tmp_path / "backup", "--no-index", data="new")[0] == 0


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_index_of_another_engine_is_told_and_removed(
    run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is deleted after a change of engine would stay in it."""
    (tmp_path / "otter.txt").write_text("The otter lives by the river.")
    run("ingest", tmp_path / "otter.txt", "-m", "owner=canary")
    assert caplog.messages == []
    run("export", "default", tmp_path / "exported")
    assert run("import", tmp_path / "exported", indexer="qdrant_edge")[0] == 0
    assert run("documents", "delete", "otter.txt", indexer="qdrant_edge")[0] == 0
    assert holding(tmp_path / "data", b"canary")
    assert run("search", "otter")[1]["hits"] == []
    assert "'exact' is used, and there are files of 'qdrant_edge'" in caplog.messages[-1]
    code, told = run("verify", indexer="qdrant_edge")
    assert (code, told["clean"], told["other_indexes"]) == (1, False, ["exact"])
    code, told = run("doctor", indexer="qdrant_edge")
    assert "exact: not configured" in next(c["detail"] for c in told["checks"] if c["name"] == "index")
    assert run("repair", indexer="qdrant_edge")[1]["removed_indexes"] == ["exact"]
    assert holding(tmp_path / "data", b"canary") == []
    code, told = run("verify", indexer="qdrant_edge")
    assert (code, told["clean"], told["other_indexes"]) == (0, True, [])


def test_an_index_in_use_is_no_other_one(run: Any, tmp_path: Path) -> None:
    (tmp_path / "otter.txt").write_text("The otter lives by the river.")
    run("ingest", tmp_path / "otter.txt")
    for path in ("index/exact", "index", "index/exact/deeper"):
        settings = load_settings({"data": tmp_path / "data", "indexer": {"path": tmp_path / "data" / path}})
        assert settings.other_indexes() == {}
    served = load_settings({"data": tmp_path / "data", "indexer": {"name": "qdrant"}})
    assert list(served.other_indexes()) == ["exact"]


def test_an_index_of_a_program_of_ones_own_is_not_removed(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "otter.txt").write_text("The otter lives by the river.")
    run("ingest", tmp_path / "otter.txt")
    settings = load_settings({"data": tmp_path / "data", "indexer": {"name": "exact"}})
    with open_longleaf(settings) as longleaf:
        longleaf.indexer.create("langchain", IndexSchema("a program's own", 2, False, {}))
    assert run("backup", tmp_path / "backup")[1]["not_in_it"] == ["langchain"]
    told = run("repair", indexer="qdrant_edge")[1]
    assert told["removed_indexes"] == []
    assert (tmp_path / "data" / "index" / "exact").exists()
    with pytest.raises(SystemExit):
        main(["verify", "--data", str(tmp_path / "data"), *SMALL, "--set", "indexer.name=qdrant_edge"])
    assert "repair leaves it, since 'langchain' in it is a program's own" in capsys.readouterr().out
    with open_longleaf(settings) as longleaf:
        for layer in LAYERS:
            longleaf.indexer.drop(index_name("default", "default", layer))
    code, told = run("verify", indexer="qdrant_edge")
    assert (code, told["other_indexes"]) == (0, []), "nothing of a collection is left there"


def holding(folder: Path, word: bytes) -> list[str]:
    return [name for name, content in files_in(folder).items() if word in content]


def test_an_engine_without_the_index_says_what_helps(run: Any, tmp_path: Path) -> None:
    (tmp_path / "otter.txt").write_text("The otter lives by the river.")
    run("ingest", tmp_path / "otter.txt")
    code, told = run("search", "otter", indexer="qdrant_edge")
    assert code == 1
    assert "longleaf repair" in told["error"]["remedy"] and "indexer.name" in told["error"]["remedy"]
    run("repair", indexer="qdrant_edge")
    assert run("search", "otter", indexer="qdrant_edge")[1]["hits"]


def test_an_exported_collection_that_was_learnt_from_is_searched(run: Any, tmp_path: Path) -> None:
    (tmp_path / "otter.txt").write_text("The otter lives by the river. It eats fish. The heron stands in it.")
    run("ingest", tmp_path / "otter.txt", embedder="whitened")
    run("export", "default", tmp_path / "exported", embedder="whitened")
    assert run("import", tmp_path / "exported", embedder="whitened", data="new")[0] == 0
    assert run("search", "otter", embedder="whitened", data="new")[1]["hits"]
    shutil.rmtree(tmp_path / "new" / "embedder")  # as one that an older Longleaf exported
    code, told = run("reindex", "default", embedder="whitened", data="new")
    assert code == 1 and "longleaf calibrate embedder" in told["error"]["remedy"]
    assert run("calibrate", "embedder", "default", embedder="whitened", data="new")[0] == 0
    assert run("reindex", "default", embedder="whitened", data="new")[0] == 0
    assert run("search", "otter", embedder="whitened", data="new")[1]["hits"]


def test_old_data_goes_forward_when_it_is_told(run: Any, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "data")
    code, told = run("collections", "list", "--set", "ledger.migrate=false")
    assert (code, told["error"]["code"]) == (1, "data_version")
    assert "longleaf migrate" in told["error"]["remedy"]
    assert run("migrate") == (0, {"from": 1, "to": 2})
    assert run("migrate") == (0, {"from": 2, "to": 2})
    code, told = run("collections", "list", "--set", "ledger.migrate=false")
    assert [c["documents"] for c in told["collections"]] == [3, 1]


def test_newer_data_is_refused(run: Any, tmp_path: Path) -> None:
    run("jobs", "work", "--drain")
    with sqlite3.connect(tmp_path / "data" / "ledger.sqlite") as connection:
        connection.execute("UPDATE data_version SET version = 999")
    connection.close()
    for command in ("collections list", "migrate"):
        code, told = run(*command.split())
        assert (code, told["error"]["code"]) == (1, "data_version")
        assert "newer Longleaf" in told["error"]["remedy"]


def test_a_password_of_the_database_is_never_shown(run: Any) -> None:
    url = "ledger.url=postgresql://someone:secret-word@/x?host=/nowhere"
    for command in ("doctor --settings", "collections list"):
        _, told = run(*command.split(), "--set", url)
        assert "secret-word" not in json.dumps(told)


def test_settings_of_the_server_count_unless_an_option_says_otherwise(run: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, told = run("serve", "--set", f"server.port={port}")
    assert (code, told["error"]["code"]) == (1, "unavailable")
    assert f"port {port}" in told["error"]["message"]
