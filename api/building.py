"""Whether and how cached states of documents are built once they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pipeline.cached_states import build_states, keep_states

if TYPE_CHECKING:
    from api.build import Longleaf
    from api.sections import Settings
    from pipeline.records import VersionKey


def at_ingestion(settings: Settings) -> bool:
    """Whether settings ask for it, and there is a language model here that can."""
    chosen = settings.language_model
    return settings.contexts.build == "ingestion" and chosen.spec != "none" and chosen.url is None


def build(longleaf: Longleaf, key: VersionKey) -> None:
    """Build the states of a version, while nobody else wants the model."""
    states = longleaf.cached_states

    def stopped() -> bool:
        return states.is_stopped(key)

    for _ in build_states(longleaf.contexts, longleaf.ledger, longleaf.indexer, key, stopped):
        pass


def keep(longleaf: Longleaf, key: VersionKey, stopped: Callable[[], bool]) -> Iterator[tuple[int, int]]:
    """The caching stage of a document of a job: how many passages are cached, of all."""
    return keep_states(longleaf.contexts, longleaf.ledger, longleaf.indexer, key, stopped)
