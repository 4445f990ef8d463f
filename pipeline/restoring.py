"""A backup put in the place of a data directory. What was deleted since the backup stays deleted, what was
revoked stays revoked, and keys made since and the audit log stay.

All of it is checked and prepared in a folder inside the data directory before anything there is touched.
Then the folder gets the name ``restoring``: while it has that, the data is not opened, and the same call
again finishes the work.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.engine import Connection

from pipeline import durable, job_rows, key_files, lifecycle, migrations
from pipeline.backup import FORMAT, KEPT_BESIDE, LEARNT, LEDGER, MANIFEST, copy_tables, require_outside
from pipeline.database import Database, insert
from pipeline.errors import ConflictError, DataVersionError, StorageError, UnavailableError
from pipeline.job_tables import job_documents, job_events
from pipeline.ledger import RESTORING, RESTORING_DRAFT, Ledger
from pipeline.originals import disk_errors
from pipeline.records import VersionKey, folder_of
from pipeline.schema import data_version, documents, tables, tombstones, versions

_KEPT = (
    "ingest.lock",
    "deletions",
    RESTORING,
    RESTORING_DRAFT,
    *KEPT_BESIDE,
    key_files.LOCK,
    "audit.jsonl",
    "audit.jsonl.1",
)


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was restored, and what was not because it had been deleted since the backup."""

    created: str
    documents: int
    waiting: int
    left_out: int


def restore(
    source: Path,
    root: Path,
    *,
    url: str | None = None,
    replace: bool = False,
    deletions: Iterable[Path] = (),
) -> RestoreReport:
    """Make ``root`` (and the database at ``url``) what the backup ``source`` holds, less what was deleted
    since, as ``root`` itself and the data directories or backups in ``deletions`` know it.

    Indexes are empty afterwards; ``repair`` fills them. What embedders have learnt, and calibrations, stay as
    they are in ``root`` if the backup has nothing of them, as older ones. Keys are joined as
    :func:`pipeline.key_files.join` says. Raises StorageError for a backup that is incomplete or damaged,
    InvalidRequestError for one inside of ``root``, DataVersionError for one of a newer Longleaf,
    ConflictError where there is something and it is not to be replaced, UnavailableError while another
    process ingests there.
    """
    manifest = _checked(source)
    require_outside(root, source)
    with disk_errors(root):
        if not replace:
            _require_free(root, url)
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with FileLock(root / "ingest.lock", timeout=0):
                return _restore(source, root, url, manifest, list(deletions))
        except Timeout as error:
            raise UnavailableError(
                f"Another process is ingesting into {root}.", remedy="Stop it first."
            ) from error


def _restore(
    source: Path, root: Path, url: str | None, manifest: dict[str, Any], deletions: list[Path]
) -> RestoreReport:
    graves: dict[str, int] = {}
    for place in (root, root / RESTORING):
        _merge(graves, _graves(place))
    for place in deletions:
        _merge(graves, _graves(place, strict=True))
    if url:
        _merge(graves, _graves_in(Database(root / LEDGER, url)))
    if graves:  # noted first: what is about to be removed may be the only other place that knows
        _note(root / "deletions", graves)
    draft = root / RESTORING_DRAFT
    shutil.rmtree(draft, ignore_errors=True)
    try:
        report = _prepare(source, draft, graves, manifest)
        key_files.join(root, source, deletions)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    shutil.rmtree(root / RESTORING, ignore_errors=True)
    draft.rename(root / RESTORING)
    _remove_old(root)
    _put(root, url)
    os.sync()
    return report


def _prepare(source: Path, draft: Path, graves: dict[str, int], manifest: dict[str, Any]) -> RestoreReport:
    draft.mkdir(mode=0o700)
    for path in manifest["files"].keys() - KEPT_BESIDE:  # which are joined with those in place
        (draft / path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copyfile(source / path, draft / path)
    report = _respect(draft, graves, manifest["created"])
    os.sync()
    return report


def _remove_old(root: Path) -> None:
    kept = {*_KEPT, *(folder for folder in LEARNT if not (root / RESTORING / folder).exists())}
    for path in list(root.iterdir()):
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _put(root: Path, url: str | None) -> None:
    staging = root / RESTORING
    if url:
        _fill(Database(staging / LEDGER), Database(root / LEDGER, url))
        (staging / LEDGER).unlink()
    for path in list(staging.iterdir()):
        path.rename(root / path.name)
    staging.rmdir()


def _note(path: Path, graves: dict[str, int]) -> None:
    lines = (f"{name} {version}\n" for name, version in graves.items())
    durable.replace(path, "".join(lines).encode("ascii"))


def _checked(source: Path) -> dict[str, Any]:
    """The manifest, with every file it names found to be what it says."""
    try:
        manifest: dict[str, Any] = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
        form, version, files = manifest["format"], manifest["data_version"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{source} is not a complete backup ({type(error).__name__} in {MANIFEST}).",
            remedy="Name a folder that `longleaf backup` has finished.",
        ) from error
    if any(PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts for path in files):
        raise StorageError(f"{source} names files outside of itself.", remedy="Do not use it.")
    if form > FORMAT or version > migrations.SCHEMA_VERSION:
        raise DataVersionError(
            f"The backup {source} has data version {version}; this Longleaf knows up to "
            f"{migrations.SCHEMA_VERSION}.",
            remedy="Install the newer Longleaf, and restore with it.",
        )
    for path, digest in files.items():
        if not _is(source / path, digest):
            raise StorageError(f"{source / path} is missing or damaged.", remedy="Use another backup.")
    return manifest


def _is(path: Path, digest: str) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest
    return False


def _require_free(root: Path, url: str | None) -> None:
    """Raise ConflictError, saying where there is data and what would be replaced."""
    found = [str(root)] if root.exists() and any(path.name not in _KEPT for path in root.iterdir()) else []
    if url is None:
        remedy = "Add --replace to replace all of it."
    else:
        database = Database(root / LEDGER, url)
        try:
            with database.read() as connection:
                if connection.execute(sa.select(documents.c.id).limit(1)).one_or_none() is not None:
                    found.append(f"the database {database.where}")
        finally:
            database.close()
        remedy = (
            f"--replace replaces all rows of that database and the data in {root}. To keep them, name "
            "another database in ledger.url (LONGLEAF_DATABASE_URL) and another folder with --data."
        )
    if found:
        raise ConflictError(f"There is data in {' and in '.join(found)} already.", remedy=remedy)


def _graves(place: Path, *, strict: bool = False) -> dict[str, int]:
    """Tombstones that a data directory or backup knows of: in its ledger, where that can be read, and
    noted beside it. Nothing there is changed. ``strict``: raises StorageError where neither can be read."""
    graves: dict[str, int] = {}
    faults: list[Exception] = []
    try:
        address = f"file:{quote(str(place / LEDGER))}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as ledger:
            known = ledger.execute("SELECT 1 FROM sqlite_master WHERE name = 'tombstones'").fetchone()
            rows = ledger.execute("SELECT folder, version FROM tombstones").fetchall() if known else []
        graves.update(rows)
    except sqlite3.Error as error:
        faults.append(error)
    try:
        for line in (place / "deletions").read_text(encoding="ascii").splitlines():
            name, version = line.split()
            _merge(graves, {name: int(version)})
    except (OSError, ValueError) as error:
        faults.append(error)
    if strict and len(faults) > 1:
        raise StorageError(
            f"{place} does not tell what was deleted ({faults[0]}; {faults[1]}).",
            remedy="Name a data directory or a backup.",
        )
    return graves


def _graves_in(database: Database) -> dict[str, int]:
    try:
        with database.read() as connection:
            return {row.folder: row.version for row in connection.execute(sa.select(tombstones))}
    finally:
        database.close()


def _merge(graves: dict[str, int], more: dict[str, int]) -> None:
    for name, version in more.items():
        graves[name] = max(version, graves.get(name, 0))


def _respect(staging: Path, graves: dict[str, int], created: str) -> RestoreReport:
    """Take out of the prepared data what was deleted since the backup was made."""
    ledger = Ledger(staging)
    left_out = 0
    try:
        with ledger.database.write() as connection:
            known = {row.folder: row.version for row in connection.execute(sa.select(tombstones))}
            later = {name: version for name, version in graves.items() if version > known.get(name, 0)}
            hit = [key for key in _named(connection) if later.get(folder_of(key), -1) >= key.version]
            for tenant, collection, name in sorted({(k.tenant, k.collection, k.document_id) for k in hit}):
                left_out += 1
                ledger_files = job_rows.forget(connection, tenant, collection, name)
                for job_id, position in ledger_files:
                    ledger.arrivals.remove(job_id, [position])
                _erase(ledger, connection, VersionKey(tenant, collection, name, 0))
            for name, version in graves.items():
                row = {"folder": name, "version": max(version, known.get(name, 0))}
                laid = insert(connection, tombstones).values(row)
                connection.execute(laid.on_conflict_do_update(index_elements=["folder"], set_=row))
            live = sa.select(sa.func.count()).select_from(documents).where(documents.c.live.is_not(None))
            waiting = sa.select(sa.func.count()).select_from(job_documents)
            waiting = waiting.where(job_documents.c.finished.is_(None))
            found = connection.execute(live).scalar_one(), connection.execute(waiting).scalar_one()
    finally:
        ledger.close()
    return RestoreReport(created, *found, left_out)


def _named(connection: Connection) -> list[VersionKey]:
    """Every version in the backup, and as version 0 every document on its way in."""
    column = versions.c
    stored = connection.execute(
        sa.select(column.tenant, column.collection, column.document_id, column.version)
    )
    waiting = job_documents.c
    coming = connection.execute(
        sa.select(waiting.tenant, waiting.collection, waiting.document_id, sa.literal(0)).where(
            sa.or_(waiting.finished.is_(None), waiting.stage == "quarantined")
        )
    )
    return [VersionKey(*row) for row in [*stored, *coming]]


def _erase(ledger: Ledger, connection: Connection, named: VersionKey) -> None:
    """A document, whatever its versions, with its files and what is counted of it."""
    lifecycle.hide(connection, named.tenant, named.collection, named.document_id, "")
    mine = (
        versions.c.tenant == named.tenant,
        versions.c.collection == named.collection,
        versions.c.document_id == named.document_id,
    )
    for number in connection.execute(sa.select(versions.c.version).where(*mine)).scalars().all():
        key = VersionKey(named.tenant, named.collection, named.document_id, number)
        ledger.originals.remove([key])
        lifecycle.erase(connection, key)


def _fill(source: Database, target: Database) -> None:
    """Put the rows of a ledger file in the place of those of a PostgreSQL database."""
    try:
        with source.read() as rows, target.write() as connection:
            for table in reversed(tables.sorted_tables):
                if table is not data_version:
                    connection.execute(sa.delete(table))
            copy_tables(rows, connection)
            for table in (job_documents, job_events):
                last = sa.select(sa.func.coalesce(sa.func.max(table.c.seq), 0) + 1).scalar_subquery()
                sequence = sa.func.pg_get_serial_sequence(table.name, "seq")
                connection.execute(sa.select(sa.func.setval(sequence, last, False)))
    finally:
        source.close()
        target.close()
