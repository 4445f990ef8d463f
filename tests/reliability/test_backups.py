"""Promise 19: a backup under writes is of one moment, and a restore brings nothing back that was deleted."""

from __future__ import annotations

import os
import random
import threading
import time

import pytest
from tallies import tally
from workplace import CHUNKING, files_below, text, workplace

from pipeline import reconcile
from pipeline.backup import back_up
from pipeline.job_queue import JobQueue
from pipeline.jobs import JobConfig
from pipeline.restoring import restore
from pipeline.worker import Worker

FULL = os.environ.get("LONGLEAF_RELIABILITY") == "full"
BACKUPS = 50 if FULL else 4
PROMISE = "19 (hot backup, no resurrection)"


class Writers:
    """Replaces two documents together again and again, makes others and deletes them, and has jobs worked
    on. ``deleted`` are those whose deletion was acknowledged, and that never came again."""

    def __init__(self, place):
        self.place = place
        self.queue = JobQueue(place.ledger, JobConfig(backoff_seconds=0.01))
        self.worker = Worker(place.ledger, self.queue, lambda *_: place.ingestor)
        self.deleted: list[str] = []
        self.stored: list[str] = []
        self.errors: list[Exception] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._guard, args=(w,)) for w in (self._pairs, self._others)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _guard(self, work):
        generation = 0
        try:
            while not self._stop.is_set():
                generation += 1
                work(generation)
        except Exception as error:
            self.errors.append(error)

    def _pairs(self, generation):
        self.place.ingest(text("x", f"Generation {generation}."), text("y", f"Generation {generation}."))

    def _others(self, generation):
        name = f"canary{generation:04}"
        if generation % 2:
            self.place.ingest(text(name, f"This is {name}."))
        else:
            self.queue.submit([text(name, f"This is {name}.")])
            if generation % 4:
                self.worker.drain()
        if generation % 3:
            self.place.ingestor.delete("default", "default", name)
            self.deleted.append(name)
        else:
            self.stored.append(name)


@pytest.mark.parametrize("seed", range(5 if FULL else 1))
def test_backups_under_writes(tmp_path, seed):
    chance = random.Random(seed)
    known: list[tuple[list[str], list[str]]] = []
    with workplace(tmp_path / "data") as place:
        place.ingest(text("x", "Generation 0."), text("y", "Generation 0."))
        with Writers(place) as writing:
            for i in range(BACKUPS // (5 if FULL else 1)):
                time.sleep(chance.uniform(0.0, 0.3))
                stored, deleted = list(writing.stored), list(writing.deleted)
                back_up(place.ledger, tmp_path / f"backup{i}")
                known.append((stored, deleted))
        assert writing.errors == []
        gone = set(writing.deleted)
    assert gone, "nothing was deleted while the backups were made"
    for i, (stored, deleted) in enumerate(known):
        began = time.monotonic()
        root = tmp_path / f"restored{i}"
        restore(tmp_path / f"backup{i}", root, deletions=[tmp_path / "data"])
        with workplace(root) as place:
            reconcile.repair(place.ledger, place.indexer, place.embedder, place.analyser, CHUNKING)
            seconds = time.monotonic() - began
            Writers(place).worker.drain()
            texts = place.texts()
            lost = sorted(set(stored) - set(texts))
            torn = texts["x"] != texts["y"]
            back = sorted(set(texts) & gone)
            left = [
                name for name in deleted for path in files_below(root) if name.encode() in path.read_bytes()
            ]
            tally(PROMISE, lost=len(lost) + torn, leaked=len(back) + len(left), seconds=seconds)
            assert lost == [] and not torn
            assert back == [], "a deleted document came back"
            assert left == []
            assert all(found.clean for found in reconcile.verify(place.ledger, place.indexer))
