"""Files of jobs on their way in: ``jobs/<job>/<position>``, and beside it what finished stages left.

The file itself is synced before its job is accepted. What stages leave is not: it can be made again, and
its digest in the ledger tells whether it is whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import DiskFullError
from pipeline.originals import disk_errors

RESERVE_BYTES = 16 * 1024 * 1024

_BLOCK_BYTES = 1 << 20


class Arrivals:
    """The folder ``jobs`` below a data directory. Thread-safe: a job's folder is filled by one caller."""

    def __init__(self, root: Path) -> None:
        self._root = root / "jobs"

    @contextmanager
    def receiving(self, job_id: str) -> Iterator[Path]:
        """An empty folder for a job that is being accepted; nobody takes it for a leftover meanwhile."""
        folder = self._root / job_id
        with disk_errors(folder):
            folder.mkdir(parents=True, mode=0o700)
        try:
            with FileLock(self._lock(job_id)):
                yield folder
        finally:
            self._lock(job_id).unlink(missing_ok=True)

    def put(self, folder: Path, position: int, content: bytes | Path) -> Path:
        """Copy one file into a job's folder, synced. Raises DiskFullError before writing where it can."""
        path = folder / str(position)
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        free = shutil.disk_usage(self._root).free
        if free < size + RESERVE_BYTES:
            raise DiskFullError(
                f"{self._root} has {free:,} bytes free; the file has {size:,}.",
                remedy="Free space on that disk and try again.",
            )
        with disk_errors(path), path.open("wb") as target:
            if isinstance(content, Path):
                with content.open("rb") as file:
                    shutil.copyfileobj(file, target, _BLOCK_BYTES)
            else:
                target.write(content)
            target.flush()
            os.fsync(target.fileno())
        return path

    def settle(self, folder: Path) -> None:
        """The names of a job's files survive a power cut once this returns."""
        with disk_errors(folder):
            for path in (folder, self._root, self._root.parent):
                handle = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)

    def file(self, job_id: str, position: int) -> Path:
        """The file as it arrived."""
        return self._root / job_id / str(position)

    def keep(self, job_id: str, position: int, stage: str, content: bytes) -> str:
        """Write what a stage made; returns its digest."""
        path = self.file(job_id, position).with_suffix(f".{stage}")
        draft = path.with_suffix(path.suffix + ".draft")
        with disk_errors(path):
            draft.write_bytes(content)
            draft.replace(path)
        return hashlib.sha256(content).hexdigest()

    def kept(self, job_id: str, position: int, stage: str, digest: str) -> bytes | None:
        """What a stage made, or None where it is not what the digest says."""
        with suppress(OSError):
            content = self.file(job_id, position).with_suffix(f".{stage}").read_bytes()
            if hashlib.sha256(content).hexdigest() == digest:
                return content
        return None

    def remove(self, job_id: str, positions: Iterable[int]) -> None:
        """Remove the files of these documents of a job, for good; and the folder, once it is empty."""
        folder = self._root / job_id
        with disk_errors(folder):
            for position in positions:
                for path in (folder / str(position), *folder.glob(f"{position}.*")):
                    path.unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()

    def keep_only(self, job_id: str, positions: set[int]) -> None:
        """Remove all files of a job but those of these documents; and the folder, once it is empty."""
        folder = self._root / job_id
        with suppress(FileNotFoundError):
            present = {path.name.partition(".")[0] for path in folder.iterdir()}
            self.remove(job_id, [int(name) for name in present - {str(p) for p in positions}])

    def discard(self, folder: Path) -> None:
        """Remove a job's folder with everything in it."""
        shutil.rmtree(folder, ignore_errors=True)

    def folders(self) -> list[str]:
        """Ids of the jobs that have a folder."""
        with suppress(FileNotFoundError):
            return [path.name for path in self._root.iterdir() if path.is_dir()]
        return []

    @contextmanager
    def abandoned(self, job_id: str) -> Iterator[bool]:
        """Whether nobody is filling this folder, and until the end nobody will."""
        lock = FileLock(self._lock(job_id), timeout=0)
        try:
            with lock:
                yield True
        except Timeout:
            yield False
        else:
            self._lock(job_id).unlink(missing_ok=True)

    def _lock(self, job_id: str) -> Path:
        return self._root / f"{job_id}.lock"
