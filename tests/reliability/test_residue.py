"""Promise 8: after a deletion no byte of the document is in any file of the data directory."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from tallies import tally
from workplace import files_below, workplace

from pipeline.ingest import Source
from pipeline.job_queue import JobQueue
from pipeline.jobs import JobConfig
from pipeline.worker import Worker

CANARIES = 100 if os.environ.get("LONGLEAF_RELIABILITY") == "full" else 4


def holding(root, needle: bytes) -> list[str]:
    return [str(path.relative_to(root)) for path in files_below(root) if needle in path.read_bytes()]


def canary(tmp_path, i: int) -> Source:
    """A document whose every part says the canary: id, title, section, text, metadata key and value."""
    mark = f"canary{i:03}"
    file = tmp_path / f"{mark}-file.html"
    file.write_text(
        f"<html><head><title>{mark} title</title><meta name=author content='{mark} author'></head>"
        f"<body><h1>{mark} section</h1><p>{mark} text says a thing or two about otters.</p></body></html>"
    )
    return Source(file.name, file, metadata={f"{mark}_key": f"{mark} value"})


WAYS = [(indexer, way) for indexer in ("exact", "qdrant_edge") for way in ("delete", "replace", "drop")]


@pytest.mark.parametrize(("indexer", "way"), WAYS)
def test_nothing_is_left(tmp_path, indexer, way):
    root = tmp_path / "data"
    with workplace(root, indexer=indexer) as place:
        kept = Source("kept", text="The keeper stays with the heron. " * 20, metadata={"k": "keeper"})
        canaries = [canary(tmp_path, i) for i in range(CANARIES)]
        assert [r.status for r in place.ingest(kept, *canaries)] == ["created"] * (CANARIES + 1)
        assert holding(root, b"canary"), "the search for canaries finds none where there are some"
        if way == "replace":
            place.ingest(*(Source(c.name, text="Nothing of that.", title="No") for c in canaries))
        if way in ("delete", "replace"):
            for source in canaries:
                place.ingestor.delete("default", "default", source.name)
        if way == "drop":
            place.ingestor.drop("default", "default")
        left_open = holding(root, b"canary")
    tally("8 (deletion leaves nothing)", leaked=bool(left_open or holding(root, b"canary")))
    assert (left_open, holding(root, b"canary")) == ([], [])
    if way != "drop":
        assert holding(root, b"keeper"), "the others are still there"


@pytest.mark.parametrize("end", ["done", "failed", "quarantined", "waiting", "cancelled", "replaced", "kept"])
def test_nothing_of_a_job_is_left(tmp_path, end):
    """However a job ended, deleting its documents leaves no word of them in rows, events or files."""
    root = tmp_path / "data"
    with workplace(root) as place:
        queue = JobQueue(place.ledger, JobConfig(max_attempts=1, backoff_seconds=0.01))
        worker = Worker(place.ledger, queue, lambda *_: place.ingestor)
        canaries = [canary(tmp_path, i) for i in range(CANARIES)]
        if end == "failed":
            canaries = [replace(each, data=b"%PDF canary") for each in canaries]
        if end == "quarantined":
            place.embedder.embed_documents = broken
        if end in ("replaced", "kept"):
            place.ingest(*canaries)
            canaries = [replace(each, title=f"{each.name} again") for each in canaries]
        policy = "new_version" if end == "kept" else "replace"
        keeper = Source("kept", text="The keeper.")
        job, _ = queue.submit([keeper, *canaries], idempotency_key="canary-key", on_conflict=policy)
        if end == "cancelled":
            queue.cancel(job.id)
        elif end != "waiting":
            worker.drain()
        assert holding(root, b"canary"), "the search for canaries finds none where there are some"
        for source in canaries:
            place.ingestor.delete("default", "default", source.name)
        left_open = holding(root, b"canary")
    left = [*left_open, *holding(root, b"canary")]
    tally("8 (deletion leaves nothing)", leaked=bool(left))
    assert left == []


def broken(*_):
    raise RuntimeError("out of order")
