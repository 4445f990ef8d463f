"""The files of API keys (``api.keys``): how they are read, written and locked, and joined by a restore."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from pipeline import durable
from pipeline.errors import StorageError, UnavailableError
from pipeline.originals import disk_errors

T = TypeVar("T")

KEYS, PEPPER, LOCK = "keys.json", "keys.pepper", "keys.lock"

_LOCK_SECONDS = 10.0


def lock(root: Path) -> FileLock:
    """What is held while the keys of a data directory are changed. It knows processes, not threads."""
    return FileLock(root / LOCK, timeout=_LOCK_SECONDS, mode=0o600, thread_local=False)


@contextmanager
def held(lock: FileLock) -> Iterator[None]:
    """Hold it. Raises UnavailableError."""
    try:
        with lock:
            yield
    except Timeout as error:
        raise UnavailableError(
            f"Another process has been changing the keys for {_LOCK_SECONDS:.0f} seconds.",
            remedy="Try again later.",
        ) from error


def read(file: Path, make: Callable[[dict[str, Any]], T]) -> dict[str, T]:
    """What is made of every key's row, by id, oldest first. Raises StorageError for a damaged file."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        return {row["id"]: make(row) for row in rows}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(
            f"The key file {str(file)!r} is damaged.",
            remedy="Remove it, and restore a backup or create new keys; then revoke again what was revoked.",
        ) from error


def write(file: Path, content: bytes) -> None:
    """Replace a file in one step, readable by its owner only. Raises DiskFullError, StorageError."""
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(file, content, 0o600)


def write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replace the keys."""
    write(file, json.dumps(list(rows), indent=1).encode())


def join(root: Path, backup: Path, others: Iterable[Path] = ()) -> None:
    """Bring the keys of a backup back into ``root``, with nothing revoked that is valid again.

    The keys in place stay. Those of the backup come to them if they were made under the same pepper, without
    which none of them can be verified, or if there are none in place. What is revoked in either, or in the
    data directories or backups in ``others``, is revoked. Raises StorageError for a damaged file,
    UnavailableError.
    """
    with held(lock(root)):
        mine, given = read(root / KEYS, dict), read(backup / KEYS, dict)
        if mine and _pepper(root) != _pepper(backup):
            given = {}
        rows = {**given, **mine}
        for place in (backup, *others):
            for identity, row in read(place / KEYS, dict).items():
                if identity in rows and not rows[identity].get("revoked"):
                    rows[identity] = {**rows[identity], "revoked": row.get("revoked", "")}
        if rows and not mine and (pepper := _pepper(backup)):  # an empty one would be no secret
            write(root / PEPPER, pepper)
        if rows != mine:
            write_rows(root / KEYS, rows.values())


def _pepper(place: Path) -> bytes:
    with suppress(FileNotFoundError):
        return (place / PEPPER).read_bytes()
    return b""
