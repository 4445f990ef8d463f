"""A backup of a data directory while others read and write: the ledger's rows and every file they name.

Files never change once they are named, and none is removed before the ledger says so. So they are copied
first, at leisure; then, while no one can commit, what has come since and the rows. That is the moment the
backup is of. What embedders have learnt of the documents is in it: vectors made without would be others.
So are calibrations, which cost hours. Indexes and caches are not: they can be made again from what is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pipeline import durable, job_rows, key_files, learnt, lifecycle, migrations
from pipeline.database import Database
from pipeline.errors import ConflictError, InvalidRequestError
from pipeline.foreign import foreign_indexes
from pipeline.job_tables import job_documents, jobs
from pipeline.ledger import Ledger
from pipeline.originals import disk_errors
from pipeline.records import VersionKey
from pipeline.schema import data_version, documents, tables, versions, writers

MANIFEST = "backup.json"
LEDGER = "ledger.sqlite"
FORMAT = 1
LEARNT = (learnt.FOLDER, "calibrations")  # what embedders have learnt, and what was measured of models
KEPT_BESIDE = (key_files.KEYS, key_files.PEPPER)  # small files of the service, where there are any

_COPIERS = 8
_ROWS = 500
_KEY = (versions.c.tenant, versions.c.collection, versions.c.document_id, versions.c.version)


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What is in a backup, and for how long nobody could write. ``not_in_it`` are indexes that cannot be made
    again from it, since no collection is in them."""

    path: Path
    documents: int
    waiting: int
    files: int
    bytes: int
    seconds: float
    locked_seconds: float
    not_in_it: tuple[str, ...] = ()


def back_up(ledger: Ledger, target: Path) -> BackupReport:
    """Write a backup into a new or empty folder.

    Raises ConflictError for a folder that has something in it, InvalidRequestError for one inside of the data
    directory, DiskFullError or StorageError. Without its manifest, which is written last, a backup is not
    taken for one.
    """
    require_outside(ledger.root, target)
    began = time.monotonic()
    copied: dict[str, str] = {}
    with disk_errors(target):
        if target.exists() and any(target.iterdir()):
            raise ConflictError(f"{target} is not empty.", remedy="Name a folder that is new or empty.")
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        with ledger.database.read() as connection:
            named = list(_files(ledger, connection))
        _copy(ledger.root, target, named, copied)
        with ledger.database.write() as connection:
            locked = time.monotonic()
            now = [*_files(ledger, connection), *KEPT_BESIDE, *_learnt(ledger.root)]
            _copy(ledger.root, target, [path for path in now if path not in copied], copied)
            counts = _copy_rows(connection, target / LEDGER)
            locked = time.monotonic() - locked
        for path in set(copied) - set(now):  # replaced or deleted since
            (target / path).unlink()
            del copied[path]
        copied[LEDGER] = _digest(target / LEDGER)
        size = sum((target / path).stat().st_size for path in copied)
        _finish(target, copied)
    seconds, others = time.monotonic() - began, foreign_indexes(ledger.root / "index")
    return BackupReport(target, *counts, len(copied), size, seconds, locked, others)


def require_outside(root: Path, folder: Path) -> None:
    """Raise InvalidRequestError for a folder inside of a data directory, where a restore would remove it."""
    if folder.resolve().is_relative_to(root.resolve()):
        raise InvalidRequestError(
            f"{folder} is inside of the data folder {root}, and would be removed with it.",
            remedy="Name or move it to a folder outside of it.",
        )


def _files(ledger: Ledger, connection: Connection) -> Iterator[str]:
    """Every file that a reader or a worker will ask for, relative to the root."""
    shown = sa.select(*_KEY).where(versions.c.state.in_(lifecycle.SHOWN))
    for row in connection.execute(shown):
        folder = ledger.originals.folder(VersionKey(*row)).relative_to(ledger.root).as_posix()
        yield f"{folder}/document.json"
        if (ledger.root / folder / "original").exists():
            yield f"{folder}/original"
    waiting = sa.select(job_documents.c.job_id, job_documents.c.position).where(job_rows.on_its_way())
    for job_id, position in connection.execute(waiting):
        yield ledger.arrivals.file(job_id, position).relative_to(ledger.root).as_posix()


def _learnt(root: Path) -> Iterator[str]:
    """What stands in the folders of it, less what is being written just now."""
    for folder in LEARNT:
        for path in (root / folder).rglob("*"):
            if path.is_file() and not path.name.startswith(".") and path.suffix != ".tmp":
                yield path.relative_to(root).as_posix()


def _copy(root: Path, target: Path, paths: Iterable[str], copied: dict[str, str]) -> None:
    """Copy what is there, synced, and note its digest. What is gone was removed for a reason."""

    def one(path: str) -> tuple[str, str] | None:
        to = target / path
        to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileNotFoundError):
            mode = (root / path).stat().st_mode & 0o777
            to.touch(mode | 0o200)  # keys are their owner's only, from their first byte on
            shutil.copyfile(root / path, to)
            with to.open("rb+") as file:
                os.fsync(file.fileno())
                return path, hashlib.file_digest(file, "sha256").hexdigest()
        return None

    with ThreadPoolExecutor(_COPIERS) as pool:
        copied.update(filter(None, pool.map(one, paths)))


def _copy_rows(connection: Connection, path: Path) -> tuple[int, int]:
    """Every row into a ledger file of its own; counts of live documents and of those on their way in."""
    database = Database(path)
    try:
        with database.write() as copy:
            copy_tables(connection, copy)
            _settle(copy)
            live = sa.select(sa.func.count()).select_from(documents).where(documents.c.live.is_not(None))
            waiting = sa.select(sa.func.count()).select_from(job_documents).where(job_rows.on_its_way())
            return copy.execute(live).scalar_one(), copy.execute(waiting).scalar_one()
    finally:
        database.close()


def copy_tables(source: Connection, target: Connection) -> None:
    """Every row of every table, but those of processes and of the data version."""
    for table in tables.sorted_tables:
        if table in (writers, data_version):
            continue
        found = source.execute(sa.select(table)).mappings()
        while rows := [dict(row) for row in found.fetchmany(_ROWS)]:
            target.execute(sa.insert(table), rows)


def _settle(copy: Connection) -> None:
    """Nobody works on anything in a backup, and nothing in it is half done."""
    copy.execute(sa.delete(versions).where(versions.c.state.in_(("staged", "retired"))))
    copy.execute(sa.update(versions).where(versions.c.state == "shelved").values(state="kept"))
    copy.execute(sa.update(versions).values(writer=""))
    mine = sa.and_(
        versions.c.tenant == documents.c.tenant,
        versions.c.collection == documents.c.collection,
        versions.c.document_id == documents.c.id,
    )
    empty = ~sa.select(versions.c.version).where(mine).exists()
    copy.execute(sa.delete(documents).where(documents.c.live.is_(None), empty))
    begin_anew = {"stage": "queued", "checkpoints": {}, "writer": "", "not_before": 0.0}
    again = sa.update(job_documents).where(job_documents.c.finished.is_(None))
    copy.execute(again.where(job_documents.c.stage != "caching").values(begin_anew))
    copy.execute(sa.update(job_documents).values(writer=""))
    copy.execute(sa.update(jobs).where(jobs.c.finished.is_(None)).values(state="queued", waiting=""))


def _finish(target: Path, copied: dict[str, str]) -> None:
    for folder in {target, *(parent for path in copied for parent in (target / path).parents)}:
        if folder.is_relative_to(target):
            durable.sync(folder)
    manifest = {
        "format": FORMAT,
        "data_version": migrations.SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": copied,
    }
    durable.replace(target / MANIFEST, json.dumps(manifest).encode())
    durable.sync(target)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
