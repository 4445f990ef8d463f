"""Promises 1 and 4: what was accepted is done, once, whatever is killed wherever; no finished stage again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest
from jobs_child import CONFIG, FINAL, FIRST
from tallies import tally
from workplace import files_below, workplace

from pipeline import job_journal, stages, writers
from pipeline.job_queue import JobQueue
from pipeline.reconcile import verify
from pipeline.worker import Worker

CHILD = Path(__file__).with_name("jobs_child.py")
FULL = os.environ.get("LONGLEAF_RELIABILITY") == "full"
STEPS = 150
AT_STEP = range(1, STEPS + 1) if FULL else (12, 58, 101, 143)
DURABLE = "1 (202 is durable)"
RESUMED = "4 (killed workers' work is resumed)"


def started(root: Path, url: str | None, kill_at: str) -> subprocess.Popen[str]:
    """The child, about to begin."""
    command = [sys.executable, str(CHILD), str(root), url or "-", kill_at]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def run(root: Path, url: str | None, kill_at: str, kill_after_seconds: float | None = None) -> list[str]:
    process = started(root, url, kill_at)
    if kill_after_seconds is not None:
        time.sleep(kill_after_seconds)
        process.kill()
    output = process.communicate(timeout=900)[0]
    assert process.returncode in (0, -signal.SIGKILL), output
    return output.splitlines()


def check(root: Path, url: str | None, said: list[str], promise: str) -> None:
    """Recover, finish what waits, and compare everything with what was acknowledged."""
    acknowledged = sum(line.startswith("acknowledged") for line in said)
    wanted = FINAL[acknowledged : acknowledged + 2]
    began = time.monotonic()
    with workplace(root, url=url) as place:
        queue = JobQueue(place.ledger, CONFIG)
        worker = Worker(place.ledger, queue, lambda *_: place.ingestor)
        while worker.drain() or any(job.finished is None for job in queue.jobs()):
            time.sleep(0.01)
        seconds = time.monotonic() - began
        if url is not None:  # what a dead process was at is its own until its lease runs out
            time.sleep(writers.LEASE_SECONDS)
        place.ingestor.recover()
        queue.tidy()
        found = place.texts() if place.ledger.collections() else {}
        lost = [w for w in wanted if found == w] == []
        points = place.points()["documents"] if found else 0
        duplicated = points != len(found) or len(place.stored_folders()) != len(found)
        spool = [*files_below(root / "spool"), *files_below(root / "jobs")]
        leaked = bool(place.ledger.leftovers()) or bool([p for p in spool if p.suffix != ".lock"])
        tally(promise, lost=lost, duplicated=duplicated, leaked=leaked, seconds=seconds)
        assert not lost, (found, wanted, said)
        assert not duplicated, (points, len(found), place.stored_folders())
        assert not leaked, (place.ledger.leftovers(), spool)
        assert place.ledger.check() == []
        assert all(each.clean for each in verify(place.ledger, place.indexer))
        jobs = {line.split()[2] for line in said if len(line.split()) == 3}
        assert jobs <= {job.id for job in queue.jobs()}, "an accepted job is not known"
        assert {job.state for job in queue.jobs()} <= {"done", "cancelled"}


def test_nothing_is_killed(tmp_path):
    said = run(tmp_path, None, "0")
    assert said[-1] == f"steps {STEPS}", "the steps of this test no longer cover the whole run"
    check(tmp_path, None, said, DURABLE)


@pytest.mark.parametrize("step", AT_STEP)
def test_killed_at_a_step(tmp_path, step):
    said = run(tmp_path, None, str(step))
    assert not any(line.startswith("steps") for line in said)
    check(tmp_path, None, said, DURABLE)


@cache
def whole_run_seconds() -> float:
    """How long it takes when nobody kills it, so that a random moment is one of its work."""
    with tempfile.TemporaryDirectory() as folder:
        process, began = started(Path(folder), None, "0"), time.monotonic()
        process.communicate()
        return time.monotonic() - began


@pytest.mark.parametrize("case", range(200 if FULL else 1))
def test_killed_at_random(tmp_path, case):
    seconds = random.Random(case).uniform(0, whole_run_seconds())
    check(tmp_path, None, run(tmp_path, None, "0", kill_after_seconds=seconds), DURABLE)


@pytest.mark.parametrize("step", range(1, STEPS + 1, 5) if FULL else (90,))
def test_killed_at_a_step_with_postgresql(tmp_path, postgres, monkeypatch, step):
    """The dead process's lease has to run out before another resumes."""
    monkeypatch.setattr(writers, "LEASE_SECONDS", 2.0)
    url = postgres.database()
    check(tmp_path, url, run(tmp_path, url, str(step)), DURABLE)


@pytest.mark.parametrize("repeat", range(10 if FULL else 1))
@pytest.mark.parametrize("stage", ["claimed", "reading", "chunking", "embedding", "indexing"])
def test_no_finished_stage_is_repeated(tmp_path, monkeypatch, stage, repeat):
    """Killed after each stage: what is noted as finished is not run again by whoever resumes."""
    said = run(tmp_path, None, stage)
    assert said[-1].startswith("acknowledged first")
    ran: list[tuple[str, str]] = []

    def counting(name: str, honest):
        def call(*args, **kwargs):
            if name == "embedding":
                ran.extend((name, chunked.document.text) for chunked in args[1])
            elif name == "reading":
                ran.append((name, args[0].source.text))
            else:
                ran.append((name, args[0].text))
            return honest(*args, **kwargs)

        return call

    with workplace(tmp_path) as place:
        with place.ledger.database.read() as connection:
            rows = connection.exec_driver_sql(
                "SELECT document_id, checkpoints, stage FROM job_documents"
            ).all()
        import json

        finished = [(kept, FIRST[name]) for name, made, _ in rows for kept in json.loads(made)]
        ended = [(kept, FIRST[n]) for n, _, at in rows if at == "done" for kept in ("reading", "embedding")]
        expected = {"claimed": 0, "reading": 1, "chunking": 2, "embedding": 3, "indexing": 3}[stage]
        assert max(len(json.loads(made)) for _, made, _ in rows) == expected
        monkeypatch.setattr(stages, "arrive", counting("reading", stages.arrive))
        monkeypatch.setattr(stages, "chunk", counting("chunking", stages.chunk))
        embedder = type(place.embedder)
        monkeypatch.setattr(embedder, "embed_documents", counting("embedding", embedder.embed_documents))
        monkeypatch.setattr(job_journal, "_GATHER_SECONDS", -1.0)
        began = time.monotonic()
        Worker(place.ledger, JobQueue(place.ledger, CONFIG), lambda *_: place.ingestor).drain()
        seconds = time.monotonic() - began
        repeated = set(ran) & {*finished, *ended}
        lost = place.texts() != FIRST
        tally(RESUMED, lost=lost, duplicated=bool(repeated), seconds=seconds)
        assert repeated == set()
        assert not lost
        assert all(each.clean for each in verify(place.ledger, place.indexer))
