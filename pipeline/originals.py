"""The files of documents: the original as it came, and what the reader made of it.

``documents/<two hex>/<uuid>/<version>/`` holds ``original`` and ``document.json``. A version's folder
is filled and fsynced before the ledger publishes that version, and no reader looks into it earlier,
so a crash can leave a folder that nobody reads but never a half-written one that somebody does.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from pipeline import durable
from pipeline.errors import DamagedFileError, DiskFullError, NotFoundError, StorageError
from pipeline.read import wire
from pipeline.records import VersionKey
from pipeline.types import Document

_WRITERS = 8  # fsyncs that run together share journal commits of the file system: 4 ms each becomes 0.5


@dataclass(frozen=True, slots=True)
class Stored:
    """What is written for one version. ``original`` is a file on the same file system, or None when the
    caller gave text, which the document keeps exactly."""

    key: VersionKey
    document: Document
    original: Path | None


class Originals:
    """Files below one root. Thread-safe: a version's folder has one writer, then only readers."""

    def __init__(self, root: Path) -> None:
        self._root = root / "documents"
        self._spool = root / "spool"
        self._deletions = root / "deletions"

    def folder(self, key: VersionKey) -> Path:
        """Where the files of a version are."""
        return self._root / key.folder

    def spool(self, name: str) -> Path:
        """An empty folder on the same file system, for files on their way in."""
        path = self._spool / name
        with disk_errors(path):
            path.mkdir(parents=True, mode=0o700, exist_ok=True)
        return path

    def clear_spool(self, alive: Collection[str]) -> None:
        """Remove what interrupted ingestions left there: folders whose name begins with no one alive."""
        with suppress(FileNotFoundError):
            for folder in list(self._spool.iterdir()):
                if folder.name.partition("-")[0] not in alive:
                    shutil.rmtree(folder, ignore_errors=True)
            _remove_empty(self._spool)

    def write(self, batch: Sequence[Stored]) -> None:
        """Write all files of all versions; they would survive a power cut once this returns."""
        with disk_errors(self._root), ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(self._write, batch))
            list(pool.map(durable.sync, sorted({path for item in batch for path in self._parents(item.key)})))

    def _write(self, item: Stored) -> None:
        folder = self.folder(item.key)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        with (folder / "document.json").open("wb") as file:
            file.write(wire.encode(item.document))
            file.flush()
            os.fsync(file.fileno())
        if item.original is not None:
            _link(item.original, folder / "original")
            durable.sync(folder / "original")

    def _parents(self, key: VersionKey) -> Iterator[Path]:
        path = self.folder(key)
        while path != self._root.parent:
            yield path
            path = path.parent
        yield path

    def document(self, key: VersionKey) -> Document:
        """The stored document. Raises StorageError when its file is missing or damaged."""
        path = self.folder(key) / "document.json"
        try:
            document = wire.decode(path.read_bytes())
        except (OSError, DamagedFileError) as error:
            raise StorageError(
                f"The stored text of {key.document_id!r} version {key.version} cannot be read "
                f"({error.__cause__ or error}).",
                remedy="Ingest the document again, or restore the data directory from a backup.",
            ) from error
        return replace(document, id=key.document_id, version=key.version)

    def original(self, key: VersionKey) -> Path:
        """The original file. Raises NotFoundError for a document that was given as text."""
        path = self.folder(key) / "original"
        if not path.exists():
            raise NotFoundError(f"Document {key.document_id!r} has no original file: it was given as text.")
        return path

    def remove(self, keys: Sequence[VersionKey]) -> None:
        """Remove the files of these versions, for good, once this returns. Missing ones are fine."""
        with disk_errors(self._root):
            touched: set[Path] = set()
            for key in keys:
                path = self.folder(key)
                if path.exists():
                    shutil.rmtree(path)
                for parent in (path.parent, path.parent.parent):
                    _remove_empty(parent)
                touched.update(self._parents(key))
            for path in touched:
                if path.exists():
                    durable.sync(path)

    def deleted(self, graves: Mapping[str, int]) -> None:
        """Note on disk which documents were deleted, by the name of their folder and their last version, so
        that a restored backup will not bring them back even where the ledger is lost."""
        if not graves:
            return
        with disk_errors(self._deletions):
            new = not self._deletions.exists()
            with self._deletions.open("a", encoding="ascii") as file:
                file.writelines(f"{name} {version}\n" for name, version in graves.items())
                file.flush()
                os.fsync(file.fileno())
            if new:
                durable.sync(self._deletions.parent)


def _link(source: Path, target: Path) -> None:
    """A second name for the file, or a copy where the file system has no hard links."""
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV):
            raise
        shutil.copyfile(source, target)


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn OSError into DiskFullError where the disk or a quota is full, else into StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"No space left on the disk of {path}.", remedy="Free space there and try again."
            ) from error
        raise StorageError(
            f"{path} cannot be used: {error}.", remedy="Check that the data directory is writable."
        ) from error


class DocumentCache:
    """Recently loaded documents, least recently used out first, within a budget of bytes."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._entries: OrderedDict[VersionKey, tuple[Document, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, key: VersionKey, load: Callable[[VersionKey], Document]) -> Document:
        """The cached document, or ``load(key)``, kept if it fits."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]
        document = load(key)
        size = _memory_bytes(document)
        with self._lock:
            if key not in self._entries and size <= self._budget_bytes:
                self._entries[key] = (document, size)
                self._bytes += size
            while self._bytes > self._budget_bytes:
                _, (_, freed) = self._entries.popitem(last=False)
                self._bytes -= freed
        return document

    def evict(self, keys: Sequence[VersionKey]) -> None:
        """Forget these versions."""
        with self._lock:
            for key in keys:
                if key in self._entries:
                    self._bytes -= self._entries.pop(key)[1]


def _memory_bytes(document: Document) -> int:
    """An estimate: the text exactly, and about 120 bytes a page, section or block."""
    parts = len(document.pages) + len(document.sections) + len(document.blocks)
    return sys.getsizeof(document.text) + 120 * parts
