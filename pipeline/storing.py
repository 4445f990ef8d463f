"""Writing whole versions of documents, and removing them, across ledger, files and index.

Writing: rows are staged, files and points written and flushed, then one transaction publishes.
Removing: rows are hidden first, then points and files go, then the rows. Either may stop anywhere;
the ledger still names every version that is staged or retired, and :meth:`Store.recover` finishes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from threading import Lock

from pipeline import layers
from pipeline.cached_states import VersionCache
from pipeline.errors import DiskFullError, IndexingError, LongleafError
from pipeline.layers import LAYERS, Lexical, index_name
from pipeline.ledger import Also, Ledger
from pipeline.originals import Stored
from pipeline.records import Published, VersionKey, VersionRecord
from pipeline.seams import Indexer
from pipeline.types import ChunkedDocument, DocumentEmbeddings, Point

SLICE_POINTS = 2_000
RESERVE_BYTES = 16 * 1024 * 1024

_SLICE_VERSIONS = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """A document ready to be written. ``original`` is in the spool; None for a document given as text."""

    record: VersionRecord
    chunked: ChunkedDocument
    embeddings: DocumentEmbeddings
    lexical: Lexical
    original: Path | None


class Store:
    """The one way in which versions come and go. Thread-safe."""

    def __init__(self, ledger: Ledger, indexer: Indexer, caches: Sequence[VersionCache] = ()) -> None:
        """``caches`` are told of versions that come, and lose those that go."""
        self._ledger = ledger
        self._indexer = indexer
        self._caches = caches
        self._active: set[VersionKey] = set()
        self._marking = Lock()
        self._removing = Lock()

    def write(
        self,
        tenant: str,
        collection: str,
        entries: Sequence[Entry],
        *,
        keep: bool = False,
        also: Also | None = None,
    ) -> list[tuple[VersionKey, Published]]:
        """Store these documents together; they are durable and live once this returns.

        Versions that they replace are removed, or kept outside the index with ``keep``. What ``also`` does
        happens in the transaction that makes the documents live.

        Raises DiskFullError before anything is written when the disk has too little room. After any
        error nothing of them is visible, and what was written is removed now or at the next recovery.
        """
        self._check_space(entries)
        with self._marking:
            keys = self._ledger.stage(tenant, collection, [entry.record for entry in entries])
            self._active.update(keys)
        try:
            staged = list(zip(keys, entries, strict=True))
            self._ledger.originals.write([Stored(k, e.chunked.document, e.original) for k, e in staged])
            for name, points in _slices(staged):
                self._indexer.upsert(name, points)
            self._indexer.flush()
            published = self._ledger.publish(keys, keep=keep, also=also)
        except BaseException:
            with suppress(LongleafError):  # the first error is the one to tell; recovery does the rest
                self.remove(self._ledger.retire(keys))
            raise
        finally:
            with self._marking:
                self._active.difference_update(keys)
        with suppress(LongleafError):  # the new versions are live; recovery removes the old ones
            self.remove([old for each in published for old in each.retired])
            self._shelve([old for each in published for old in each.shelved])
        return list(zip(keys, published, strict=True))

    def _shelve(self, keys: Sequence[VersionKey]) -> None:
        """Take the points of versions that are to be kept out of the index."""
        if not keys:
            return
        with self._removing:
            self._remove_all_points(keys)
            for cache in self._caches:
                cache.remove(keys)
            self._ledger.keep(keys)

    def rewrite(self, key: VersionKey, entry: Entry) -> None:
        """Write the points of a live version again, in place of whatever the index has of it."""
        self._remove_points(key.tenant, key.collection, [key])
        for name, points in _slices([(key, entry)]):
            self._indexer.upsert(name, points)
        self._indexer.flush()

    def remove(self, keys: Sequence[VersionKey]) -> None:
        """Remove points, files and rows of retired versions.

        Raises IndexingError if the index still has some of them afterwards.
        """
        if not keys:
            return
        with self._removing:
            self._remove_all_points(keys)
            self._ledger.originals.remove(keys)
            for cache in self._caches:
                cache.remove(keys)
            self._ledger.forget(keys)

    def _remove_all_points(self, keys: Sequence[VersionKey]) -> None:
        for (tenant, collection), group in groupby(sorted(keys), lambda k: (k.tenant, k.collection)):
            mine = list(group)
            for i in range(0, len(mine), _SLICE_VERSIONS):
                self._remove_points(tenant, collection, mine[i : i + _SLICE_VERSIONS])
        self._indexer.flush()

    def _remove_points(self, tenant: str, collection: str, keys: Sequence[VersionKey]) -> None:
        where = layers.of_versions(keys)
        for layer in LAYERS:
            name = index_name(tenant, collection, layer)
            if self._indexer.schema(name) is None:
                continue
            self._indexer.delete(name, where)
            left = self._indexer.count(name, where)
            if left:
                raise IndexingError(f"Index {name!r} still has {left} points after they were deleted.")

    def drop(self, tenant: str, collection: str) -> None:
        """Remove everything of a collection that the ledger has dropped."""
        with self._removing:
            for layer in LAYERS:
                self._indexer.drop(index_name(tenant, collection, layer))
            all_keys = self._ledger.leftovers()
            keys = [key for key in all_keys if (key.tenant, key.collection) == (tenant, collection)]
            self._ledger.originals.remove(keys)
            for cache in self._caches:
                cache.remove(keys)
            self._ledger.forget(keys)
            self._ledger.forget_collection(tenant, collection)

    def recover(self) -> list[VersionKey]:
        """Remove what interrupted writes and removals left; returns those versions. Idempotent.

        Only for a process that owns ingestion. What others write who are alive is left alone.
        """
        self._ledger.bury_writers()
        for tenant, collection in self._ledger.dropped_collections():
            self.drop(tenant, collection)
        with self._marking:
            leftovers = [key for key in self._ledger.leftovers() if key not in self._active]
            keys = self._ledger.retire(leftovers) if leftovers else []
        self.remove(keys)
        self._shelve(self._ledger.shelved())
        return keys

    def _check_space(self, entries: Sequence[Entry]) -> None:
        needed = sum(map(_bytes_needed, entries)) + RESERVE_BYTES
        free = shutil.disk_usage(self._ledger.root).free
        if free < needed:
            raise DiskFullError(
                f"{self._ledger.root} has {free:,} bytes free; storing {len(entries)} documents needs "
                f"about {needed:,}.",
                remedy="Free space on that disk and try again.",
            )


def _slices(staged: Sequence[tuple[VersionKey, Entry]]) -> Iterator[tuple[str, list[Point]]]:
    """Points of all versions, at most ``SLICE_POINTS`` of one index at a time."""
    waiting: dict[str, list[Point]] = {}
    for key, entry in staged:
        made = layers.points(key, entry.chunked, entry.embeddings, entry.lexical, entry.record.metadata)
        for layer, points in made.items():
            name = index_name(key.tenant, key.collection, layer)
            line = waiting.setdefault(name, [])
            line += points
            while len(line) >= SLICE_POINTS:
                yield name, line[:SLICE_POINTS]
                del line[:SLICE_POINTS]
    yield from ((name, points) for name, points in waiting.items() if points)


def _bytes_needed(entry: Entry) -> int:
    """Text and layout as JSON, and vectors with payloads twice (log and segment)."""
    vectors = entry.embeddings.passages.nbytes + entry.embeddings.units.nbytes
    payloads = 1_000 * (entry.record.passages + entry.record.units + 1)
    return 4 * entry.record.chars + 2 * (vectors + payloads)
