"""Ingestion jobs as callers see them: what was accepted, how far it is, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from pipeline.errors import ConfigurationError, InvalidRequestError

JobState = Literal["queued", "running", "done", "partial", "failed", "cancelled"]
JobStage = Literal[
    "queued",
    "reading",
    "chunking",
    "embedding",
    "indexing",
    "caching",
    "done",
    "failed",
    "quarantined",
    "cancelled",
]
OnConflict = Literal["replace", "skip", "fail", "new_version"]
ENDED: tuple[JobStage, ...] = ("done", "failed", "quarantined", "cancelled")


@dataclass(frozen=True, slots=True)
class JobConfig:
    """How jobs are worked on."""

    workers: int = 1
    """Threads of `longleaf serve` that work on jobs; 0 leaves them to `longleaf jobs work` elsewhere."""
    batch_documents: int = 32
    """Most documents that a worker takes at a time, so that small ones fill the embedder's batches."""
    batch_bytes: int = 8 * 1024 * 1024
    """Most bytes that a worker takes at a time, unless one document alone has more."""
    max_attempts: int = 3
    """Attempts after which a document that fails for no stated reason, or ends the worker, is quarantined."""
    backoff_seconds: float = 1.0
    """Pause before the second attempt; it doubles with each one."""
    max_backoff_seconds: float = 300.0
    """Longest pause, also while the disk is full or a server is down, which counts as no attempt."""
    poll_seconds: float = 1.0
    """How often a worker looks for jobs that another process accepted."""
    max_queued_documents: int = 10_000
    """Documents of a tenant that may wait; more are refused with 503."""
    max_queued_bytes: int = 8 * 1024**3
    """Bytes of a tenant that may wait on disk; more are refused with 503."""
    keep_days: float = 7.0
    """How long a job can be looked at after it ended, and its `Idempotency-Key` is remembered."""

    def __post_init__(self) -> None:
        least: dict[str, float] = {"workers": 0, "batch_documents": 1, "batch_bytes": 1, "max_attempts": 1}
        least |= {"poll_seconds": 0.01, "max_queued_documents": 1, "max_queued_bytes": 1}
        for name in self.__dataclass_fields__:
            if getattr(self, name) < least.get(name, 0):
                raise ConfigurationError(
                    f"jobs.{name} is {getattr(self, name)}.",
                    remedy=f"Set it to {least.get(name, 0)} or more.",
                )


@dataclass(frozen=True, slots=True)
class Job:
    """A job with its progress. ``waiting`` says for what, when its work cannot go on; ``seconds_left`` is
    reckoned from the bytes done so far, and None before anything is."""

    id: str
    tenant: str
    collection: str
    state: JobState
    on_conflict: OnConflict
    created: datetime
    started: datetime | None
    finished: datetime | None
    waiting: str = ""
    documents_total: int = 0
    documents_done: int = 0
    documents_failed: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    pages: int = 0
    tokens: int = 0
    seconds_left: float | None = None
    stages: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobDocument:
    """One document of a job. ``status`` is what became of it, as an upload without a job says it;
    ``code``, ``message`` and ``remedy`` say why it failed, what is being waited for, how many passages are
    cached, or why not all of a stored document's could be."""

    position: int
    document_id: str
    name: str
    stage: JobStage
    status: str
    version: int
    attempts: int
    bytes: int
    pages: int
    tokens: int
    code: str = ""
    message: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened. ``kind`` is ``job`` (``detail`` is its state) or ``document`` (``detail`` is
    the stage it entered, ``position`` says which)."""

    id: int
    at: datetime
    kind: Literal["job", "document"]
    position: int | None
    detail: str


def check_on_conflict(value: str) -> OnConflict:
    """The value, if it is one. Raises InvalidRequestError."""
    for known in get_args(OnConflict):
        if value == known:
            return known  # type: ignore[no-any-return]
    raise InvalidRequestError(
        f"on_conflict is {value[:40]!r}.", remedy=f"Choose from {', '.join(get_args(OnConflict))}."
    )
