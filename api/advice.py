"""What the answer flow asks about a language model: its calibration, and rerankers by its attention."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from pipeline import plugins
from pipeline.errors import ModelError
from pipeline.lm.calibration import AttentionOrder, Calibration, find
from pipeline.lm.model import LocalModel
from pipeline.seams import LanguageModel, Reranker


class ModelAdvice:
    """Implements :class:`pipeline.ordering.Advice`. Remembers what it made; thread-safe."""

    def __init__(self, calibrations: Path) -> None:
        """``calibrations`` is the folder of those made here."""
        self._folder = calibrations
        self._rerankers: dict[tuple[str, str], Reranker] = {}
        self._lock = Lock()

    def calibration(self, model: LanguageModel) -> Calibration | None:
        """What was measured for these weights; None for a remote model, whose weights nobody knows.

        Raises ConfigurationError for a calibration of other weights.
        """
        if not isinstance(model, LocalModel):
            return None
        return find(model.name, model.revision, self._folder)

    def reranker(self, order: AttentionOrder, model: LanguageModel) -> Reranker:
        """The reranker of that name over this model. Raises ModelError if its attention cannot be seen."""
        if not isinstance(model, LocalModel):
            raise ModelError(
                f"{model.name} is not in this process, so its attention cannot be seen.",
                remedy="Use the order score, reverse or edges.",
            )
        key = (order, model.revision)
        with self._lock:
            if key not in self._rerankers:
                self._rerankers[key] = plugins.load(
                    "rerankers", order, language_model=model, calibrations=self._folder
                )
            return self._rerankers[key]
