"""Cells of ``benchmarks.ordering_cells`` as values of the pipeline. Needs nothing but the pipeline."""

from __future__ import annotations

from typing import Any

from pipeline.lm.calibrating import Trial
from pipeline.types import Hit


def trial(cell: dict[str, Any]) -> Trial:
    """A cell as the pipeline's values; the hits' scores are the dense retriever's."""
    hits = tuple(
        Hit(p["id"], p["id"], 1, p["title"], p["text"], 0, len(p["text"]), score)
        for p, score in zip(cell["passages"], cell["dense"], strict=True)
    )
    return Trial(cell["question"], cell["answers"][0], hits, cell["golds"][0])


def contains(text: str, answer: str) -> bool:
    """Whether the text says the answer, letter case and spacing aside."""
    return " ".join(answer.lower().split()) in " ".join(text.lower().split())
