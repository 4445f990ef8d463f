"""The ledger's database: how it is opened, what a transaction is, and what its errors mean.

SQLite by default: rollback journal and ``synchronous=EXTRA`` (FULL, and the directory is synced after the
journal is gone, so that a committed transaction survives a power cut); ``secure_delete`` overwrites what is
deleted. PostgreSQL by URL, with ``fsync`` and ``synchronous_commit`` on. In both, foreign keys are enforced,
reads see one snapshot, and writers take turns: SQLite's write lock there, an advisory lock here.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine

from pipeline import migrations
from pipeline.errors import (
    ConfigurationError,
    DiskFullError,
    LongleafError,
    MissingDependencyError,
    StorageError,
    UnavailableError,
)
from pipeline.memo import FileChanges, Memo

BUSY_SECONDS = 30.0

_PRAGMAS = {"journal_mode": "delete", "synchronous": 3, "foreign_keys": 1, "secure_delete": 1}
_DURABLE = {"fsync": ("on",), "synchronous_commit": ("on", "local", "remote_write", "remote_apply")}
_SECRETS = ("password", "sslpassword")  # which a URL may have in its query, too
_WRITE_LOCK = 0x6C6F6E67  # "long": one number for all who write to a ledger of one database


class Database:
    """One open ledger database. Thread-safe."""

    def __init__(self, path: Path, url: str | None = None, *, migrate: bool = True) -> None:
        """Open or make the file, or the tables of the database at ``url``, with its settings verified.

        Raises DataVersionError for data of a newer Longleaf (or of an older one unless ``migrate``),
        StorageError or UnavailableError for what cannot be used, ConfigurationError for a wrong URL.
        """
        self.served = url is not None
        self.url = _served(url) if url is not None else URL.create("sqlite", database=str(path))
        shown = self.url.difference_update_query(_SECRETS)
        self.where = shown.render_as_string() if self.served else str(path)
        self._writing = Lock()
        self._changes = FileChanges(path, BUSY_SECONDS)
        self.memo = Memo(self._stamp)
        self._engine = self._create()
        try:
            with self.translated():
                with self._engine.connect() as connection:
                    self._check_settings(connection)
                with self._turn() as connection:
                    self.found_version = migrations.bring_forward(connection, self.where, migrate=migrate)
        except LongleafError:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._changes.close()
        self._engine.dispose()

    def _stamp(self) -> int | None:
        """Differs after every commit of anybody; None where that cannot be seen (PostgreSQL)."""
        if self.served:
            return None
        with self.translated():
            return self._changes.stamp()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one snapshot."""
        with self.translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is the only writing one. It is durable once this returns."""
        with self._writing, self.translated(), self._turn() as connection:
            yield connection

    def check(self) -> list[str]:
        """What SQLite finds wrong with its own file; empty when nothing is, and for PostgreSQL."""
        if self.served:
            return []
        with self.read() as connection:
            rows: list[Any] = list(connection.exec_driver_sql("PRAGMA quick_check").scalars())
        return [] if rows == ["ok"] else [str(row) for row in rows]

    def _create(self) -> Engine:
        if not self.served:
            engine = sa.create_engine(self.url, connect_args={"timeout": BUSY_SECONDS})
            event.listen(engine, "connect", _configure)
            event.listen(engine, "begin", _begin)
            return engine
        try:
            return sa.create_engine(
                self.url,
                isolation_level="REPEATABLE READ",
                pool_pre_ping=True,
                connect_args={"connect_timeout": int(BUSY_SECONDS)},
            )
        except ImportError as error:
            raise MissingDependencyError(
                f"{self.where} needs the driver psycopg, which is not installed.",
                remedy="Install it with: pip install 'longleaf[postgres]'",
            ) from error

    @contextmanager
    def _turn(self) -> Iterator[Connection]:
        if not self.served:
            with self._engine.execution_options(writes=True).begin() as connection:
                yield connection
            return
        # The snapshot must be taken after the lock, which one of REPEATABLE READ would not be.
        with self._engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(BUSY_SECONDS * 1000)}")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")
            yield connection

    def _check_settings(self, connection: Connection) -> None:
        if self.served:
            for name, wanted in _DURABLE.items():
                found = connection.exec_driver_sql(f"SHOW {name}").scalar()
                if found not in wanted:
                    raise StorageError(
                        f"{self.where} has {name} = {found}: what it acknowledges could be lost.",
                        remedy=f"Set {name} = on in PostgreSQL.",
                    )
            return
        for name, value in _PRAGMAS.items():
            found = connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            if found != value:
                raise StorageError(
                    f"SQLite {sqlite3.sqlite_version} has {name} = {found!r} for {self.where}, not {value}.",
                    remedy="Close other programs that have the file open, or use a local file system.",
                )

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what the database driver raises into the errors of :mod:`pipeline.errors`."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            translate = _of_postgresql if self.served else _of_sqlite
            raise translate(error.orig, self.where) from error
        except sqlite3.Error as error:  # while opening a connection
            raise _of_sqlite(error, self.where) from error


def insert(connection: Connection, table: sa.Table) -> sqlite.Insert:
    """An INSERT that can say what happens on conflict, in the words of this connection's database."""
    if connection.dialect.name == "postgresql":
        return cast(sqlite.Insert, postgresql.insert(table))  # both have the methods that are used
    return sqlite.insert(table)


def now(connection: Connection) -> float:
    """Seconds since 1970 by the one clock that all who share this database have."""
    if connection.dialect.name == "postgresql":
        return float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())
    return time.time()


def _served(given: str) -> URL:
    """The address with the driver that is used. Raises ConfigurationError, never repeating a password."""
    try:
        url = sa.make_url(given)
    except (sa.exc.ArgumentError, ValueError):  # that of a port that is no number has its words
        url = URL.create("unreadable")
    if given.count("@") > 1 or "@" in (url.database or ""):  # part of a password is taken for another part
        raise ConfigurationError(
            "The ledger's URL has an '@' or '/' too many.",
            remedy="Write those of the user's name and password percent-encoded: '@' as %40, '/' as %2F, "
            "':' as %3A, '?' as %3F, '%' as %25.",
        )
    if url.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise ConfigurationError(
            f"The ledger's URL is of the kind {url.drivername!r}.",
            remedy="Write postgresql://user:password@host:5432/database, or leave it out for SQLite.",
        )
    return url.set(drivername="postgresql+psycopg")


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says, not where Python guesses
    for name, value in _PRAGMAS.items():
        connection.execute(f"PRAGMA {name} = {value}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _of_sqlite(error: BaseException | None, where: str) -> LongleafError:
    code = str(getattr(error, "sqlite_errorname", ""))
    if code == "SQLITE_FULL":
        return DiskFullError(f"No space left for {where}.", remedy="Free space on that disk and try again.")
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return UnavailableError(
            f"{where} was locked for {BUSY_SECONDS:.0f} seconds by another process.",
            remedy="Try again later.",
        )
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StorageError(
            f"{where} is damaged: {error}.", remedy="Restore the data directory from a backup."
        )
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_IOERR")):
        return StorageError(
            f"{where} cannot be used: {error}.",
            remedy="Check that the data directory exists and is writable.",
        )
    return StorageError(f"{where}: {error} ({code or 'no code'}).")


def _of_postgresql(error: BaseException | None, where: str) -> LongleafError:
    code = str(getattr(error, "sqlstate", None) or "")
    said = str(error).strip().partition("\n")[0]
    if code == "53100":
        return DiskFullError(f"No space left for {where}.", remedy="Free space there and try again.")
    if code == "55P03":
        return UnavailableError(
            f"{where} was locked for {BUSY_SECONDS:.0f} seconds by another process.",
            remedy="Try again later.",
        )
    if not code or code.startswith(("08", "53", "57")):  # no connection, no resources, being stopped
        return UnavailableError(f"{where} does not answer: {said}.", remedy="Check that it runs; try again.")
    return StorageError(f"{where}: {said} ({code}).")
