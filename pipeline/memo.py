"""Answers that stay true until something is written, whoever writes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Hashable
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")

MOST_ANSWERS = 50_000


class Memo:
    """Keeps what questions were answered until ``stamp()`` differs. Thread-safe.

    The stamp is asked before the question is, so an answer may be newer than its stamp says and never
    older. ``stamp`` gives None where changes cannot be seen: then nothing is kept.
    """

    def __init__(self, stamp: Callable[[], int | None]) -> None:
        self._stamp = stamp
        self._kept_at: int | None = None
        self._answers: dict[Hashable, Any] = {}
        self._lock = Lock()

    def fresh(self) -> dict[Hashable, Any]:
        """The answers that are true now; what is added to it is kept as long as it is."""
        now = self._stamp()
        with self._lock:
            if now is None or now != self._kept_at or len(self._answers) > MOST_ANSWERS:
                self._answers = {}
                self._kept_at = now
            return self._answers

    def of(self, question: Hashable, answer: Callable[[], T]) -> T:
        """The kept answer, or what ``answer`` says now. An error is not kept."""
        answers = self.fresh()
        if question not in answers:
            answers[question] = answer()
        kept: T = answers[question]
        return kept


class FileChanges:
    """Tells whether anything was committed to a SQLite file, by any connection of any process: SQLite's own
    counter, as a connection sees it that never writes."""

    def __init__(self, path: Path, busy_seconds: float) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None

    def stamp(self) -> int:
        """A number that differs from the last one after every commit. Raises sqlite3.Error."""
        with self._lock:
            if self._connection is None:
                self._connection = sqlite3.connect(
                    self._path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False
                )
            stamp: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
            return stamp

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
