"""One place that hears what the service does, and tells metrics and traces."""

from __future__ import annotations

from collections.abc import Iterable

from api.callers import Shelf
from api.metrics import Metrics
from api.tracing import Tracing
from pipeline.results import IngestResult
from pipeline.types import Answer, Retrieval


class Telemetry:
    """Metrics and traces of one application."""

    def __init__(self, metrics: Metrics, tracing: Tracing) -> None:
        self.metrics = metrics
        self.tracing = tracing

    def searched(self, shelf: Shelf, found: Retrieval) -> None:
        """A search that was answered."""
        self.metrics.stages(found.timings)
        self.tracing.done(
            "retrieval",
            "search",
            sum(found.timings.values()),
            {
                "gen_ai.data_source.id": shelf.collection,
                "longleaf.hits": len(found.hits),
                **{f"longleaf.seconds.{stage}": seconds for stage, seconds in found.timings.items()},
            },
        )

    def answered(self, shelf: Shelf, model: str, answer: Answer) -> None:
        """A question that was answered."""
        kind = answer.mode if answer.found else "not_found"
        self.metrics.answered(kind, answer.timings, {**answer.decoding, **answer.usage})
        # The first token is inside of the generation, and so not part of the sum.
        seconds = sum(value for stage, value in answer.timings.items() if stage != "first_token")
        self.tracing.done(
            "chat",
            model,
            seconds,
            {
                "gen_ai.data_source.id": shelf.collection,
                "gen_ai.usage.input_tokens": answer.usage.get("prompt_tokens", 0),
                "gen_ai.usage.output_tokens": answer.usage.get("completion_tokens", 0),
                "gen_ai.usage.cache_read.input_tokens": int(
                    answer.usage.get("cached_tokens", 0) or answer.decoding.get("cached_prompt_tokens", 0)
                ),
                "longleaf.answer": kind,
                "longleaf.passages": len(answer.context.passages),
                **{f"longleaf.seconds.{stage}": value for stage, value in answer.timings.items()},
            },
        )

    def embedded(self, model: str, tokens: int, seconds: float) -> None:
        """Texts that were embedded."""
        self.metrics.embedded(tokens, seconds)
        self.tracing.done("embeddings", model, seconds, {"gen_ai.usage.input_tokens": tokens})

    def ingested(self, results: Iterable[IngestResult]) -> None:
        """Documents that were ingested, or not."""
        for result in results:
            self.metrics.ingested(result.status, result.tokens, result.seconds)
