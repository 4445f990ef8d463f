"""Jobs: what is accepted is done, once, in turn, and what cannot be done ends with its reason."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
import sqlalchemy as sa
from workplace import files_below, text, workplace

from embedders import hashing
from pipeline.errors import (
    DiskFullError,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    PasswordRequiredError,
    UnavailableError,
)
from pipeline.ingest import Source
from pipeline.job_queue import JobQueue
from pipeline.job_tables import job_documents
from pipeline.jobs import JobConfig
from pipeline.read import Limits
from pipeline.reconcile import verify
from pipeline.worker import Worker

QUICK = JobConfig(workers=1, backoff_seconds=0.01, max_backoff_seconds=0.05, poll_seconds=0.02)
LONG = "\n\n".join(f"Paragraph {i} speaks of otters and of river{i}. It goes on." for i in range(60))


class Counting:
    """An embedder that counts what it embeds, and fails for texts that say so."""

    def __init__(self):
        self._inner = hashing.build(hashing.TINY)
        self.texts: list[str] = []
        self.encoded: list[str] = []
        self.broken: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()

    @property
    def fingerprint(self):
        return self._inner.fingerprint

    def encode(self, content):
        self.encoded.append(content)
        return self._inner.encode(content)

    def embed_queries(self, queries):
        return self._inner.embed_queries(queries)

    def embed_documents(self, documents, progress=None):
        self.started.set()
        for document in documents:
            self.texts.append(document.document.text)
            if "poison" in document.document.text:
                raise ValueError("no embedder can stand this")
        while not self.gate.wait(0.01):
            progress(0)  # raises once the work is cancelled
        if self.broken:
            raise self.broken
        return self._inner.embed_documents(documents, progress)


@contextmanager
def office(root, *, config=QUICK, url=None, embedder=None, cache=None):
    """A workplace with a queue and a worker that works when it is asked to."""
    with workplace(root, url=url, embedder=embedder or Counting()) as place:
        queue = JobQueue(place.ledger, config)
        worker = Worker(place.ledger, queue, lambda tenant, collection: place.ingestor, cache)
        yield place, queue, worker
        worker.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request):
    return None if request.param == "sqlite" else request.getfixturevalue("postgres").database()


def stages(queue, job):
    return [document.stage for document in queue.documents(job.id)]


def test_a_job_is_done_and_tells_how_it_went(tmp_path, url):
    (tmp_path / "heron.md").write_text("# Heron\n\nThe heron stands in the river.")
    with office(tmp_path / "data", url=url) as (place, queue, worker):
        job, before = queue.submit(
            [text("a", "Otter."), Source("heron.md", tmp_path / "heron.md", metadata={"year": 1869})]
        )
        assert (job.state, job.documents_total, job.seconds_left, before) == ("queued", 2, None, False)
        (tmp_path / "heron.md").unlink()
        assert worker.drain() == 1
        job = queue.get(job.id)
        assert (job.state, job.documents_done, job.documents_failed) == ("done", 2, 0)
        assert (job.bytes_done, job.seconds_left) == (job.bytes_total, 0.0)
        assert job.tokens > 0
        assert place.texts() == {"a": "Otter.", "heron.md": "Heron\n\nThe heron stands in the river."}
        record = place.ledger.document("default", "default", "heron.md")
        assert (record.metadata, record.title) == ({"year": 1869}, "Heron")
        assert place.ledger.original("default", "default", "heron.md").read_text().startswith("# Heron")
        first = queue.documents(job.id)[0]
        assert (first.stage, first.status, first.version, first.attempts) == ("done", "created", 1, 1)
        told = [(event.kind, event.position, event.detail) for event in queue.events(job.id)]
        assert [detail for kind, _, detail in told if kind == "job"] == ["queued", "running", "done"]
        passed = [detail for kind, position, detail in told if kind == "document" and position == 1]
        assert passed[0] == "queued" and passed[-1] == "done"
        last = queue.events(job.id)[-1]
        assert queue.events(job.id, after=last.id) == []
        assert not list(files_below(tmp_path / "data" / "jobs"))
        assert all(found.clean for found in verify(place.ledger, place.indexer))


def test_the_same_upload_twice_is_one_document(tmp_path, url):
    with office(tmp_path, url=url) as (place, queue, worker):
        first, _ = queue.submit([text("a", "Otter.")], idempotency_key="key")
        again, before = queue.submit([text("a", "Otter.")], idempotency_key="key")
        assert (again.id, before) == (first.id, True)
        other, before = queue.submit([text("a", "Otter.")])
        assert (other.id != first.id, before) == (True, False)
        elsewhere, before = queue.submit([text("a", "Otter.")], tenant="second", idempotency_key="key")
        assert not before, "keys are each tenant's own"
        with pytest.raises(InvalidRequestError, match="another upload"):
            queue.submit([text("a", "Heron.")], idempotency_key="key")
        with pytest.raises(InvalidRequestError, match="256 characters"):
            queue.submit([text("a", "Heron.")], idempotency_key="k" * 256)
        worker.drain()
        assert [queue.documents(job.id)[0].status for job in (first, other)] == ["created", "unchanged"]
        assert place.points()["documents"] == 1
        assert len(list((tmp_path / "jobs").glob("*/*"))) == 0
        del elsewhere


@pytest.mark.parametrize(
    ("policy", "status", "version", "content", "history"),
    [
        ("replace", "replaced", 2, "Heron.", [2]),
        ("skip", "skipped", 1, "Otter.", [1]),
        ("fail", "failed", 1, "Otter.", [1]),
        ("new_version", "replaced", 2, "Heron.", [2, 1]),
    ],
)
def test_what_happens_to_a_document_that_is_there(tmp_path, policy, status, version, content, history, url):
    with office(tmp_path, url=url) as (place, queue, worker):
        place.ingest(text("a", "Otter."))
        same, _ = queue.submit([text("a", "Otter.")], on_conflict=policy)
        job, _ = queue.submit([text("a", "Heron.")], on_conflict=policy)
        worker.drain()
        assert queue.documents(same.id)[0].status == "unchanged"
        document = queue.documents(job.id)[0]
        assert document.status == status
        assert place.texts() == {"a": content}
        assert place.ledger.document("default", "default", "a").version == version
        assert place.ledger.history("default", "default", "a") == history
        assert {place.ledger.load("default", "default", "a", v).version for v in history} == set(history)
        assert place.points()["documents"] == 1, "only the live version is found"
        assert place.ledger.leftovers() == place.ledger.shelved() == []
        place.ingestor.delete("default", "default", "a")
        assert len(place.stored_folders()) == 0, "kept versions go with their document"
        if policy == "fail":
            assert (document.code, queue.get(job.id).state) == ("conflict", "failed")


def test_policies_are_checked(tmp_path):
    with office(tmp_path) as (_, queue, _worker), pytest.raises(InvalidRequestError, match="'overwrite'"):
        queue.submit([text("a", "Otter.")], on_conflict="overwrite")


def test_what_is_refused_leaves_nothing(tmp_path):
    with office(tmp_path) as (place, queue, worker):
        small = JobQueue(place.ledger, QUICK, Limits(input_bytes=10))
        for refused, error in (
            ([text("a", "fine"), text("b", "far too long for this")], LimitExceededError),
            ([text("a", "fine"), Source("b", tmp_path / "missing")], NotFoundError),
            ([Source("a", text="x", password="secret")], InvalidRequestError),
            ([Source("a", text="x", document_id=" bad ")], InvalidRequestError),
            ([], InvalidRequestError),
        ):
            with pytest.raises(error):
                small.submit(refused)
        assert queue.jobs() == []
        assert not list((tmp_path / "jobs").iterdir())
        assert worker.drain() == 0


def test_a_full_disk_refuses_and_leaves_nothing(tmp_path, monkeypatch):
    from pipeline import arrivals

    with office(tmp_path) as (_, queue, _worker):
        monkeypatch.setattr(arrivals, "RESERVE_BYTES", 1 << 60)
        with pytest.raises(DiskFullError):
            queue.submit([text("a", "Otter.")])
        assert queue.jobs() == [] and not list((tmp_path / "jobs").iterdir())


def test_too_much_waiting_is_refused(tmp_path):
    with office(tmp_path, config=replace(QUICK, max_queued_documents=2)) as (_, queue, worker):
        queue.submit([text("a", "Otter."), text("b", "Heron.")])
        with pytest.raises(UnavailableError, match="2 documents"):
            queue.submit([text("c", "Newt.")])
        queue.submit([text("c", "Newt.")], tenant="second")
        worker.drain()
        queue.submit([text("c", "Newt.")])


def test_one_bad_file_stops_nobody(tmp_path, url):
    config = replace(QUICK, max_attempts=2)
    with office(tmp_path, url=url, config=config) as (place, queue, worker):
        bad = [Source("empty.txt", b""), Source("rubbish.pdf", bytes(range(256)) * 8)]
        good = [text(f"good {i}", f"Otter number {i}.") for i in range(3)]
        job, _ = queue.submit([good[0], *bad, text("poison", "This is poison."), *good[1:]])
        finish(worker, queue, job)
        job = queue.get(job.id)
        assert (job.state, job.documents_done, job.documents_failed) == ("partial", 3, 3)
        assert sorted(place.texts()) == ["good 0", "good 1", "good 2"]
        found = {document.document_id: document for document in queue.documents(job.id)}
        assert (found["empty.txt"].stage, found["empty.txt"].code) == ("failed", "empty_document")
        assert (found["rubbish.pdf"].stage, found["rubbish.pdf"].code) == ("failed", "damaged_file")
        poison = found["poison"]
        assert (poison.stage, poison.attempts, poison.code) == ("quarantined", 2, "internal")
        assert "no embedder can stand this" in poison.message
        kept = [path for path in files_below(tmp_path / "jobs") if "." not in path.name]
        assert [path.read_text() for path in kept] == ["This is poison."], "it is kept to be looked at"
        place.ingestor.delete("default", "default", "poison")
        assert not list(files_below(tmp_path / "jobs")), "until it is deleted"


def test_quarantined_documents_can_be_tried_again(tmp_path):
    embedder = Counting()
    embedder.broken = RuntimeError("out of order")
    with office(tmp_path, config=replace(QUICK, max_attempts=1), embedder=embedder) as (place, queue, worker):
        job, _ = queue.submit([text("a", "Otter.")])
        worker.drain()
        assert (queue.get(job.id).state, stages(queue, job)) == ("failed", ["quarantined"])
        embedder.broken = None
        assert queue.retry(job.id).state == "queued"
        worker.drain()
        assert (queue.get(job.id).state, place.texts()) == ("done", {"a": "Otter."})
        with pytest.raises(InvalidRequestError, match="no quarantined"):
            queue.retry(job.id)


def test_what_is_wrong_with_the_world_is_waited_for(tmp_path):
    embedder = Counting()
    embedder.broken = UnavailableError("The server is down.", remedy="Wait.")
    with office(tmp_path, embedder=embedder) as (place, queue, worker):
        job, _ = queue.submit([text("a", "Otter."), text("b", "Heron.")])
        for _ in range(QUICK.max_attempts + 2):
            until(worker.drain)
        waiting = queue.get(job.id)
        assert (waiting.state, waiting.waiting) == ("running", "The server is down. Wait.")
        assert {document.attempts for document in queue.documents(job.id)} == {0}
        embedder.broken = None
        finish(worker, queue, job)
        done = queue.get(job.id)
        assert (done.state, done.waiting, sorted(place.texts())) == ("done", "", ["a", "b"])


def test_tenants_take_turns(tmp_path, url):
    config = replace(QUICK, batch_documents=2)
    with office(tmp_path, url=url, config=config) as (_, queue, worker):
        queue.submit([text(f"{i}", f"Otter {i}.") for i in range(8)], tenant="big")
        queue.submit([text("x", "Heron.")], tenant="small")
        queue.submit([text("y", "Newt.")], tenant="tiny")
        order = []
        seen: dict[str, str] = {}
        while worker.step():
            for job in queue.jobs():
                done = f"{job.documents_done}"
                if seen.get(job.tenant, "0") != done:
                    order.append(job.tenant)
                seen[job.tenant] = done
        assert order == ["big", "small", "tiny", "big", "big", "big"]


def test_documents_of_one_id_keep_their_order(tmp_path):
    with office(tmp_path) as (place, queue, worker):
        queue.submit([text("a", "First."), text("b", "Other."), text("a", "Second.")])
        queue.submit([text("a", "Third.")])
        steps = worker.drain()
        assert steps == 3, "never two of one id at a time"
        assert place.texts() == {"a": "Third.", "b": "Other."}
        assert place.ledger.document("default", "default", "a").version == 3


@pytest.mark.parametrize("when", ["queued", "running"])
def test_cancel_stops_work(tmp_path, when, url):
    embedder = Counting()
    with office(tmp_path, url=url, embedder=embedder) as (place, queue, worker):
        if when == "running":
            embedder.gate.clear()
            worker.start()
        job, _ = queue.submit([text("a", LONG), text("b", "Heron.")])
        if when == "running":
            assert embedder.started.wait(10)
        cancelled = queue.cancel(job.id)
        assert (cancelled.state, stages(queue, job)) == ("cancelled", ["cancelled"] * 2)
        assert cancelled.bytes_done == 0 < cancelled.bytes_total
        assert queue.cancel(job.id).state == "cancelled", "twice is once"
        after, _ = queue.submit([text("c", "Newt.")])
        if when == "running":  # the gate is still shut: only being told to stop gets the worker past it
            until(lambda: embedder.texts[-1] == "Newt.")
            embedder.gate.set()
            until(lambda: queue.get(after.id).finished)
        else:
            worker.drain()
        worker.close()
        assert place.texts() == {"c": "Newt."}
        assert queue.get(job.id).state == "cancelled"
        assert not list(files_below(tmp_path / "jobs"))
        assert place.ledger.leftovers() == []


def test_deleting_a_document_that_is_on_its_way(tmp_path):
    with office(tmp_path) as (place, queue, worker):
        job, _ = queue.submit([text("canary", "Otter."), text("b", "Heron.")])
        place.ingestor.delete("default", "default", "canary")
        with pytest.raises(NotFoundError):
            place.ingestor.delete("default", "default", "canary")
        worker.drain()
        assert place.texts() == {"b": "Heron."}
        assert [document.document_id for document in queue.documents(job.id)] == ["b"]
        assert not [path for path in files_below(tmp_path) if b"canary" in path.read_bytes()]


def test_dropping_a_collection_ends_what_is_on_its_way(tmp_path):
    with office(tmp_path) as (place, queue, worker):
        place.ingest(text("a", "Otter."))
        job, _ = queue.submit([text("b", "Heron.")])
        place.ingestor.drop("default", "default")
        assert worker.drain() == 0
        assert queue.get(job.id).state == "cancelled"
        assert place.ledger.collections() == []
        assert not list(files_below(tmp_path / "jobs"))


def test_a_document_that_needs_a_password_is_not_said_to_want_one_of_a_job(tmp_path, monkeypatch):
    def locked(*_, **__):
        raise PasswordRequiredError("a.docx is encrypted.", remedy="Give its password.")

    monkeypatch.setattr("pipeline.stages.arrive", locked)
    with office(tmp_path) as (_, queue, worker):
        job, _ = queue.submit([Source("a.docx", b"secret")])
        worker.drain()
        [document] = queue.documents(job.id)
        assert (document.stage, document.code) == ("failed", "password_required")
        assert "without a job" in document.remedy


def test_a_password_is_not_kept(tmp_path):
    with office(tmp_path) as (_, queue, _worker), pytest.raises(InvalidRequestError, match="password"):
        queue.submit([Source("a.pdf", b"x", password="secret")])


def test_caching_comes_last_and_is_finished_alone(tmp_path):
    """A document that is stored already is not ingested again because its caching was interrupted."""
    cached, embedder = [], Counting()

    def cache(key, _stopped):
        cached.append(key.document_id)
        if len(cached) == 1:
            raise UnavailableError("The cache is down.")
        yield 1, 1

    with office(tmp_path, embedder=embedder, cache=cache) as (place, queue, worker):
        job, _ = queue.submit([text("a", "Otter.")])
        assert worker.step()
        assert (queue.get(job.id).state, stages(queue, job), cached) == ("running", ["caching"], [])
        assert place.texts() == {"a": "Otter."}
        assert queue.waiting("default") == (0, 0), "it is stored, and keeps nobody from uploading"
        assert not list(files_below(tmp_path / "jobs"))
        worker.step()
        assert (queue.get(job.id).waiting, stages(queue, job)) == ("The cache is down.", ["caching"])
        finish(worker, queue, job)
        assert stages(queue, job) == ["done"]
        assert (cached, len(embedder.texts)) == (["a", "a"], 1)
        told = [e.detail for e in queue.events(job.id) if e.kind == "document"]
        assert told[-2:] == ["caching", "done"]


def test_caching_lets_new_documents_go_first(tmp_path, url):
    """In the middle of one document, and with what was cached before kept."""
    done, others = [], []

    def cache(key, stopped):
        for passage in range(len([1 for each in done if each[0] == key.document_id]), 3):
            if done and not others:
                others.append(queue.submit([text("b", "Heron.")]))
                until(stopped)
            if stopped():
                return
            done.append((key.document_id, passage))
            yield passage + 1, 3

    with office(tmp_path, url=url, cache=cache) as (place, queue, worker):
        job, _ = queue.submit([text("a", "Otter.")])
        assert worker.step() and worker.step()
        assert (stages(queue, job), done) == (["caching"], [("a", 0)])
        (document,) = queue.documents(job.id)
        assert document.attempts == 0
        assert worker.step() and place.texts() == {"a": "Otter.", "b": "Heron."}
        worker.drain()
        assert done == [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1), ("b", 2)]
        assert {each.state for each in queue.jobs()} == {"done"}


def test_a_document_whose_caching_is_cancelled_or_fails_is_stored_all_the_same(tmp_path):
    def cache(key, stopped):
        if key.document_id == "a":
            queue.cancel(job.id)
            until(stopped)
            return
        yield 1, 2
        raise LimitExceededError("1 of 2 passages were not kept.", remedy="See contexts.disk_bytes.")

    with office(tmp_path, cache=cache) as (place, queue, worker):
        job, _ = queue.submit([text("a", "Otter.")])
        worker.drain()
        assert (queue.get(job.id).state, stages(queue, job)) == ("cancelled", ["done"])
        assert "Cancelled" in queue.documents(job.id)[0].message
        other, _ = queue.submit([text("b", "Heron.")])
        worker.drain()
        (document,) = queue.documents(other.id)
        assert (document.stage, document.status, document.code) == ("done", "created", "limit_exceeded")
        assert "not kept" in document.message and "disk_bytes" in document.remedy
        assert place.texts() == {"a": "Otter.", "b": "Heron."}


def test_a_cache_that_stays_down_keeps_no_job_running_for_ever(tmp_path):
    tried = []

    def cache(key, _stopped):
        tried.append(key.version)
        raise UnavailableError("The cache is down.")
        yield

    with office(tmp_path, cache=cache) as (place, queue, worker):
        job, _ = queue.submit([text("a", "Otter.")])
        until(lambda: (worker.drain(), queue.get(job.id).finished)[1])
        (document,) = queue.documents(job.id)
        assert (document.stage, document.status, document.code) == ("done", "created", "unavailable")
        assert len(tried) == QUICK.max_attempts + 1
        assert place.texts() == {"a": "Otter."}


def test_a_process_that_ends_while_caching_goes_on_there_and_gives_up_in_the_end(tmp_path):
    """Never quarantined: the document is stored."""
    tried = []

    def cache(key, _stopped):
        tried.append(key.version)
        raise KeyboardInterrupt
        yield

    with office(tmp_path, cache=cache) as (place, queue, worker):
        job, _ = queue.submit([text("a", "Otter.")])
        worker.step()
        for attempt in range(1, QUICK.max_attempts + 1):
            with pytest.raises(KeyboardInterrupt):
                worker.step()
            with place.ledger.database.write() as connection:  # as a kill would have left it
                connection.execute(sa.update(job_documents).values(attempts=attempt))
        worker.drain()
        (document,) = queue.documents(job.id)
        assert (document.stage, document.code, len(tried)) == ("done", "worker_ended", QUICK.max_attempts)
        assert place.texts() == {"a": "Otter."}


def test_progress_of_caching_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.job_batch._NOTE_SECONDS", 0)
    seen = []

    def cache(_key, _stopped):
        for place in range(1, 4):
            yield place, 3
            seen.append(queue.documents(job.id)[0].message)

    with office(tmp_path, cache=cache) as (_, queue, worker):
        job, _ = queue.submit([text("a", "Otter.")])
        worker.drain()
        assert seen == [f"{place} of 3 passages are cached" for place in (1, 2, 3)]
        assert queue.documents(job.id)[0].message == ""


def test_jobs_are_listed_and_forgotten(tmp_path, url):
    with office(tmp_path, url=url, config=replace(QUICK, keep_days=0)) as (_, queue, worker):
        made = [queue.submit([text(f"{i}", "Otter.")])[0].id for i in range(5)]
        page = queue.jobs(limit=2)
        assert [job.id for job in page] == made[:2:-1]
        assert [job.id for job in queue.jobs(before=page[-1].id)] == made[2::-1]
        assert len(queue.jobs(state="queued")) == 5 and queue.jobs("nobody") == []
        with pytest.raises(NotFoundError, match="'nope'"):
            queue.get("nope")
        with pytest.raises(NotFoundError):
            queue.get(made[0], tenant="nobody")
        for before, tenant in (("nope", None), (made[4], "nobody")):
            with pytest.raises(NotFoundError, match="to go on from"):
                queue.jobs(tenant, before=before)
        worker.drain()
        queue.tidy()
        assert queue.jobs() == []


def test_a_closed_worker_leaves_the_rest_to_the_next(tmp_path):
    embedder = Counting()
    embedder.gate.clear()
    with office(tmp_path, embedder=embedder) as (place, queue, worker):
        worker.start()
        job, _ = queue.submit([text("a", "Otter.")])
        assert embedder.started.wait(10)
        worker.close()
        (document,) = queue.documents(job.id)
        assert (document.stage, document.attempts) == ("embedding", 0)
        embedder.gate.set()
        Worker(place.ledger, queue, lambda *_: place.ingestor).drain()
        assert queue.get(job.id).state == "done"
        assert len(embedder.encoded) == 1, "chunking was finished before"


@pytest.mark.parametrize("deleted", [False, True])
def test_what_a_removal_left_goes_though_nothing_else_is_to_be_done(tmp_path, monkeypatch, deleted):
    """The index refuses while an older version, or a deleted document, is removed, and nobody comes later."""
    with office(tmp_path) as (place, queue, worker):
        queue.submit([text("a", "Otter.")])
        worker.drain()

        def refuse(*_):
            raise UnavailableError("The index does not answer.")

        with monkeypatch.context() as broken:
            broken.setattr(place.indexer, "delete", refuse)
            if deleted:
                with pytest.raises(UnavailableError):
                    place.ingestor.delete("default", "default", "a")
            else:
                job, _ = queue.submit([text("a", "Heron.")])
                worker.drain()
                assert queue.get(job.id).state == "done"
            assert place.ledger.leftovers()
            assert place.texts() == ({} if deleted else {"a": "Heron."})
        worker.start()
        until(lambda: place.ledger.leftovers() == [])
        assert all(found.clean for found in verify(place.ledger, place.indexer))


def finish(worker, queue, job):
    """Work until the job has ended; what waits for its next try is waited for."""

    def ended():
        worker.drain()
        return queue.get(job.id).finished is not None

    until(ended)


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
