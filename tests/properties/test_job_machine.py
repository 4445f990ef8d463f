"""Any sequence of jobs, deletions, cancellations, faults and restarts equals a list that is played in order
(promise 2)."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tallies import tally
from test_ingest_machine import Failing, Fault
from workplace import text, workplace

from pipeline.errors import LongleafError, NotFoundError
from pipeline.job_queue import JobQueue
from pipeline.jobs import JobConfig
from pipeline.reconcile import verify
from pipeline.worker import Worker

IDS = st.sampled_from(["a", "b/c", "日本"])
TEXTS = st.sampled_from(["otter", "heron heron", "badger otter", "pike"])
POLICIES = st.sampled_from(["replace", "replace", "skip", "fail", "new_version"])
CONFIG = JobConfig(backoff_seconds=0.0, max_backoff_seconds=0.0, max_attempts=1000, batch_documents=2)
FULL = os.environ.get("LONGLEAF_RELIABILITY") == "full"
PROMISE = "2 (retries have one effect)"


class Jobs(RuleBasedStateMachine):
    """``stored`` maps ids to texts; ``waiting`` is what was accepted and not worked on, in order; ``named``
    are the ids that jobs tell of, cancelled ones too, until they are deleted."""

    @initialize()
    def start(self):
        self.root = Path(tempfile.mkdtemp())
        self.stored: dict[str, str] = {}
        self.kept: dict[str, int] = {}
        self.waiting: list[tuple[str, str, str, str]] = []
        self.named: set[str] = set()
        self.keys: dict[str, str] = {}
        self.fault = Fault()
        self.open()

    def open(self):
        self.stack = ExitStack()
        self.place = self.stack.enter_context(
            workplace(self.root, wrap=lambda ledger, index: (ledger, Failing(index, self.fault)))
        )
        self.queue = JobQueue(self.place.ledger, CONFIG)
        self.worker = Worker(self.place.ledger, self.queue, lambda *_: self.place.ingestor)

    @rule(batch=st.lists(st.tuples(IDS, TEXTS), min_size=1, max_size=4), policy=POLICIES)
    def submit(self, batch, policy):
        job, before = self.queue.submit([text(*item) for item in batch], on_conflict=policy)
        assert not before
        self.waiting += [(job.id, name, content, policy) for name, content in batch]
        self.named |= {name for name, _ in batch}

    @rule(name=IDS, content=TEXTS, key=st.sampled_from(["one", "two"]))
    def submit_with_a_key(self, name, content, key):
        said = f"{name}\n{content}"
        try:
            job, before = self.queue.submit([text(name, content)], idempotency_key=key)
        except LongleafError:
            assert self.keys[key] != said
            return
        assert before == (key in self.keys)
        assert self.keys.setdefault(key, said) == said
        if not before:
            self.waiting.append((job.id, name, content, "replace"))
            self.named.add(name)

    @rule(steps=st.integers(0, 12), stays=st.booleans())
    def work_with_a_fault(self, steps, stays):
        """Some of it is done, or none: it is finished by the next work without a fault."""
        self.fault.steps_left, self.fault.stays = steps, stays
        self.worker.step()
        self.fault.steps_left = -1
        self.work()

    @rule()
    def work(self):
        while self.worker.drain() or any(job.finished is None for job in self.queue.jobs()):
            pass
        for _, name, content, policy in self.waiting:
            there = self.stored.get(name)
            if there is None or (there != content and policy in ("replace", "new_version")):
                if there is not None and policy == "new_version":
                    self.kept[name] = self.kept.get(name, 0) + 1
                self.stored[name] = content
        self.waiting = []
        self.compare()

    @rule(name=IDS)
    def delete(self, name):
        try:
            self.place.ingestor.delete("default", "default", name)
        except NotFoundError:
            assert name not in self.named
            return
        assert name in self.named
        self.named.remove(name)
        self.stored.pop(name, None)
        self.kept.pop(name, None)
        self.waiting = [item for item in self.waiting if item[1] != name]

    @precondition(lambda self: self.waiting)
    @rule()
    def cancel(self):
        job = self.waiting[-1][0]
        self.queue.cancel(job)
        self.waiting = [item for item in self.waiting if item[0] != job]

    @rule()
    def restart(self):
        self.stack.close()
        self.open()

    def compare(self):
        if not self.place.ledger.collections():
            assert self.stored == {}
            return
        assert self.place.texts() == self.stored
        for name in self.stored:
            history = self.place.ledger.history("default", "default", name)
            assert len(history) == 1 + self.kept.get(name, 0)
        assert all(found.clean for found in verify(self.place.ledger, self.place.indexer))
        assert self.place.ledger.leftovers() == self.place.ledger.shelved() == []
        assert len(self.place.stored_folders()) == len(self.stored) + sum(self.kept.values())

    def teardown(self):
        if hasattr(self, "stack"):
            self.stack.close()
            shutil.rmtree(self.root)
            tally(PROMISE)


Jobs.TestCase.settings = settings(
    max_examples=2000 if FULL else 6,
    stateful_step_count=20 if FULL else 12,
    deadline=None,
    derandomize=not FULL,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestJobs = Jobs.TestCase
