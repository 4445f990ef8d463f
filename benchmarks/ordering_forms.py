"""The signals that ``benchmarks.ordering`` compares, and compressed passages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.compress import compress
from pipeline.lm.calibration import Calibration
from pipeline.lm.model import LocalModel
from pipeline.lm.signals import Floats, Looks, Signal, fused
from pipeline.types import Hit


def signal_scores(own: Looks, free: Looks, retrieved: Floats, calibration: Calibration) -> dict[str, Floats]:
    """Scores of the passages by form."""
    sorting, middle = calibration.attention_sorting, calibration.found_in_the_middle
    scores = {
        "retriever": retrieved,
        "sorting (published)": Signal("last").scores(own),
        "question tokens": Signal("question").scores(own),
        "question less N/A": Signal("question", content_free=True).scores(own, free),
        "sorting calibrated": sorting.signal.scores(own, free),
        "middle calibrated": middle.signal.scores(own, free),
    }
    for name, weight in (("sorting", sorting.weight), ("middle", middle.weight)):
        scores[f"{name} fused"] = fused(retrieved, scores[f"{name} calibrated"], weight)
    return scores


def compressed(model: LocalModel, cell: dict[str, Any], hits: list[Hit], share: float) -> list[Hit]:
    """The passages in their order with the best sentences that fit a share of their tokens."""
    scored = [
        [(start, end, score) for name, start, end, score in cell["sentences"] if name == hit.chunk_id]
        for hit in hits
    ]
    budget = int(share * sum(model.count_tokens(hit.text) for hit in hits))
    extracts = compress(hits, scored, budget_tokens=budget, count_tokens=model.count_tokens)
    return [replace(extract.shortened(), chunk_id=f"{extract.hit.chunk_id} {share}") for extract in extracts]
