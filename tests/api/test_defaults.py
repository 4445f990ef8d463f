"""The installation as it comes: default embedder, default index in its own process, default model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_library import FROST, LEASE, WHALE

pytestmark = pytest.mark.model


def longleaf(root: Path, *arguments: str) -> Any:
    """The JSON that a command prints, run as a process of its own without any setting."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LONGLEAF_")}
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", *arguments, "--json"],
        cwd=root,
        env={**environment, "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_ingest_search_ask_verify_and_delete(tmp_path: Path) -> None:
    papers = tmp_path / "papers"
    papers.mkdir()
    for name, text in (("lease", LEASE), ("whale", WHALE), ("frost", FROST)):
        (papers / f"{name}.txt").write_text(text)
    assert longleaf(tmp_path, "ingest", "papers")["totals"]["created"] == 3

    # In other words than the document's: found by meaning.
    found = longleaf(tmp_path, "search", "terminating rental contracts", "-k", "1")
    assert found["hits"][0]["document_id"] == "lease.txt"

    answer = longleaf(tmp_path, "ask", "How much notice is needed to end the lease?")
    assert answer["found"]
    citation = answer["statements"][0]["citations"][0]
    assert LEASE[citation["start"] : citation["end"]] == citation["quote"]
    assert answer["usage"]["completion_tokens"] > 0

    assert longleaf(tmp_path, "verify")["clean"]
    assert longleaf(tmp_path, "documents", "delete", "lease.txt")["deleted"] == ["lease.txt"]
    left = longleaf(tmp_path, "search", "terminating rental contracts")
    assert "lease.txt" not in {hit["document_id"] for hit in left["hits"]}
    assert all(check["state"] != "missing" for check in longleaf(tmp_path, "doctor")["checks"])
    assert {path.name for path in tmp_path.iterdir()} == {"papers", "longleaf-data"}
