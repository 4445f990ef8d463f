"""Who changed what, and who was turned away: one JSON line each in ``audit.jsonl``.

A document is named by the identifier derived from its tenant, collection and id, so that the record of a
deletion does not keep what was deleted. Lines are written by a thread of their own; a file that has grown
to its limit becomes ``audit.jsonl.1``, and the one before goes.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread

_log = logging.getLogger("longleaf.audit")


class AuditLog:
    """Appends to one file below ``root``."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self._path = root / "audit.jsonl"
        self._max_bytes = max_bytes
        self._waiting: SimpleQueue[dict[str, object] | None] = SimpleQueue()
        self._starting = Lock()
        self._writer: Thread | None = None

    def note(self, **entry: object) -> None:
        """Record what happened, with the time."""
        with self._starting:
            if self._writer is None:
                self._writer = Thread(target=self._write, name="audit", daemon=True)
                self._writer.start()
        self._waiting.put({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **entry})

    def close(self) -> None:
        """Return once everything noted is in the file."""
        with self._starting:
            writer, self._writer = self._writer, None
        if writer is not None:
            self._waiting.put(None)
            writer.join()

    def _write(self) -> None:
        while (entry := self._waiting.get()) is not None:
            try:
                self._append(json.dumps(entry) + "\n")
            except OSError as error:
                _log.error("the audit log cannot be written: %s", error.strerror)

    def _append(self, line: str) -> None:
        if self._path.exists() and self._path.stat().st_size + len(line) > self._max_bytes:
            self._path.replace(self._path.with_suffix(".jsonl.1"))
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
            file.write(line)
