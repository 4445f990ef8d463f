"""Cached states come and go with documents: built in the background where settings say so, removed always."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline import layers
from pipeline.errors import LimitExceededError, LongleafError, NotFoundError, PromptTooLongError
from pipeline.ledger import Ledger
from pipeline.lm.kv_disk import remove_files
from pipeline.lm.kv_identity import TenantKeys
from pipeline.records import VersionKey
from pipeline.seams import Indexer

if TYPE_CHECKING:
    from pipeline.lm.context_request import Passage
    from pipeline.lm.contexts import Contexts

_log = logging.getLogger("longleaf.contexts")
_PAUSE_SECONDS = 0.2


class VersionCache(Protocol):
    """Something that is derived from versions of documents and has to go with them."""

    def added(self, keys: Sequence[VersionKey]) -> None:
        """These versions are live. Returns at once."""
        ...

    def remove(self, keys: Sequence[VersionKey]) -> None:
        """Remove everything of these versions, for good. Raises StorageError."""
        ...


class CachedStates:
    """KV states of documents, whether or not a language model is loaded in this process."""

    def __init__(
        self,
        folder: Path,
        loaded: Callable[[], Contexts | None],
        build: Callable[[VersionKey], object] | None,
    ) -> None:
        """``folder`` is where the states are. ``loaded`` gives the cached contexts if they are in use here.
        ``build`` is called for each added version, in a thread of its own; None builds nothing."""
        self._folder = folder
        self._loaded = loaded
        self._build = build
        self._waiting: queue.Queue[VersionKey | None] = queue.Queue()
        self._removed: set[VersionKey] = set()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    def added(self, keys: Sequence[VersionKey]) -> None:
        """Build their states some time soon, if settings say so."""
        if self._build is None:
            return
        with self._lock:
            if self._closed:
                return
            self._removed.difference_update(keys)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="context-builder", daemon=True)
                self._thread.start()
        for key in keys:
            self._waiting.put(key)

    def remove(self, keys: Sequence[VersionKey]) -> None:
        """Remove their states from memory and disk. Raises StorageError."""
        with self._lock:
            if self._thread is not None:
                self._removed.update(keys)
        contexts = self._loaded()
        if contexts is not None:
            contexts.store.remove(keys)
        if (self._folder / "kv.secret").exists():
            remove_files(self._folder, TenantKeys.in_folder(self._folder), keys)

    def is_stopped(self, key: VersionKey) -> bool:
        """Whether building a version is of no use any more."""
        return self._closed or key in self._removed

    def drain(self) -> None:
        """Return once everything added so far is built."""
        self._waiting.join()

    def close(self) -> None:
        """Give up what waits; what is being built is finished."""
        with self._lock:
            self._closed = True
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (key := self._waiting.get()) is not None:
            try:
                if self._build is not None and not self.is_stopped(key):
                    self._build(key)
            except LongleafError as error:
                _log.warning("states of a document were not built: %s", error.code)
            except Exception as error:  # noqa: BLE001 - the next document's can still be built
                _log.error("states of a document were not built: %s", type(error).__name__)
            finally:
                self._waiting.task_done()
        self._waiting.task_done()


@dataclass(frozen=True, slots=True)
class Built:
    """One passage whose states are there now. ``found`` says where they were: memory, disk, or built in
    ``seconds``. It is the passage number ``place`` of ``passages``, counted from one."""

    found: str
    tokens: int
    seconds: float
    place: int
    passages: int


def passages_of(contexts: Contexts, ledger: Ledger, indexer: Indexer, key: VersionKey) -> list[Passage]:
    """The passages of a version as they are stored, without those that exceed the model's window. Raises
    NotFoundError if it is gone."""
    document = ledger.load(key.tenant, key.collection, key.document_id, key.version)
    name = layers.index_name(key.tenant, key.collection, "passages")
    places = sorted(
        (int(payload["_ordinal"]), int(payload["_start"]), int(payload["_end"]))
        for _, payload in indexer.points(name, layers.of_versions([key]))
    )
    passages = []
    for _, start, end in places:
        with contextlib.suppress(PromptTooLongError):
            passages.append(contexts.passage(key, document.title, document.text[start:end]))
    return passages


def build_states(
    contexts: Contexts,
    ledger: Ledger,
    indexer: Indexer,
    key: VersionKey,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Built]:
    """Build the states of a version, a passage at a time and only while nobody uses the model.

    A version that is gone has none, and building ends where one goes meanwhile.
    """
    try:
        passages = passages_of(contexts, ledger, indexer, key)
    except NotFoundError:
        return
    for place, passage in enumerate(passages, 1):
        while contexts.busy and not stopped():
            time.sleep(_PAUSE_SECONDS)
        if stopped() or not _is_live(ledger, key):
            return
        began = time.perf_counter()
        for found in contexts.warm([passage], stopped):
            yield Built(found, passage.key.tokens, time.perf_counter() - began, place, len(passages))


def keep_states(
    contexts: Contexts, ledger: Ledger, indexer: Indexer, key: VersionKey, stopped: Callable[[], bool]
) -> Iterator[tuple[int, int]]:
    """The same for a job: yields how many passages are cached, of all.

    Raises LimitExceededError in the end if they were not all kept for want of room.
    """
    for built in build_states(contexts, ledger, indexer, key, stopped):
        yield built.place, built.passages
    contexts.store.flush()
    if not _is_live(ledger, key):  # a process that deletes it cannot know what this one was about to write
        contexts.store.remove([key])
        return
    if stopped():
        return
    passages = passages_of(contexts, ledger, indexer, key)
    missing = sum(not contexts.has_all([passage]) for passage in passages)
    if missing:
        raise LimitExceededError(
            f"The states of {missing:,} of {len(passages):,} passages were not kept.",
            remedy="They are built again when they are used. See contexts.disk_bytes and the free space.",
        )


def _is_live(ledger: Ledger, key: VersionKey) -> bool:
    try:
        return ledger.document(key.tenant, key.collection, key.document_id).version == key.version
    except NotFoundError:
        return False
