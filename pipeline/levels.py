"""Token buckets (Turner 1986) that several processes share: how full each is, in the ledger's database.

Beside PostgreSQL's tables there is one of its own, which no lock of the ledger guards and no transaction
waits for the disk for; beside a SQLite ledger a small file, ``levels.sqlite``. What is lost with either is
at most a minute's count, so nothing is synced, backed up or migrated.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from pipeline.database import Database, insert, now

FILE = "levels.sqlite"
WAIT_SECONDS = 2.0
"""Nobody waits longer than this for the database, or for others who change the same bucket."""

_MINUTE = 60.0
_TIDY_EVERY = 1_000


def _table(*prefixes: str) -> sa.Table:
    return sa.Table(
        "minute_levels",
        sa.MetaData(),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("level", sa.Float, nullable=False),  # below zero: what was used before it was counted
        sa.Column("at", sa.Float, nullable=False),  # when that was the level
        sa.Column("full_at", sa.Float, nullable=False),  # from then on a row says nothing
        prefixes=list(prefixes),
    )


class Levels:
    """Buckets by name, each holding one minute's worth and filling up steadily. Thread-safe.

    Raises what the database driver raises (SQLAlchemyError) and OSError: callers count by themselves then.
    """

    def __init__(self, ledger: Database, root: Path) -> None:
        """Opened at first use, beside that ledger, or in ``root`` where it is a file."""
        self._served, self._url, self._file = ledger.served, ledger.url, root / FILE
        self._table = _table("UNLOGGED") if ledger.served else _table()
        self._engine: Engine | None = None
        self._lock = threading.Lock()
        self._taken = 0

    def take(
        self, name: str, *, back: float, least: float, most: float, per_minute: int
    ) -> tuple[float, float]:
        """Give ``back`` to a bucket (a debt if negative), then take ``most`` from it or what there is.

        What was taken, and 0; or 0 and the seconds until there is ``least`` again.
        """
        with self._write() as connection:
            at = now(connection)
            chosen = self._table.c.name == name
            row = connection.execute(sa.select(self._table).where(chosen).with_for_update()).one_or_none()
            if row is None:
                full = insert(connection, self._table).values(name=name, level=per_minute, at=at, full_at=at)
                connection.execute(full.on_conflict_do_nothing())
                row = connection.execute(sa.select(self._table).where(chosen).with_for_update()).one()
            filled = row.level + max(at - row.at, 0.0) * per_minute / _MINUTE
            level = min(filled + back, float(per_minute))
            given = min(most, level) if level >= least else 0.0
            wait = 0.0 if given else (least - level) * _MINUTE / per_minute
            level -= given
            full_at = at + (per_minute - level) * _MINUTE / per_minute
            changed = self._table.update().where(chosen).values(level=level, at=at, full_at=full_at)
            connection.execute(changed)
        self._tidy(at)
        return given, wait

    def close(self) -> None:
        """Close every connection."""
        if self._engine is not None:
            self._engine.dispose()

    def _tidy(self, at: float) -> None:
        """Forget full buckets now and then: one without a row is full. In a transaction of its own, so that
        nobody holds one bucket while waiting for others; what cannot be cleared now is cleared later."""
        if self._taken % _TIDY_EVERY == 0:
            with suppress(sa.exc.SQLAlchemyError), self._write() as connection:
                connection.execute(self._table.delete().where(self._table.c.full_at < at))
        self._taken += 1

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._lock:
            if self._engine is None:
                self._engine = self._open()
        with self._engine.begin() as connection:
            if self._served:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(WAIT_SECONDS * 1000)}")
                connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(2 * WAIT_SECONDS * 1000)}")
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            yield connection

    def _open(self) -> Engine:
        if self._served:
            waits = {"connect_timeout": int(WAIT_SECONDS)}
            engine = sa.create_engine(self._url, pool_size=1, pool_pre_ping=True, connect_args=waits)
        else:
            engine = _file_engine(self._file)
        try:
            try:
                self._table.create(engine, checkfirst=True)
            except sa.exc.DatabaseError as error:
                # A damaged file, by a power failure perhaps, is begun anew: nothing in it was to last.
                # One that is only locked or may not be written is what others count in.
                if not self._served and not isinstance(error, sa.exc.OperationalError):
                    engine.dispose()
                    self._file.unlink(missing_ok=True)
                    engine = _file_engine(self._file)
                # Or another process made it between the question whether it is there and the answer.
                self._table.create(engine, checkfirst=True)
        except BaseException:
            engine.dispose()
            raise
        return engine


def _file_engine(path: Path) -> Engine:
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": WAIT_SECONDS})

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where the next listener says
        connection.execute("PRAGMA synchronous = OFF")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
