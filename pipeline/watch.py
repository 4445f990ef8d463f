"""How far a piece of work has come, and whether it is still wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Literal

from pipeline.errors import WorkCancelledError

Stage = Literal["reading", "chunking", "embedding", "indexing", "optimizing", "done"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an ingestion stands. ``documents_total`` is None while the end of the sources is unknown.

    ``stage`` and ``name`` tell what began or moved last; stages of different documents overlap.
    ``tokens_done`` counts document tokens embedded in this call.
    """

    stage: Stage
    name: str
    documents_done: int
    documents_total: int | None
    tokens_done: int


class Watch:
    """Reports to one listener and asks one canceller; several threads may use it, one at a time each."""

    def __init__(
        self,
        listener: Callable[[Progress], None] | None,
        cancelled: Callable[[], bool] | None,
        documents_total: int | None,
    ) -> None:
        self._listener = listener
        self._cancelled = cancelled
        self._total = documents_total
        self._documents = 0
        self._tokens = 0
        self._lock = Lock()

    def enter(self, stage: Stage, name: str) -> None:
        """A stage begins for a document. Raises WorkCancelledError when the work is no longer wanted."""
        self.moved(stage, name, documents=0, tokens=0)

    def moved(self, stage: Stage, name: str, *, documents: int = 0, tokens: int = 0) -> None:
        """Documents or tokens were finished. Raises WorkCancelledError as :meth:`enter` does."""
        if self._cancelled is not None and self._cancelled():
            raise WorkCancelledError(
                f"Cancelled while {stage} {name!r}.", remedy="What was finished before is kept."
            )
        with self._lock:
            self._documents += documents
            self._tokens += tokens
            if self._listener is not None:
                self._listener(Progress(stage, name, self._documents, self._total, self._tokens))
