"""The HTTP application, made from settings; importing this module makes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer

from api import problems
from api.audit import AuditLog
from api.build import Longleaf, open_longleaf
from api.compat import chat, embeddings, models, rerank
from api.compat.documented import without_422
from api.envelopes import dressed
from api.incidents import Incidents
from api.keys import KeyRing
from api.metrics import Metrics
from api.observing import Observer
from api.quotas import Quotas
from api.routes import answer, calibrations, collections, content, documents, health, jobs, metrics, search
from api.sections import Settings
from api.security import Gate, refuse_open_door
from api.service import Service
from api.settings import load_settings
from api.telemetry import Telemetry
from api.tracing import Tracing
from api.version import VERSION

_DESCRIPTION = """Questions over long documents, answered with every statement tied to page and characters.

Offsets are half-open and count Unicode code points of the document's text. Errors are RFC 9457 problem
documents with a stable `code` and a `remedy`. A refusal for load is 503 with `Retry-After`."""


def create_app(settings: Settings | None = None, longleaf: Longleaf | None = None) -> FastAPI:
    """The application; without settings they are gathered from file and environment.

    A ``longleaf`` that is open already is used and left open; otherwise one is opened at start and
    closed at shutdown. Raises ConfigurationError when it would listen beyond this machine and no key
    exists.
    """
    settings = settings or load_settings()
    keys = KeyRing(settings.data)
    refuse_open_door(settings.server, keys)
    quotas = Quotas(settings.quotas)
    telemetry = Telemetry(Metrics(), Tracing.from_environment())
    audit = AuditLog(settings.data, max_bytes=settings.logging.max_audit_bytes)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with nullcontext(longleaf) if longleaf else open_longleaf(settings) as opened:
            opened.open_stores()
            quotas.share(opened.ledger)
            service = Service.of(opened, quotas, telemetry)
            app.state.service = service
            if settings.server.preload:
                service.preload()
            opened.worker.start()
            try:
                yield
            finally:
                opened.worker.close()
                service.close()
                quotas.close()
                telemetry.tracing.close()
                audit.close()

    app = FastAPI(
        title="Longleaf",
        version=VERSION,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        separate_input_output_schemas=False,
        redirect_slashes=False,  # a redirect would repeat whatever name the Host header has
    )
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            without_422(described())
            described()["components"]["schemas"] |= documents.SCHEMAS
        return described()

    app.openapi = openapi  # type: ignore[method-assign]
    problems.install(app, settings.server.retry_after_seconds, dressed)
    # Only described here: the gate has asked for the key before a route is looked for.
    key = Depends(HTTPBearer(auto_error=False, description="A key made by `longleaf keys create`."))
    app.include_router(health.router)
    app.include_router(metrics.router, dependencies=[key])
    for routes in (
        calibrations,
        collections,
        content,
        documents,
        jobs,
        search,
        answer,
        chat,
        embeddings,
        rerank,
        models,
    ):
        app.include_router(routes.router, dependencies=[key])
    app.add_middleware(Incidents, retry_after_seconds=settings.server.retry_after_seconds)
    app.add_middleware(Gate, settings=settings.server, keys=keys, quotas=quotas)
    app.add_middleware(Observer, telemetry=telemetry, audit=audit)
    return app
