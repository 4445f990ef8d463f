"""Ingestion over several processes: workers that share a ledger in PostgreSQL and a served index share the
work, none twice, and when one is killed the others finish it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from postgres import Cluster
from qdrant_server import qdrant_server
from tallies import tally

from api.build import Longleaf, open_longleaf
from api.sections import LanguageModelSettings, LedgerSettings, PluginChoice, Settings
from pipeline.jobs import JobConfig
from pipeline.reconcile import verify
from pipeline.sources import Source

DOCUMENTS, LEASE_SECONDS, PATIENCE_SECONDS = 24, 3.0, 120
CHILD = """
import json, sys, time
from pathlib import Path
from pipeline import writers
from test_two_workers import LEASE_SECONDS, opened

writers.LEASE_SECONDS = LEASE_SECONDS
with opened(*json.loads(sys.argv[1])) as longleaf:
    def told(tenant, result):
        print("did", result.document_id, flush=True)
        time.sleep(0.1)
    longleaf.worker.told = told
    longleaf.worker.start()
    print("ready", flush=True)
    sys.stdin.readline()
    longleaf.worker.close()
"""


def opened(root: str, ledger_url: str, index_url: str) -> Any:
    """As a worker on any host would be set up: the same database, the same index, the same folder."""
    return open_longleaf(
        Settings(
            data=Path(root),
            ledger=LedgerSettings(url=ledger_url),  # type: ignore[arg-type]
            embedder=PluginChoice(name="hashing"),
            indexer=PluginChoice(name="qdrant", url=index_url),  # type: ignore[arg-type]
            language_model=LanguageModelSettings(spec="none"),
            jobs=JobConfig(workers=1, batch_documents=2, backoff_seconds=0.01, poll_seconds=0.02),
        )
    )


@pytest.fixture
def place(tmp_path: Path, postgres: Cluster) -> Iterator[tuple[list[str], Longleaf]]:
    with qdrant_server(tmp_path / "qdrant") as qdrant:
        where = [str(tmp_path / "data"), postgres.database(), qdrant.url]
        with opened(*where) as longleaf:
            yield where, longleaf


def started(where: list[str]) -> subprocess.Popen[str]:
    places = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(where)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
    )
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    return child


def submitted(longleaf: Longleaf) -> str:
    sources = [Source(f"{i:02}", text=f"Otter number {i} swims. " * 20) for i in range(DOCUMENTS)]
    return longleaf.job_queue.submit(sources)[0].id


def finished(longleaf: Longleaf, job: str) -> str:
    until = time.monotonic() + PATIENCE_SECONDS
    while (found := longleaf.job_queue.get(job)).finished is None:
        assert time.monotonic() < until, found
        time.sleep(0.05)
    return found.state


def check(longleaf: Longleaf) -> None:
    stored = longleaf.ledger.documents("default", "default", limit=1000)
    assert [record.version for record in stored] == [1] * DOCUMENTS
    assert all(found.clean for found in verify(longleaf.ledger, longleaf.indexer))
    assert longleaf.ledger.leftovers() == []


def test_two_workers_share_the_work(place: tuple[list[str], Longleaf]) -> None:
    where, longleaf = place
    with ExitStack() as running:
        workers = [running.enter_context(started(where)) for _ in range(2)]
        job = submitted(longleaf)
        assert finished(longleaf, job) == "done"
        said = [worker.communicate("stop\n", timeout=60)[0].split() for worker in workers]
    done = [set(words) - {"did"} for words in said]
    assert all(done), "one worker did it all"
    assert not done[0] & done[1], "both did the same"
    assert len(done[0] | done[1]) == DOCUMENTS
    check(longleaf)


def test_a_killed_worker_is_replaced_by_the_other(place: tuple[list[str], Longleaf]) -> None:
    where, longleaf = place
    with ExitStack() as running:
        doomed = running.enter_context(started(where))
        job = submitted(longleaf)
        assert doomed.stdout is not None and doomed.stdout.readline().startswith("did")
        doomed.send_signal(signal.SIGKILL)
        began = time.monotonic()
        other = running.enter_context(started(where))
        assert finished(longleaf, job) == "done"
        seconds = time.monotonic() - began
        other.communicate("stop\n", timeout=60)
    check(longleaf)
    tally("4 (killed workers' work is resumed)", seconds=seconds)
