"""What one running server holds: the open Longleaf and a pool of threads for each kind of work."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from api.build import Longleaf
from api.sections import Settings
from api.work import Pool
from pipeline.errors import LongleafError

_log = logging.getLogger("longleaf.service")


@dataclass(frozen=True, slots=True)
class Service:
    """Made at start, closed at shutdown. ``failures`` says what could not be loaded, by part."""

    longleaf: Longleaf
    searching: Pool
    answering: Pool
    ingesting: Pool
    failures: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, longleaf: Longleaf) -> Service:
        """With the numbers of workers that the settings give."""
        server = longleaf.settings.server
        return cls(
            longleaf,
            Pool("search", workers=server.search_workers, queue=server.queue),
            Pool("answer", workers=server.answer_workers, queue=server.queue),
            Pool("ingestion", workers=server.ingest_workers, queue=server.queue),
        )

    @property
    def settings(self) -> Settings:
        """The settings of everything."""
        return self.longleaf.settings

    def preload(self) -> None:
        """Load the models in the background; until then ``/readyz`` says what is missing."""
        threading.Thread(target=self._load, name="preload", daemon=True).start()

    def ready(self) -> dict[str, str]:
        """State of each part a search needs: "ok", "loading" or what is wrong."""
        made = self.longleaf.made
        return {
            part: self.failures.get(part) or ("ok" if part in made else "loading")
            for part in ("ledger", "indexer", "embedder")
        }

    def close(self) -> None:
        """Let running work end; refuse what waits."""
        for pool in (self.searching, self.answering, self.ingesting):
            pool.close()

    def _load(self) -> None:
        parts = ["embedder"]
        if self.settings.language_model.spec != "none":
            parts.append("language_model")
        for part in parts:
            try:
                getattr(self.longleaf, part)
            except LongleafError as error:
                self.failures[part] = str(error)
                _log.warning("%s: %s", part, error)


def service(request: Request) -> Service:
    """The service of the application that got the request."""
    running: Service = request.app.state.service
    return running


Running = Annotated[Service, Depends(service)]
