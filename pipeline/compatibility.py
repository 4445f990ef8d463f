"""Whether a collection was made with the embedder, chunker and analyser that are configured now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.chunk import ChunkConfig
from pipeline.errors import FingerprintMismatchError
from pipeline.lexical import Analyser, with_later_parameters
from pipeline.records import CollectionRecord, tenant_option
from pipeline.seams import Embedder


def require_same(
    record: CollectionRecord, embedder: Embedder, analyser: Analyser, chunking: ChunkConfig | None = None
) -> None:
    """Raise FingerprintMismatchError naming the settings that differ.

    ``chunking`` matters for writing only; a search leaves it out.
    """
    pairs: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "embedder": ({"fingerprint": record.fingerprint}, {"fingerprint": str(embedder.fingerprint)}),
        "chunking": (record.chunking, asdict(chunking) if chunking else record.chunking),
        "lexical analysis": (with_later_parameters(record.lexical["analyser"]), analyser.parameters),
    }
    for what, (made, configured) in pairs.items():
        if made != configured:
            differing = [key for key in {**made, **configured} if made.get(key) != configured.get(key)]
            raise FingerprintMismatchError(
                f"Collection {record.name!r} was made with the {what} {_shown(made, differing)}; "
                f"configured is {_shown(configured, differing)}.",
                remedy="Use the settings it was made with, or build it anew with: longleaf reindex "
                f"{record.name}{tenant_option(record.tenant)}",
            )


def _shown(settings: Mapping[str, Any], keys: list[str]) -> str:
    return ", ".join(f"{key}={settings.get(key)!r}" for key in sorted(keys))
