"""How many documents of jobs have ended, counted from what the ledger notes of them.

So a process that works on none, such as a server beside workers, can tell of all of them.
"""

from __future__ import annotations

from threading import Lock

import sqlalchemy as sa

from pipeline.database import Database
from pipeline.job_tables import job_events
from pipeline.jobs import ENDED


class EndedDocuments:
    """Totals by the stage in which documents ended, whoever worked on them. Thread-safe.

    They begin at 0 when they are first asked for. Only what was noted since the last time is read: writing
    transactions take turns, so events become visible in the order of their numbers.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._totals: dict[str, float] = dict.fromkeys(ENDED, 0.0)
        self._seen: int | None = None
        self._lock = Lock()

    def __call__(self) -> dict[str, float]:
        """The totals now."""
        of_documents = (job_events.c.kind == "document", job_events.c.detail.in_(ENDED))
        with self._lock, self._database.read() as connection:
            newest = connection.execute(sa.select(sa.func.max(job_events.c.seq))).scalar() or 0
            if self._seen is not None and newest > self._seen:
                counts = sa.select(job_events.c.detail, sa.func.count()).group_by(job_events.c.detail)
                for row in connection.execute(counts.where(job_events.c.seq > self._seen, *of_documents)):
                    self._totals[row[0]] += row[1]
            self._seen = max(newest, self._seen or 0)  # what is newest may have been forgotten since
            return dict(self._totals)
