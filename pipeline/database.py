"""The ledger's SQLite file: its tables, how it is opened, and what its errors mean.

Rollback journal and ``synchronous=EXTRA`` (FULL, and the directory is synced after the journal is
gone, so that a committed transaction survives a power cut); ``secure_delete`` overwrites what is
deleted. Foreign keys are enforced. Reads see one snapshot; writes take the write lock at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from pipeline.errors import DataVersionError, DiskFullError, LongleafError, StorageError, UnavailableError

SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0

_PRAGMAS = {"journal_mode": "delete", "synchronous": 3, "foreign_keys": 1, "secure_delete": 1}

tables = sa.MetaData()

data_version = sa.Table("data_version", tables, sa.Column("version", sa.Integer, nullable=False))

collections = sa.Table(
    "collections",
    tables,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("chunking", sa.JSON, nullable=False),
    sa.Column("lexical", sa.JSON, nullable=False),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("dropped", sa.Boolean, nullable=False, default=False),
)

documents = sa.Table(
    "documents",
    tables,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("collection", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("live", sa.Integer, nullable=True),  # NULL: no version has been published, or deleted
    sa.Column("created", sa.Float, nullable=False),
    sa.ForeignKeyConstraint(["tenant", "collection"], ["collections.tenant", "collections.name"]),
)

versions = sa.Table(
    "versions",
    tables,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("collection", sa.Text, primary_key=True),
    sa.Column("document_id", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("state", sa.Text, sa.CheckConstraint("state in ('staged', 'live', 'retired')"), nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("media_type", sa.Text, nullable=False),
    sa.Column("source_name", sa.Text, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("pages", sa.Integer, nullable=False),
    sa.Column("chars", sa.Integer, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("passages", sa.Integer, nullable=False),
    sa.Column("units", sa.Integer, nullable=False),
    sa.Column("windowing", sa.Text, nullable=False),
    sa.Column("warnings", sa.JSON, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.ForeignKeyConstraint(
        ["tenant", "collection", "document_id"],
        ["documents.tenant", "documents.collection", "documents.id"],
    ),
    sa.Index("versions_not_live", "state", sqlite_where=sa.text("state <> 'live'")),
)

metadata_fields = sa.Table(
    "metadata_fields",
    tables,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("collection", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("type", sa.Text, primary_key=True),
    sa.Column("documents", sa.Integer, nullable=False),  # how many live ones have it
    sa.ForeignKeyConstraint(["tenant", "collection"], ["collections.tenant", "collections.name"]),
)


def open_engine(path: Path) -> Engine:
    """Open or make the ledger file, with its settings verified.

    Raises DataVersionError for a file of a newer Longleaf and StorageError for an unusable one.
    """
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_SECONDS}
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    try:
        with translated(path):
            with engine.connect() as connection:
                _check_pragmas(connection, path)
            with engine.execution_options(writes=True).begin() as connection:
                _check_version(connection, path)
    except LongleafError:
        engine.dispose()
        raise
    return engine


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says, not where Python guesses
    for name, value in _PRAGMAS.items():
        connection.execute(f"PRAGMA {name} = {value}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check_pragmas(connection: Connection, path: Path) -> None:
    for name, wanted in _PRAGMAS.items():
        found = connection.exec_driver_sql(f"PRAGMA {name}").scalar()
        if found != wanted:
            raise StorageError(
                f"SQLite {sqlite3.sqlite_version} has {name} = {found!r} for {path}, not {wanted!r}.",
                remedy="Close other programs that have the file open, or use a local file system.",
            )


def _check_version(connection: Connection, path: Path) -> None:
    if not sa.inspect(connection).has_table(data_version.name):
        tables.create_all(connection)
        connection.execute(data_version.insert().values(version=SCHEMA_VERSION))
    found = connection.execute(sa.select(data_version.c.version)).scalar_one()
    if found > SCHEMA_VERSION:
        raise DataVersionError(
            f"{path} has data version {found}; this Longleaf knows up to {SCHEMA_VERSION}.",
            remedy="Install the newer Longleaf again, or choose another data directory.",
        )


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what the database driver raises into the errors of :mod:`pipeline.errors`."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _translation(error.orig, path) from error
    except sqlite3.Error as error:  # while opening a connection
        raise _translation(error, path) from error


def _translation(error: BaseException | None, path: Path) -> LongleafError:
    code = str(getattr(error, "sqlite_errorname", ""))
    if code == "SQLITE_FULL":
        return DiskFullError(f"No space left for {path}.", remedy="Free space on that disk and try again.")
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return UnavailableError(
            f"{path} was locked for {BUSY_SECONDS:.0f} seconds by another process.", remedy="Try again later."
        )
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StorageError(
            f"{path} is damaged: {error}.", remedy="Restore the data directory from a backup."
        )
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_IOERR")):
        return StorageError(
            f"{path} cannot be used: {error}.", remedy="Check that the data directory exists and is writable."
        )
    return StorageError(f"{path}: {error} ({code or 'no code'}).")


def quick_check(engine: Engine, path: Path) -> list[str]:
    """What SQLite finds wrong with its own file; empty when nothing is."""
    with translated(path), engine.connect() as connection:
        rows: list[Any] = list(connection.exec_driver_sql("PRAGMA quick_check").scalars())
    return [] if rows == ["ok"] else [str(row) for row in rows]
