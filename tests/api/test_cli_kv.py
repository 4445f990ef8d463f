"""``longleaf kv`` on a tiny language model: build, check, prune, and states that go with their documents."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from small_library import FROST, LEASE

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "lm"))

from tiny_networks import make_network, make_tokenizer

from api.cli import main


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny-llama"
    make_network("llama").save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def longleaf(tmp_path, monkeypatch, capsys, tiny_folder):
    """Runs ``longleaf`` in this process with the tiny model."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "EMBEDDER__NAME": "hashing",
        "INDEXER__NAME": "exact",
        "LANGUAGE_MODEL__SPEC": str(tiny_folder),
        "MODELS__CACHE": str(tmp_path / "cache"),
        "CHUNKING__PASSAGE_TOKENS": "32",
        "CHUNKING__UNIT_TOKENS": "16",
        "CHUNKING__UNIT_MIN_TOKENS": "4",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"LONGLEAF_{name}", value)

    def run(*arguments, code=0):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        printed = capsys.readouterr()
        assert int(stop.value.code or 0) == code, printed
        return json.loads(printed.out) if "--json" in arguments else printed.out

    (tmp_path / "lease.txt").write_text(LEASE)
    (tmp_path / "frost.txt").write_text(FROST)
    run("ingest", "lease.txt", "frost.txt")
    return run


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_states_are_built_once_kept_in_order_and_go_with_their_document(longleaf, tmp_path):
    kept = tmp_path / "longleaf-data" / "kv"
    assert longleaf("kv", "stats", "--json")["files"] == 0
    first = longleaf("kv", "warm", "--json")
    assert first["built"] == len(files(kept)) > 2
    assert (first["disk"], first["unwritten"]) == (0, 0)
    again = longleaf("kv", "warm", "--json")
    assert (again["built"], again["disk"]) == (0, first["built"])
    told = longleaf("kv", "stats", "--measure", "--json")
    assert told["files"] == first["built"]
    assert told["bytes"] == sum(path.stat().st_size for path in files(kept))
    assert told["bytes_per_1000_tokens"] == 3 * 2 * 8 * 2 * 4 * 1000
    assert told["seconds_per_1000_tokens"] > 0
    assert longleaf("kv", "verify", "--json") == {
        "ok": first["built"], "stale": 0, "orphan": 0, "damaged": 0, "files": []
    }  # fmt: skip
    [lease, frost] = (d["id"] for d in longleaf("documents", "list", "--json")["documents"])
    before = len(files(kept))
    longleaf("documents", "delete", lease)
    assert 0 < len(files(kept)) < before
    assert longleaf("kv", "verify", "--json")["orphan"] == 0
    longleaf("documents", "delete", frost)
    assert [path for path in kept.rglob("*")] == [kept / "kv.secret"]


def test_what_is_damaged_stale_or_orphaned_is_found_and_pruned(longleaf, tmp_path, monkeypatch):
    from pipeline.lm import context_prompt

    kept = tmp_path / "longleaf-data" / "kv"
    built = longleaf("kv", "warm", "--json")["built"]
    paths = files(kept)
    content = bytearray(paths[0].read_bytes())
    content[-5] ^= 1
    paths[0].write_bytes(content)
    orphan = kept / paths[1].parent.parent.name / ("0" * 32) / paths[1].name
    orphan.parent.mkdir()
    orphan.write_bytes(paths[1].read_bytes())
    found = longleaf("kv", "verify", "--json", code=1)
    assert (found["ok"], found["damaged"], found["orphan"]) == (built - 1, 1, 1)
    assert {each["state"] for each in found["files"]} == {"damaged", "orphan"}
    assert longleaf("kv", "verify", "--quick", "--json")["damaged"] == 0  # manifests are whole
    assert "2 files removed" in longleaf("kv", "prune")
    assert longleaf("kv", "verify", "--json")["ok"] == built - 1
    monkeypatch.setattr(context_prompt, "SYSTEM", "Answer in Latin.")
    stale = longleaf("kv", "verify", "--json")
    assert (stale["ok"], stale["stale"]) == (0, built - 1)
    assert "prefix" in stale["files"][0]["why"]
    assert longleaf("kv", "prune", "--json")["files"] == built - 1
    assert not files(kept)


def test_pruning_to_a_size_keeps_at_most_that(longleaf, tmp_path):
    longleaf("kv", "warm")
    kept = tmp_path / "longleaf-data" / "kv"
    size = sum(path.stat().st_size for path in files(kept))
    longleaf("kv", "prune", "--quick", "--to", str(size // 2))
    assert 0 < sum(path.stat().st_size for path in files(kept)) <= size // 2
    longleaf("kv", "prune", "--quick", "--to", "0")
    assert not files(kept)


def test_only_one_document_is_warmed_if_asked(longleaf):
    lease = longleaf("documents", "list", "--json")["documents"][0]["id"]
    some = longleaf("kv", "warm", "--document", lease, "--json")["built"]
    assert 0 < some < longleaf("kv", "warm", "--json")["built"] + some


def test_a_command_that_ingests_sees_the_building_through(tmp_path, longleaf):
    before = len(files(tmp_path))
    (tmp_path / "mill.txt").write_text(LEASE.replace("lease", "mill"))
    longleaf("ingest", "mill.txt", "--set", "contexts.build=ingestion")
    assert len(files(tmp_path)) > before


def test_states_are_built_at_ingestion_in_the_background(tmp_path, monkeypatch, longleaf):
    from api.build import open_longleaf
    from api.settings import load_settings
    from pipeline.sources import Source

    with open_longleaf(load_settings({"contexts.build": "ingestion"})) as parts:
        results = list(parts.ingestor.ingest([Source("more.txt", data=LEASE.encode() * 2)]))
        assert results[0].status == "created"
        parts.cached_states.drain()
        parts.contexts.store.flush()
        built = len(files(tmp_path / "longleaf-data" / "kv"))
        assert built > 0
        parts.ingestor.delete("default", "default", results[0].document_id)
        assert not files(tmp_path / "longleaf-data" / "kv")
        assert len(parts.contexts.store.memory) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("kv", "warm", "-c", "nowhere"), "nowhere"),
        (("kv", "warm", "--document", "nobody"), "nobody"),
        (("kv", "prune", "--to", "-1"), "--to"),
        (("kv", "stats", "--set", "contexts.format=int2"), "int2"),
        (("kv", "stats", "--set", "contexts.memory_bytes=0"), "memory_bytes"),
    ],
)
def test_what_cannot_be_is_told(longleaf, capsys, arguments, said):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    printed = capsys.readouterr()
    assert stop.value.code in (1, 2)
    assert said in printed.err


def test_a_disk_too_small_is_told_and_costs_only_the_files(longleaf):
    told = longleaf("kv", "warm", "--json", "--set", "contexts.disk_bytes=1000", code=1)
    assert told["unwritten"] == told["built"] > 0
