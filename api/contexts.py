"""What operators see of cached contexts. Nothing is loaded to tell it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from api.metrics import Metrics

if TYPE_CHECKING:
    from api.build import Longleaf
    from pipeline.cached_reading import CachedReading
    from pipeline.lm.contexts import Contexts


def tell(metrics: Metrics, longleaf: Longleaf) -> None:
    """Add the gauges of cached contexts: bytes kept, tokens by where they were found, and the guard."""

    def contexts() -> Contexts | None:
        return longleaf.made.get("contexts")

    def kept() -> Mapping[str, float]:
        made = contexts()
        if made is None:
            return {}
        stats = made.store.stats()
        return {
            "memory": stats["memory"]["bytes"],
            "memory_budget": stats["memory"]["budget_bytes"],
            "held": stats["memory"]["held_bytes"],
            "disk": stats["disk"]["bytes"],
            "disk_budget": stats["disk"]["budget_bytes"],
        }

    def tokens() -> Mapping[str, float]:
        made = contexts()
        if made is None:
            return {}
        counts = made.store.stats()["tokens"]
        return {name.removesuffix("_tokens"): value for name, value in counts.items() if "tokens" in name}

    def guarded() -> Mapping[str, float]:
        reading: CachedReading | None = longleaf.made.get("cached_reading")
        if reading is None:
            return {}
        state = reading.guard.state()
        return {
            "compared": state.compared,
            "difference_nats": state.difference_nats,
            "drifted": float(state.drifted),
            "failed": state.failed,
        }

    def evicted() -> Mapping[str, float]:
        made = contexts()
        if made is None:
            return {}
        memory, disk = made.store.evicted_tokens()
        return {"evicted": memory, "evicted_disk": disk}

    metrics.evictions(evicted)
    metrics.gauge("longleaf_contexts_bytes", "Bytes of cached states.", kept, "part")
    metrics.gauge(
        "longleaf_contexts_tokens", "Tokens of passages, by where states were found.", tokens, "found"
    )
    metrics.gauge(
        "longleaf_contexts_guard",
        "Answers from cached contexts compared with sequential reading, and their difference.",
        guarded,
        "part",
    )
