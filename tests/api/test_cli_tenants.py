"""The operator at the machine works on any tenant's documents with ``--tenant``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

LEASE = "Either party may end the lease of the mill with three months' notice."


def test_a_tenant_is_worked_on_by_name(run: Any, tmp_path: Path) -> None:
    lease = tmp_path / "lease.txt"
    lease.write_text(LEASE)
    acme = ("--tenant", "acme")
    assert run("ingest", lease, *acme)[0] == 0
    assert [d["id"] for d in run("documents", "list", *acme)[1]["documents"]] == ["lease.txt"]
    assert run("documents", "list")[1]["error"]["code"] == "not_found"
    assert run("collections", "list")[1] == {"collections": []}
    assert [c["name"] for c in run("collections", "list", *acme)[1]["collections"]] == ["default"]
    assert run("documents", "show", "lease.txt", "--text", *acme)[1]["text"] == LEASE
    hits = run("search", "notice", *acme)[1]["hits"]
    assert hits[0]["document_id"] == "lease.txt"
    answer = run("ask", "With how much notice may either party end the lease?", *acme)[1]
    assert answer["statements"][0]["citations"][0]["document_id"] == "lease.txt"
    assert run("search", "notice")[1]["error"]["code"] == "not_found"
    assert run("reindex", *acme)[1]["documents"] == 1
    assert run("export", "default", tmp_path / "out", *acme)[1]["documents"] == 1
    assert run("import", tmp_path / "out", "--tenant", "rival")[1]["documents"] == 1
    assert run("documents", "delete", "lease.txt", "--tenant", "rival")[1]["deleted"] == ["lease.txt"]
    assert run("documents", "show", "lease.txt", *acme)[0] == 0
    assert run("collections", "drop", "default", "--yes", *acme)[1] == {"dropped": "default"}
    assert run("collections", "list", *acme)[1] == {"collections": []}


def test_jobs_of_a_tenant(run: Any, tmp_path: Path) -> None:
    lease = tmp_path / "lease.txt"
    lease.write_text(LEASE)
    _, told = run("ingest", lease, "--queue", "--tenant", "acme")
    assert told["job"]["tenant"] == "acme"
    run("ingest", lease, "--queue")
    assert [job["id"] for job in run("jobs", "list", "--tenant", "acme")[1]["jobs"]] == [told["job"]["id"]]
    assert len(run("jobs", "list")[1]["jobs"]) == 2
    assert run("jobs", "work", "--drain")[0] == 0
    assert [d["id"] for d in run("documents", "list", "--tenant", "acme")[1]["documents"]] == ["lease.txt"]


def test_remedies_name_the_tenant(run: Any, tmp_path: Path) -> None:
    lease = tmp_path / "lease.txt"
    lease.write_text(LEASE)
    run("ingest", lease, "-c", "c1")
    run("ingest", lease, "-c", "c1", "--tenant", "acme")
    for tenant, whose in (("acme", " --tenant acme"), ("default", "")):
        shelf = ("-c", "c1", "--tenant", tenant)
        other = run("search", "x", *shelf, "--set", "lexical.k1=1.3")[1]["error"]
        assert other["remedy"].endswith(f"longleaf reindex c1{whose}")
        missing = run("documents", "show", "none", *shelf)[1]["error"]
        assert missing["remedy"].endswith(f"longleaf documents list --collection c1{whose}")


@pytest.mark.parametrize("name", ["", "a/b", "x" * 500])
def test_a_name_that_no_tenant_can_have(run: Any, tmp_path: Path, name: str) -> None:
    lease = tmp_path / "lease.txt"
    lease.write_text(LEASE)
    code, told = run("ingest", lease, "--tenant", name)
    assert code == 2
    assert told["error"]["code"] == "invalid_request"
