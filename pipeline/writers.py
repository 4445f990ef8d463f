"""Who may write: processes with a row in the ledger, and how others learn that one is dead.

With SQLite one process at a time ingests, and a file lock, which ends with the process, says which. With
PostgreSQL many may; each renews its row, and one that has not for ``LEASE_SECONDS`` counts as dead: its
transactions are refused from then on (:meth:`Ownership.confirm`), and others take over what it had begun.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from pathlib import Path

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.engine import Connection

from pipeline.database import Database, now
from pipeline.errors import LongleafError, UnavailableError
from pipeline.schema import writers

LEASE_SECONDS = 30.0
_FOREVER = 1e18


class Ownership:
    """The right of one process to write into one ledger. Thread-safe."""

    def __init__(self, root: Path, database: Database, lease_seconds: float | None = None) -> None:
        self._root = root
        self._database = database
        self._lease_seconds = LEASE_SECONDS if lease_seconds is None else lease_seconds
        self._lock = FileLock(root / "ingest.lock", timeout=0, thread_local=False)
        self._taking = threading.Lock()
        self._ended = threading.Event()
        self._renewer: threading.Thread | None = None
        self.id = ""

    def take(self) -> None:
        """Become a writer until :meth:`release` or the end of the process.

        Raises UnavailableError while another process is the only one that may be.
        """
        with self._taking:
            if self.id:
                return
            if not self._database.served:
                self._take_alone()
            identity = uuid.uuid4().hex
            with self._database.write() as connection:
                if not self._database.served:
                    connection.execute(sa.delete(writers))  # whoever had the lock before is dead
                connection.execute(sa.insert(writers).values(id=identity, until=self._until(connection)))
            self.id = identity
            if self._database.served:
                self._ended.clear()
                self._renewer = threading.Thread(target=self._renew, name="lease", daemon=True)
                self._renewer.start()

    def _take_alone(self) -> None:
        try:
            self._lock.acquire()
        except Timeout as error:
            raise UnavailableError(
                f"Another process is ingesting into {self._root}.",
                remedy="Wait until it has finished. A server takes documents from `longleaf ingest --queue`.",
            ) from error

    def release(self) -> None:
        """Stop being a writer."""
        self._ended.set()
        if self._renewer is not None:
            self._renewer.join()
            self._renewer = None
        if self.id and self._database.served:
            with contextlib.suppress(LongleafError), self._database.write() as connection:
                connection.execute(sa.delete(writers).where(writers.c.id == self.id))
        self.id = ""
        self._lock.release(force=True)

    def confirm(self, connection: Connection) -> None:
        """Within a transaction: that this process, if it is a writer, still counts as alive.

        Raises UnavailableError when others may have taken over its work.
        """
        if not self.id or not self._database.served:
            return
        alive = sa.select(writers.c.id).where(writers.c.id == self.id, writers.c.until > now(connection))
        if connection.execute(alive).one_or_none() is None:
            raise UnavailableError(
                f"This process was silent for more than {self._lease_seconds:.0f} seconds; others took over.",
                remedy="The work is done again by whoever took over.",
            )

    def bury(self, connection: Connection) -> None:
        """Within a transaction: remove the rows of dead writers, so that nothing is theirs any more."""
        connection.execute(sa.delete(writers).where(writers.c.until <= now(connection)))

    def _until(self, connection: Connection) -> float:
        return now(connection) + self._lease_seconds if self._database.served else _FOREVER

    def _renew(self) -> None:
        while not self._ended.wait(self._lease_seconds / 3):
            with contextlib.suppress(LongleafError), self._database.write() as connection:  # next time, then
                mine = sa.update(writers).where(writers.c.id == self.id, writers.c.until > now(connection))
                if not connection.execute(mine.values(until=self._until(connection))).rowcount:
                    connection.execute(  # too late: what it had is others' now, but it may begin anew
                        sa.delete(writers).where(writers.c.id == self.id)
                    )
                    fresh = uuid.uuid4().hex
                    connection.execute(sa.insert(writers).values(id=fresh, until=self._until(connection)))
                    self.id = fresh


def alive() -> sa.Select[tuple[str]]:
    """Ids of the processes that have not been found dead."""
    return sa.select(writers.c.id)
