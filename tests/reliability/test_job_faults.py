"""Promises 3 and 4: bad files end with their reason and stop nobody; what is cancelled stops anywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tallies import tally
from workplace import files_below, text, workplace

from pipeline import job_journal, stages
from pipeline.ingest import Source
from pipeline.job_queue import JobQueue
from pipeline.jobs import JobConfig
from pipeline.ledger import Ledger
from pipeline.reconcile import verify
from pipeline.storing import Store
from pipeline.worker import Worker

FULL = os.environ.get("LONGLEAF_RELIABILITY") == "full"
CONFIG = JobConfig(max_attempts=2, backoff_seconds=0.01, max_backoff_seconds=0.02)
POISON = "3 (a bad file stops nobody)"
CANCELLED = "4 (cancelled work stops)"

CHILD = """
import os, sys
sys.path[:0] = [{tests!r}, {root!r}]
from workplace import workplace
from pipeline.job_queue import JobQueue
from pipeline.worker import Worker
from test_job_faults import CONFIG
from embedders import hashing

class Fragile:
    def __init__(self): self._inner = hashing.build(hashing.TINY)
    def __getattr__(self, name): return getattr(self._inner, name)
    def embed_documents(self, documents, progress=None):
        for document in documents:
            if "killer" in document.document.text: os.kill(os.getpid(), 9)
            if "poison" in document.document.text: raise ValueError("cannot stand this")
        return self._inner.embed_documents(documents, progress)

from pathlib import Path
with workplace(Path({data!r}), embedder=Fragile()) as place:
    queue = JobQueue(place.ledger, CONFIG)
    worker = Worker(place.ledger, queue, lambda *_: place.ingestor)
    while any(job.finished is None for job in queue.jobs()):
        worker.drain()
"""


@pytest.mark.parametrize("case", range(30 if FULL else 1))
def test_poison_among_good_files(tmp_path, case):
    """Files that no reader takes, that no embedder stands, and that end the process, at changing places."""
    good = [text(f"good {i}", f"Otter number {i}.") for i in range(6)]
    bad = [
        Source("empty.txt", b""),
        Source("rubbish.pdf", bytes(range(256)) * 8),
        Source("broken.docx", b"PK\x03\x04 not a zip"),
        text("poison", "This is poison."),
        text("killer", "This is a killer."),
    ]
    order = [*good]
    for i, source in enumerate(bad):
        order.insert((case * 5 + i * 3) % (len(order) + 1), source)
    with workplace(tmp_path) as place:
        job = JobQueue(place.ledger, CONFIG).submit(order)[0].id
    code = CHILD.format(
        tests=str(Path(__file__).parents[1]), root=str(Path(__file__).parents[2]), data=str(tmp_path)
    )
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{code}"
    kills = 0
    began = time.monotonic()
    while (status := subprocess.run([sys.executable, "-c", code], timeout=900, check=False).returncode) != 0:
        assert status == -signal.SIGKILL
        kills += 1
        assert kills <= CONFIG.max_attempts + 1, "it is tried for ever"
    with workplace(tmp_path) as place:
        found = {each.document_id: each for each in JobQueue(place.ledger).documents(job)}
        lost = sorted(place.texts()) != sorted(source.name for source in good)
        ended = all(each.stage in ("done", "failed", "quarantined") for each in found.values())
        tally(POISON, lost=lost, leaked=not ended, seconds=time.monotonic() - began)
        assert not lost and ended
        assert {found[name].stage for name in ("empty.txt", "rubbish.pdf", "broken.docx")} == {"failed"}
        assert (found["poison"].stage, found["poison"].code) == ("quarantined", "internal")
        assert (found["killer"].stage, found["killer"].code) == ("quarantined", "worker_ended")
        assert all(
            each.message and each.attempts <= CONFIG.max_attempts + 1 for each in found.values() if each.code
        )
        assert all(each.clean for each in verify(place.ledger, place.indexer))


PLACES = {
    "queued": None,
    "reading": (stages, "arrive"),
    "chunking": (stages, "chunk"),
    "embedding": (job_journal.JobJournal, "keep_vectors"),
    "indexing": (Store, "_check_space"),
    "publishing": (Ledger, "publish"),
}


@pytest.mark.parametrize("how", ["cancel", "delete", "drop"])
@pytest.mark.parametrize("stage", PLACES)
@pytest.mark.parametrize("repeat", range(10 if FULL else 1))
def test_stopped_at_each_stage(tmp_path, monkeypatch, stage, how, repeat):
    """However late it is stopped, a document that is not stored yet never will be."""
    with workplace(tmp_path) as place:
        place.ingest(text("there before", "Heron."))
        queue = JobQueue(place.ledger, CONFIG)
        worker = Worker(place.ledger, queue, lambda *_: place.ingestor)
        job = queue.submit([text("canary", "Otter. " * (repeat + 1)), text("other", "Newt.")])[0].id
        stopped = []

        def stop() -> None:
            if stopped:
                return
            stopped.append(True)
            if how == "cancel":
                queue.cancel(job)
            elif how == "delete":
                place.ledger.delete("default", "default", "canary")
            else:
                place.ledger.drop_collection("default", "default")

        if stage == "queued":
            stop()
        else:
            owner, name = PLACES[stage]
            honest = getattr(owner, name)
            monkeypatch.setattr(owner, name, lambda *a, **k: (stop(), honest(*a, **k))[1])
        began = time.monotonic()
        while worker.drain():
            pass
        seconds = time.monotonic() - began
        assert stopped
        place.ingestor.recover()
        queue.tidy()
        wanted = {"cancel": ["there before"], "delete": ["other", "there before"], "drop": []}[how]
        found = sorted(place.texts()) if place.ledger.collections() else []
        spool = [path for path in files_below(tmp_path / "jobs") if path.suffix != ".lock"]
        canary = [path for path in files_below(tmp_path) if b"canary" in path.read_bytes()]
        canary = canary if how == "delete" else []  # a cancelled job still tells what it was asked for
        tally(CANCELLED, lost=found != wanted, leaked=bool(spool or canary), seconds=seconds)
        assert found == wanted
        assert spool == [] and canary == []
        assert place.ledger.leftovers() == []
        assert queue.get(job).finished is not None
        assert all(each.clean for each in verify(place.ledger, place.indexer))
