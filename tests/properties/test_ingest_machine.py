"""Any sequence of ingestions, deletions, faults and restarts equals a dictionary (promise 2)."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tallies import tally
from workplace import text, workplace

from pipeline.errors import NotFoundError, UnavailableError
from pipeline.reconcile import verify

WORDS = ["otter", "heron", "badger", "pike", "newt"]
IDS = st.sampled_from(["a", "b/c", "d e", "日本"])
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=80).map(" ".join)
YEARS = st.sampled_from([None, 1900, "soon"])

FULL = os.environ.get("LONGLEAF_RELIABILITY") == "full"


class Failing:
    """Raises UnavailableError instead of one call in a sequence, or after it."""

    def __init__(self, inner, fault):
        self._inner, self._fault = inner, fault

    def __getattr__(self, name):
        member = getattr(self._inner, name)
        if name not in ("upsert", "delete", "flush", "count", "publish", "stage", "retire", "forget"):
            return member

        def call(*args, **kwargs):
            self._fault.step(before=True)
            result = member(*args, **kwargs)
            self._fault.step(before=False)
            return result

        return call


class Fault:
    def __init__(self):
        self.steps_left = -1
        self.stays = False

    def step(self, *, before):
        if self.steps_left == 0 and self.stays:
            raise UnavailableError("injected again")
        if self.steps_left > 0:
            self.steps_left -= 1
            if self.steps_left == 0:
                raise UnavailableError(f"injected {'before' if before else 'after'}")


class Ingestion(RuleBasedStateMachine):
    """The model maps ids to text and year."""

    @initialize()
    def start(self):
        self.root = Path(tempfile.mkdtemp())
        self.model = {}
        self.fault = Fault()
        self.open()

    def open(self):
        self.stack = ExitStack()
        self.place = self.stack.enter_context(
            workplace(
                self.root,
                wrap=lambda ledger, indexer: (Failing(ledger, self.fault), Failing(indexer, self.fault)),
            )
        )

    @rule(batch=st.lists(st.tuples(IDS, TEXTS, YEARS), min_size=1, max_size=4))
    def ingest(self, batch):
        results = self.place.ingest(*(self.source(*item) for item in batch))
        for result, (name, content, year) in zip(results, batch, strict=True):
            expected = "created"
            if name in self.model:
                expected = "unchanged" if self.model[name] == (content, year) else "replaced"
            assert result.status == expected, result
            self.model[name] = (content, year)

    @rule(name=IDS)
    def delete(self, name):
        try:
            self.place.ingestor.delete("default", "default", name)
        except NotFoundError:
            assert name not in self.model
        else:
            del self.model[name]

    @rule(name=IDS, content=TEXTS, steps=st.integers(1, 30), stays=st.booleans())
    def ingest_with_a_fault(self, name, content, steps, stays):
        before = self.model.get(name)
        self.fault.steps_left, self.fault.stays = steps, stays
        try:
            self.place.ingest(self.source(name, content, None))
        except UnavailableError:
            after = self.look(name)
            assert after in (before, (content, None)), "neither the old version nor the new one"
            self.model = {k: v for k, v in self.model.items() if k != name}
            if after is not None:
                self.model[name] = after
        else:
            self.model[name] = (content, None)
        finally:
            self.fault.steps_left = -1

    @precondition(lambda self: self.model)
    @rule(data=st.data(), steps=st.integers(1, 12), stays=st.booleans())
    def delete_with_a_fault(self, data, steps, stays):
        name = data.draw(st.sampled_from(sorted(self.model)))
        self.fault.steps_left, self.fault.stays = steps, stays
        try:
            self.place.ingestor.delete("default", "default", name)
        except UnavailableError:
            self.fault.steps_left = -1
            if self.look(name) is None:
                del self.model[name]
        else:
            del self.model[name]
        finally:
            self.fault.steps_left = -1

    @rule()
    def restart(self):
        self.stack.close()
        self.open()

    @rule()
    def recover(self):
        self.place.ingestor.recover()
        assert self.place.ledger.leftovers() == []
        assert all(found.clean for found in verify(self.place.ledger, self.place.indexer))
        assert len(self.place.stored_folders()) == len(self.model)

    @invariant()
    def everything_is_found_once(self):
        if not self.place.ledger.collections():
            assert self.model == {}
            return
        assert self.place.texts() == {name: content for name, (content, _) in self.model.items()}
        for word in WORDS:
            expected = sorted(name for name, (content, _) in self.model.items() if word in content.split())
            assert self.place.findable(word) == expected

    def teardown(self):
        if hasattr(self, "stack"):
            self.stack.close()
            shutil.rmtree(self.root)
            tally("2 (ingestion equals a dictionary)")

    def source(self, name, content, year):
        return text(name, content, metadata={} if year is None else {"year": year})

    def look(self, name):
        if not self.place.ledger.collections():
            return None
        record = self.place.ledger.find("default", "default", name)
        if record is None:
            return None
        return self.place.ledger.load("default", "default", name).text, record.metadata.get("year")


Ingestion.TestCase.settings = settings(
    max_examples=2000 if FULL else 8,
    stateful_step_count=20 if FULL else 12,
    deadline=None,
    derandomize=not FULL,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestIngestion = Ingestion.TestCase
