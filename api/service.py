"""What one running server holds: the open Longleaf and a pool of threads for each kind of work."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import JSONResponse

from api import contexts
from api.benches import Bench
from api.build import Longleaf
from api.callers import Shelf
from api.plain import plain
from api.quotas import Quotas
from api.sections import Settings
from api.sharing import Share
from api.telemetry import Telemetry
from api.work import Pool
from pipeline.errors import LongleafError
from pipeline.job_counts import EndedDocuments
from pipeline.results import IngestResult

_log = logging.getLogger("longleaf.service")
_PLAIN_STATES = ("ok", "loading")


@dataclass(frozen=True, slots=True)
class Service:
    """Made at start, closed at shutdown. ``models`` tells the state of each model by part; ``stopping`` is
    set as soon as the server takes no more requests."""

    longleaf: Longleaf
    searching: Pool
    answering: Pool
    ingesting: Pool
    embedding: Pool
    operating: Pool
    accepting: Pool
    watching: Pool
    quotas: Quotas
    telemetry: Telemetry
    models: dict[str, str] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, longleaf: Longleaf, quotas: Quotas, telemetry: Telemetry) -> Service:
        """With the numbers of workers that the settings give."""
        server = longleaf.settings.server
        share = Share(functools.cache(lambda: _searches_beside(longleaf.settings)))
        made = cls(
            longleaf,
            Pool("search", workers=server.search_workers, queue=server.queue, turn=share.follow),
            Pool("answer", workers=server.answer_workers, queue=server.queue, turn=share.lead),
            Pool("ingestion", workers=server.ingest_workers, queue=server.queue),
            Pool("embedding", workers=server.embed_workers, queue=server.queue),
            Pool("operation", workers=1, queue=server.queue),
            Pool("upload", workers=2, queue=server.queue),
            Pool("job watching", workers=max(server.queue, 1), queue=0),
            quotas,
            telemetry,
        )
        telemetry.metrics.watch(made.pools)
        contexts.tell(telemetry.metrics, longleaf)
        made._tell_of_jobs()
        return made

    def _tell_of_jobs(self) -> None:
        """Count what jobs ingest as what uploads do, and show what waits."""

        def told(tenant: str, result: IngestResult) -> None:
            self.telemetry.ingested([result])
            self.quotas.spend_tokens(tenant, result.tokens)

        self.longleaf.worker.told = told
        queue, metrics = self.longleaf.job_queue, self.telemetry.metrics
        ended = EndedDocuments(self.longleaf.ledger.database)
        ended()  # they count from now on, not from the first scrape
        metrics.gauge(
            "longleaf_job_documents",
            "Documents of jobs on their way in.",
            lambda: queue.backlog()[0],
            "stage",
        )
        metrics.gauge(
            "longleaf_job_oldest_seconds",
            "How long ago the oldest job with such documents was accepted.",
            lambda: queue.backlog()[1],
            "stage",
        )
        metrics.counter(
            "longleaf_job_documents_ended",
            "Documents of jobs that ended since the start, whichever process worked on them.",
            ended,
            "stage",
        )

    @property
    def pools(self) -> tuple[Pool, ...]:
        """Every kind of work."""
        model_work = self.searching, self.answering, self.ingesting, self.embedding
        return *model_work, self.operating, self.accepting, self.watching

    @property
    def settings(self) -> Settings:
        """The settings of everything."""
        return self.longleaf.settings

    def bench(self, shelf: Shelf) -> Bench:
        """The parts that work on a collection."""
        return self.longleaf.benches.of(shelf.tenant, shelf.collection)

    def preload(self) -> None:
        """Load the models in the background; until then they are "loading"."""
        self.models["embedder"] = "loading"
        if self.settings.language_model.spec != "none":
            self.models["language_model"] = "loading"
        threading.Thread(target=self._load, name="preload", daemon=True).start()

    def check(self) -> dict[str, str]:
        """State of each part: "ok", "loading", or what is wrong with it. Asks ledger and index now."""
        stores: dict[str, Callable[[], object]] = {
            "ledger": self.longleaf.ledger.collections,
            "indexer": self.longleaf.indexer.names,
        }
        return {**{part: _state(ask) for part, ask in stores.items()}, **self.models}

    def give_up(self) -> None:
        """Tell all running work to end, and its clients that it will not be finished."""
        for pool in self.pools:
            pool.stop()

    def close(self) -> None:
        """Let running work end; refuse what waits."""
        for pool in self.pools:
            pool.close()

    def _load(self) -> None:
        # A model folder is read at the first use of the embedder, so it is used once.
        load: dict[str, Callable[[], object]] = {
            "embedder": lambda: self.longleaf.embedder.embed_queries(["ready"]),
            "language_model": lambda: self.longleaf.language_model,
        }
        for part in list(self.models):
            self.models[part] = state = _state(load[part])
            if state != "ok":
                _log.warning("%s: %s", part, state)


def without_words(state: str) -> str:
    """The state of a part for those who may not know what the words of an error name: paths and models."""
    return state if state in _PLAIN_STATES else "failed"


def written(value: object) -> JSONResponse:
    """A finished answer. To be made in the thread of the work: a thousand passages take a while to write,
    and the event loop has others to serve."""
    return JSONResponse(plain(value))


def _searches_beside(settings: Settings) -> int:
    """How many searches may run while an answer is in work: all where no model runs on these processors."""
    server, model = settings.server, settings.language_model
    if server.searches_beside_answers is not None:
        return server.searches_beside_answers
    if model.spec == "none" or model.url is not None or model.device.startswith("cuda"):
        return server.search_workers
    if model.device == "auto":
        import torch

        if torch.cuda.is_available():
            return server.search_workers
    return server.search_workers // 2


def _state(work: Callable[[], object]) -> str:
    try:
        work()
    except LongleafError as error:
        return str(error)
    return "ok"


def service(request: Request) -> Service:
    """The service of the application that got the request."""
    running: Service = request.app.state.service
    return running


Running = Annotated[Service, Depends(service)]
