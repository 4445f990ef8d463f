"""A folder of converted weights: made once for each machine, complete or not there at all.

What is made from a model (safetensors of a GGUF file, a graph for another runtime) is written beside its
place, sealed with the digests of its files, and renamed. Several processes may ask for it at once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.checksums import sha256
from pipeline.errors import DiskFullError, LongleafError, StorageError

_MANIFEST = "longleaf.json"
_FREE_MARGIN_BYTES = 64 * 2**20


def is_intact(folder: Path, cache: Path) -> bool:
    """Whether a folder was sealed here and its files hold the bytes they held then."""
    files = read_manifest(folder)
    return bool(files) and all(
        (folder / name).is_file() and sha256(folder / name, cache) == digest for name, digest in files.items()
    )


def read_manifest(folder: Path) -> Mapping[str, str]:
    """File names and SHA-256 of what was sealed in ``folder``; empty if nothing was."""
    try:
        files = json.loads((folder / _MANIFEST).read_text("utf-8"))["weights"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {str(name): str(digest) for name, digest in files.items()}


def made_once(
    target: Path,
    write: Callable[[Path], None],
    *,
    source: str,
    needed_bytes: Callable[[], int],
    pattern: str,
    is_done: Callable[[Path], bool],
    progress: Callable[[str], None] | None = None,
) -> None:
    """Let ``write`` fill a new folder that becomes ``target``; files that match ``pattern`` are sealed.

    ``target`` appears complete or not at all: a killed writer leaves only a temporary folder beside it,
    which the next one removes. A second process waits for the first and, if ``is_done(target)``,
    returns. ``source`` names in words what it is made from. Raises DiskFullError before any work if
    there is less room than ``needed_bytes()`` and a margin, and StorageError for a folder that cannot be
    written.
    """
    import filelock

    say = progress or (lambda _: None)
    lock = filelock.FileLock(target.parent / f".{target.name}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if lock_is_taken(lock):
            say(f"Waiting for another process that is converting {source}")
        with lock:
            if is_done(target):
                return
            for left_over in target.parent.glob(f".{target.name}-*.tmp"):
                shutil.rmtree(left_over)  # whoever held the lock and wrote this was killed
            _require_space(target.parent, source, needed_bytes() + _FREE_MARGIN_BYTES)
            _make(target, write, source, pattern)
            say(f"Saved {target}")
    except OSError as error:
        raise _storage_error(error, target) from error


def lock_is_taken(lock: Any) -> bool:  # noqa: ANN401 - a filelock.FileLock, imported lazily
    """Whether another process holds the lock at this moment."""
    import filelock

    try:
        with lock.acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True


def _require_space(folder: Path, source: str, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise DiskFullError(
            f"Converting {source} takes {needed_bytes:,} bytes, {folder} has {free_bytes:,}.",
            remedy="Free some space, or set another folder for models.",
        )


def _make(target: Path, write: Callable[[Path], None], source: str, pattern: str) -> None:
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-", suffix=".tmp"))
    try:
        write(temporary)
        _seal(temporary, source, pattern)
        if target.exists():  # damaged, or is_done would have said so
            shutil.rmtree(target)
        temporary.chmod(0o755)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _seal(folder: Path, source: str, pattern: str) -> None:
    """Write the manifest and push everything to the disk, so that a power cut cannot leave half a model."""
    weights = {}
    for path in sorted(folder.glob(pattern)):
        with path.open("rb") as file:
            weights[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    content = {"format": 1, "source": source, "weights": weights}
    (folder / _MANIFEST).write_text(json.dumps(content, indent=1), "utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _storage_error(error: OSError, target: Path) -> LongleafError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            f"No space left in {target.parent} while converting a model.",
            remedy="Free some space, or set another folder for models.",
        )
    return StorageError(
        f"The folder for models, {target.parent}, cannot be used: {error}",
        remedy="Make it writable, or set another folder for models.",
    )
