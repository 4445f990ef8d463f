"""Accepts jobs, works on them, deletes and cancels, saying what is done; kills itself where it is told to.

``python jobs_child.py ROOT URL KILL_AT`` (URL ``-``: SQLite; KILL_AT 0: never). KILL_AT is the number of a
step (the functions of STEPS, counted before and after each call), or the name of a stage (``embedding``)
after which it dies. The last line without a kill is the number of steps.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from workplace import text, workplace  # noqa: E402 - the line above makes it importable

from pipeline import job_journal, job_rows, stages, writers  # noqa: E402
from pipeline.arrivals import Arrivals  # noqa: E402
from pipeline.job_queue import JobQueue  # noqa: E402
from pipeline.jobs import JobConfig  # noqa: E402
from pipeline.ledger import Ledger  # noqa: E402
from pipeline.originals import Originals  # noqa: E402
from pipeline.worker import Worker  # noqa: E402

STEPS: list[tuple[Any, tuple[str, ...]]] = [
    (Arrivals, ("put", "settle", "keep", "remove", "discard")),
    (Originals, ("write", "remove", "deleted")),
    (Ledger, ("stage", "publish", "delete", "retire", "forget", "create_collection")),
    (job_rows, ("claim", "end", "cancel", "forget", "note_stages", "conclude")),
]
LONG = "Otter three walks along the river and sleeps. " * 40
FIRST = {"a": "Otter one. " * 20, "b": "Otter two.", "c": LONG}
SECOND = {"a": "Heron four. " * 20, "d": "Heron five."}
THIRD = {"e": "Newt six."}
FINAL = [  # what is there once all is done, after so many acknowledgements
    {},
    FIRST,
    {**FIRST, **SECOND},
    {**FIRST, **SECOND},
    {name: content for name, content in {**FIRST, **SECOND}.items() if name != "b"},
    {name: content for name, content in {**FIRST, **SECOND, **THIRD}.items() if name != "b"},
    {name: content for name, content in {**FIRST, **SECOND}.items() if name != "b"},
]
CONFIG = JobConfig(backoff_seconds=0.01, max_backoff_seconds=0.02)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Steps:
    def __init__(self, kill_at: int) -> None:
        self.count, self._kill_at = 0, kill_at

    def step(self) -> None:
        self.count += 1
        if self.count == self._kill_at:
            die()

    def around(self, owner: Any, name: str) -> None:
        honest = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.step()
            result = honest(*args, **kwargs)
            self.step()
            return result

        setattr(owner, name, call)


def die_after(stage: str) -> None:
    """Die once this stage is finished and noted."""
    job_journal._GATHER_SECONDS = -1.0
    if stage in ("reading", "chunking", "embedding"):
        owner, name = (
            job_journal.JobJournal,
            {"reading": "keep_document", "chunking": "keep_chunks"}.get(stage),
        )
        name = name or "keep_vectors"
    elif stage == "claimed":
        owner, name = stages.Stages, "read"
    else:
        owner, name = Ledger, "publish"
    honest: Callable[..., Any] = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        if stage == "claimed":
            die()
        result = honest(*args, **kwargs)
        die()
        return result

    setattr(owner, name, call)


def main(root: str, url: str, kill_at: str) -> None:
    writers.LEASE_SECONDS = 2.0
    print("ready", flush=True)
    steps = Steps(int(kill_at) if kill_at.isdigit() else 0)
    if kill_at.isdigit():
        job_journal._GATHER_SECONDS = 1e9  # so that the number of steps is always the same
        for owner, names in STEPS:
            for name in names:
                steps.around(owner, name)
    with workplace(Path(root), url=None if url == "-" else url) as place:
        queue = JobQueue(place.ledger, CONFIG)
        worker = Worker(place.ledger, queue, lambda *_: place.ingestor)

        def say(*words: object) -> None:
            print(*words, flush=True)

        def submit(content: dict[str, str], **options: Any) -> str:
            return queue.submit([text(name, value) for name, value in content.items()], **options)[0].id

        first = submit(FIRST)
        say("acknowledged first", first)
        if not kill_at.isdigit():
            die_after(kill_at)
        worker.drain()
        second = submit(SECOND, idempotency_key="second")
        say("acknowledged second", second)
        again = submit(SECOND, idempotency_key="second")
        assert again == second
        say("acknowledged again", again)
        worker.drain()
        place.ingestor.delete("default", "default", "b")
        say("acknowledged deletion")
        third = submit(THIRD)
        say("acknowledged third", third)
        queue.cancel(third)
        say("acknowledged cancellation")
        worker.drain()
    print("steps", steps.count, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
