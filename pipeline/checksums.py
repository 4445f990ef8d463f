"""SHA-256 of large files, remembered so that a start takes milliseconds.

A digest is trusted for as long as the file's resolved path, size and modification time stay what they
were when it was computed. The memory is a cache: losing it costs a second of hashing and nothing else.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.remembered import recall, remember

_FILE = "checksums.json"


def sha256(path: Path, cache: Path) -> str:
    """Hexadecimal SHA-256 of ``path``, computed at most once for each state of the file.

    ``cache`` is the folder that holds ``checksums.json``. Raises OSError if the file cannot be read.
    """
    path = path.resolve()
    state = path.stat()
    key = [state.st_size, state.st_mtime_ns]
    memory = cache / _FILE
    known = _read(memory).get(str(path))
    if known is not None and known[:2] == key:
        return str(known[2])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # Read again: another process may have added its own entries while this one was hashing.
    remember(memory, {**_read(memory), str(path): [*key, digest]})
    return digest


def _read(file: Path) -> dict[str, list[int | str]]:
    """What is remembered; a missing or damaged memory is an empty one."""
    content = recall(file)
    if not isinstance(content, dict):
        return {}
    return {path: entry for path, entry in content.items() if isinstance(entry, list) and len(entry) == 3}
