"""The composition root: settings in, a working Longleaf out. Nothing is opened before it is used."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from api.sections import PACKAGES
from pipeline import plugins
from pipeline.errors import ConfigurationError, ModelError
from pipeline.foreign import foreign_indexes
from pipeline.originals import disk_errors

if TYPE_CHECKING:
    from api.advice import ModelAdvice
    from api.benches import Benches
    from api.sections import Settings
    from pipeline.answer import Answerer
    from pipeline.cached_reading import CachedReading
    from pipeline.cached_states import CachedStates
    from pipeline.ingest import Ingestor
    from pipeline.job_queue import JobQueue
    from pipeline.ledger import Ledger
    from pipeline.lexical import Analyser, LexicalConfig
    from pipeline.lm.contexts import Contexts
    from pipeline.lm.model import LocalModel
    from pipeline.rerank import Reranked, Searching
    from pipeline.retrieve import Retriever
    from pipeline.seams import Embedder, Indexer, LanguageModel, Reranker
    from pipeline.worker import Worker

T = TypeVar("T")

_log = logging.getLogger("longleaf.build")


class once(Generic[T]):
    """A member made at first use, by one thread only (``cached_property`` lost its lock in Python 3.12)."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> once[T]: ...
    @overload
    def __get__(self, owner: Longleaf, kind: type) -> T: ...
    def __get__(self, owner: Longleaf | None, kind: type) -> T | once[T]:
        """The member, made now if need be."""
        if owner is None:
            return self
        if self._name not in owner.made:
            # A lock for each member: nobody waits for a model that is loading but those who need it.
            with owner.locks.setdefault(self._name, RLock()):
                if self._name not in owner.made:
                    owner.made[self._name] = self._make(owner)
        made: T = owner.made[self._name]
        return made


class Longleaf:
    """Every part of one installation, wired together. Made by :func:`open_longleaf`."""

    def __init__(
        self, settings: Settings, closing: ExitStack, announce: Callable[[str], None] | None = None
    ) -> None:
        """``announce`` is told in words what takes long, such as the first conversion of a model."""
        self.settings = settings
        self.announce = announce
        self.made: dict[str, Any] = {}
        self.locks: dict[str, RLock] = {}
        self._closing = closing

    def open_stores(self) -> None:
        """Open ledger and index now, so that a damaged or occupied data directory is told at once."""
        self.ledger.collections()
        self.indexer.names()

    def discard_index(self) -> None:
        """Remove the files of an index that cannot be opened; the ledger has what it is rebuilt from.

        Raises UnavailableError while another process ingests.
        """
        self.ledger.own_ingestion()
        opened = self.made.pop("indexer", None)
        if opened is not None:
            opened.close()
        path = self.settings.plugin_options("indexer").get("path")
        if path is not None:
            shutil.rmtree(path)

    def remove_other_indexes(self) -> list[str]:
        """Remove the folders of engines that are not configured, but those in which a program of one's own
        keeps an index; the names of these engines.

        Raises UnavailableError while another process ingests.
        """
        self.ledger.own_ingestion()
        others = self.settings.other_indexes()
        removed = [engine for engine, path in others.items() if not foreign_indexes(path)]
        for engine in removed:
            with disk_errors(others[engine]):
                shutil.rmtree(others[engine])
        return removed

    @once
    def ledger(self) -> Ledger:
        """The record of truth."""
        from pipeline.ledger import Ledger

        chosen = self.settings.ledger
        url = chosen.url.get_secret_value() if chosen.url else None
        ledger = Ledger(self.settings.data, url=url, migrate=chosen.migrate)
        self._closing.callback(ledger.close)
        return ledger

    @once
    def indexer(self) -> Indexer:
        """The store of vectors and terms, under the data directory."""
        from pipeline.aliases import Aliased

        others = list(self.settings.other_indexes())
        if others:
            _log.warning(
                "The index %r is used, and there are files of %s. Only what is used is kept up to date: "
                "`longleaf verify` compares it with the ledger, and `longleaf repair` removes the others.",
                self.settings.indexer.name,
                " and ".join(map(repr, others)),
            )
        indexer: Indexer = Aliased(self._plugin("indexer"), self.ledger)
        self._closing.callback(indexer.close)
        return indexer

    @once
    def embedder(self) -> Embedder:
        """Text to vectors; loads its model."""
        embedder: Embedder = self._plugin("embedder")
        return embedder

    @once
    def analyser(self) -> Analyser:
        """Text to terms."""
        from pipeline.lexical import Analyser

        return Analyser(self.settings.lexical)

    @once
    def benches(self) -> Benches:
        """The parts that work on each collection."""
        from api.benches import Benches

        return Benches(self)

    @once
    def ingestor(self) -> Ingestor:
        """The write flow."""
        from pipeline.ingest import Ingestor

        settings = self.settings
        return Ingestor(
            self.ledger,
            self.indexer,
            self.embedder,
            self.analyser,
            settings.chunking,
            settings.reading,
            caches=[self.cached_states],
        )

    @once
    def job_queue(self) -> JobQueue:
        """Jobs: accepted, looked at, stopped."""
        from pipeline.job_queue import JobQueue

        return JobQueue(self.ledger, self.settings.jobs, self.settings.reading)

    @once
    def worker(self) -> Worker:
        """Works on jobs once it is started."""
        from api import building
        from pipeline.worker import Worker

        worker = Worker(
            self.ledger,
            self.job_queue,
            lambda tenant, name: self.benches.of(tenant, name).ingestor,
            partial(building.keep, self) if building.at_ingestion(self.settings) else None,
        )
        self._closing.callback(worker.close)
        return worker

    @once
    def retriever(self) -> Retriever | Reranked:
        """Query to hits."""
        return self.make_retriever(self.embedder, self.analyser)

    def make_retriever(self, embedder: Embedder, analyser: Analyser) -> Retriever | Reranked:
        """Query to hits, in collections made with these parts."""
        from pipeline.retrieve import Retriever

        retriever = Retriever(embedder, self.indexer, self.ledger, analyser, self.settings.retrieval)
        if self.settings.reranker.name == "identity":
            return retriever
        from pipeline.rerank import Reranked

        return Reranked(retriever, lambda: self.reranker)

    @once
    def reranker(self) -> Reranker:
        """What puts hits in order after retrieval; one that looks through the language model shares it."""
        chosen = self.settings.reranker
        options = self.settings.plugin_options("reranker")
        if "language_model" in plugins.configure("rerankers", chosen.name).__class__.model_fields:
            options = options if "model" in options else {**options, "language_model": self.language_model}
        reranker: Reranker = plugins.load("rerankers", chosen.name, **options)
        return reranker

    @once
    def advice(self) -> ModelAdvice:
        """What is known about the language model."""
        from api.advice import ModelAdvice

        return ModelAdvice(self.settings.data / "calibrations")

    @once
    def language_model(self) -> LanguageModel:
        """The model that composes answers. Raises ConfigurationError where the settings say `none`."""
        chosen = self.settings.language_model
        if chosen.spec == "none":
            raise ConfigurationError(
                "No language model is configured.",
                remedy="Set language_model.spec, or ask in extractive mode.",
            )
        if chosen.url is not None:
            from pipeline.lm.remote import REMOTE_WINDOW_TOKENS, RemoteConfig, RemoteModel

            return RemoteModel(
                RemoteConfig(
                    chosen.url,
                    chosen.spec,
                    chosen.window_tokens or REMOTE_WINDOW_TOKENS,
                    chosen.api_key_file,
                    chosen.timeout_seconds,
                    tokenizer=chosen.tokenizer,
                )
            )
        from pipeline.lm.model import load

        def loaded(spec: str, **options: Any) -> LocalModel:  # noqa: ANN401 - of load
            return load(
                spec,
                cache=self.settings.models.cache,
                allow_download=self.settings.models.allow_download,
                dtype=chosen.dtype,
                device=chosen.device,
                threads=chosen.threads,
                prefix_bytes=chosen.prefix_bytes,
                progress=self.announce,
                **options,
            )

        return loaded(
            chosen.spec,
            window_tokens=chosen.window_tokens,
            positions=chosen.positions,
            speculation=self.settings.speculation,
            drafter=None if chosen.drafter is None else loaded(chosen.drafter),
        )

    @property
    def states_folder(self) -> Path:
        """Where KV states of documents are kept."""
        return self.settings.data / "kv"

    @once
    def contexts(self) -> Contexts:
        """Cached contexts of the language model. Raises ModelError where it keeps no states here."""
        from pipeline.lm import context_calibration
        from pipeline.lm.contexts import Contexts
        from pipeline.lm.model import LocalModel

        model = self.language_model
        if not isinstance(model, LocalModel):
            raise ModelError(
                f"{model.name} runs elsewhere and gives no KV states.",
                remedy="Let it read sequentially: context = sequential.",
            )
        folder = self.settings.data / "calibrations"
        found = context_calibration.find(model.name, model.revision, folder)
        contexts = Contexts(model, self.settings.contexts, self.states_folder, found)
        self._closing.callback(contexts.close)
        self._closing.callback(self.cached_reading.close)  # before the contexts: it may be using them
        self._closing.callback(self.cached_states.close)
        return contexts

    @once
    def cached_reading(self) -> CachedReading:
        """The way of answers to cached contexts."""
        from pipeline.cached_reading import CachedReading

        return CachedReading(lambda: self.contexts, self.settings.contexts)

    @once
    def cached_states(self) -> CachedStates:
        """KV states that come and go with documents."""
        from api import building
        from pipeline.cached_states import CachedStates

        builds = partial(building.build, self) if building.at_ingestion(self.settings) else None
        return CachedStates(self.states_folder, lambda: self.made.get("contexts"), builds)

    @once
    def answerer(self) -> Answerer:
        """The read flow. The language model is loaded by the first question that needs it."""
        return self.make_answerer(self.retriever, self.embedder, self.settings.lexical)

    def make_answerer(self, retriever: Searching, embedder: Embedder, lexical: LexicalConfig) -> Answerer:
        """The read flow, in collections made with these parts."""
        from pipeline.answer import Answerer

        none = self.settings.language_model.spec == "none"
        model = None if none else lambda: self.language_model
        return Answerer(
            retriever,
            embedder,
            model,
            self.settings.answer,
            lexical=lexical,
            documents=self.ledger,
            advice=self.advice,
            cached=None if none else self.cached_reading,
            speculation=self.settings.speculation,
        )

    def _plugin(self, section: str) -> Any:  # noqa: ANN401 - the seam decides the type
        name = getattr(self.settings, section).name
        return plugins.load(PACKAGES[section], name, **self.settings.plugin_options(section))


@contextmanager
def open_longleaf(settings: Settings, announce: Callable[[str], None] | None = None) -> Iterator[Longleaf]:
    """A Longleaf over ``settings.data``; what was opened meanwhile is closed at the end."""
    with ExitStack() as closing:
        yield Longleaf(settings, closing, announce)
