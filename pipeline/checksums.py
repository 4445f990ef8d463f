"""SHA-256 of large files, remembered so that a start takes milliseconds.

A digest is trusted for as long as the file's resolved path, size and modification time stay what they
were when it was computed. The memory is a cache: losing it costs a second of hashing and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

_FILE = "checksums.json"


def sha256(path: Path, cache: Path) -> str:
    """Hexadecimal SHA-256 of ``path``, computed at most once for each state of the file.

    ``cache`` is the folder that holds ``checksums.json``. Raises OSError if the file cannot be read.
    """
    path = path.resolve()
    state = path.stat()
    key = [state.st_size, state.st_mtime_ns]
    known = _read(cache).get(str(path))
    if known is not None and known[:2] == key:
        return str(known[2])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # Read again: another process may have added its own entries while this one was hashing.
    _write(cache, {**_read(cache), str(path): [*key, digest]})
    return digest


def _read(cache: Path) -> dict[str, list[int | str]]:
    """What is remembered; a missing or damaged memory is an empty one."""
    try:
        content = json.loads((cache / _FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {path: entry for path, entry in content.items() if isinstance(entry, list) and len(entry) == 3}


def _write(cache: Path, content: dict[str, list[int | str]]) -> None:
    """Replace the memory in one step. A folder that cannot be written only costs the next hashing."""
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=cache, prefix=".checksums-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
            Path(temporary).replace(cache / _FILE)
        finally:
            Path(temporary).unlink(missing_ok=True)
