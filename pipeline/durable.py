"""Files that are written whole or not at all, and are on disk before anybody sees them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MODE = 0o666  # as far as the process's mask lets it


def replace(file: Path, content: bytes, mode: int = _MODE) -> None:
    """Put a file in the place of another in one step. Raises OSError; the old one is then still there."""
    with _draft(file, content, mode) as draft:
        draft.replace(file)


def create(file: Path, content: bytes, mode: int = _MODE) -> None:
    """Write a new file; one that is there by then stays, whoever wrote it. Raises OSError."""
    with _draft(file, content, mode) as draft:
        try:
            os.link(draft, file)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links, as a memory stick's
            if not file.exists():
                draft.replace(file)


def sync(path: Path) -> None:
    """``fsync`` one file or folder. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _draft(file: Path, content: bytes, mode: int) -> Iterator[Path]:
    """A hidden file beside it that has the content, on disk; removed in the end if it is still there."""
    draft = file.with_name(f".{file.name}-{secrets.token_hex(8)}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)
